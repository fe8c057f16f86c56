//! Whether a client takes JSON.

/// Whether one of the media types in an `Accept` header is plain JSON, which is all that is spoken here. Tables,
/// aggregated discovery and protobuf are asked for together with plain JSON by whoever can do without them.
pub fn takes_json(accept: &str) -> bool {
    accept.trim().is_empty() || accept.split(',').any(is_json)
}

fn is_json(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let mut refused = false;
    let mut other_shape = false;
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("q", weight)) => refused |= weight.trim().parse::<f32>() == Ok(0.0),
            Some(("as" | "g" | "v", _)) => other_shape = true,
            _ => {}
        }
    }
    matches!(media.as_str(), "application/json" | "application/*" | "*/*")
        && !refused
        && !other_shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_json_is_enough_among_others() {
        for (accept, taken) in [
            ("", true),
            ("*/*", true),
            ("application/json, */*", true),
            ("application/vnd.kubernetes.protobuf,application/json", true),
            ("application/vnd.kubernetes.protobuf", false),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                true,
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;q=0.9",
                true,
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                false,
            ),
            ("Application/JSON; charset=utf-8", true),
            ("application/json;q=0", false),
            ("text/html", false),
        ] {
            assert_eq!(takes_json(accept), taken, "{accept}");
        }
    }
}
