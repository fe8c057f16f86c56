//! What a URL's path asks for, and which right that needs.

use kubernetes::delegated::Attributes;
use percent_encoding::percent_decode_str;

/// Group of the custom metrics API: metrics of objects.
pub const CUSTOM: &str = "custom.metrics.k8s.io";
/// Group of the external metrics API: metrics by label.
pub const EXTERNAL: &str = "external.metrics.k8s.io";
/// Versions of the custom metrics API, the preferred one first.
pub const CUSTOM_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
/// The version of the external metrics API.
pub const EXTERNAL_VERSION: &str = "v1beta1";
/// A name that stands for all objects.
pub const ALL_OBJECTS: &str = "*";

/// One of the two groups that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Metrics of objects.
    Custom,
    /// Metrics by label.
    External,
}

impl Group {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Custom, Self::External];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Custom => CUSTOM,
            Self::External => EXTERNAL,
        }
    }

    /// Its versions, the preferred one first.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Custom => &CUSTOM_VERSIONS,
            Self::External => &[EXTERNAL_VERSION],
        }
    }

    fn called(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name)
    }

    fn version(self, name: &str) -> Option<&'static str> {
        self.versions().iter().copied().find(|own| *own == name)
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The list of groups.
    Groups,
    /// One group.
    Group(Group),
    /// What one version of a group serves.
    Resources(Group, &'static str),
    /// The version of this server.
    Version,
    /// OpenAPI v2, all of it.
    OpenApiV2,
    /// The list of OpenAPI v3 documents.
    OpenApiV3,
    /// The OpenAPI v3 document of one version of a group.
    OpenApiV3Of(Group, &'static str),
    /// A metric of objects.
    Custom(CustomAsk),
    /// A metric by label.
    External {
        /// Namespace.
        namespace: String,
        /// Metric.
        metric: String,
    },
    /// A path into one of the groups that leads to no metric.
    Malformed,
    /// Nothing that is here.
    Unknown,
}

/// A metric of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomAsk {
    /// Version of the API, which decides the answer's shape.
    pub version: &'static str,
    /// Namespace; `None` for objects that are in none.
    pub namespace: Option<String>,
    /// Resource with its group, such as `deployments.apps`; [`NAMESPACES`] for the namespace itself.
    pub resource: String,
    /// The object's name, or [`ALL_OBJECTS`].
    pub name: String,
    /// Metric.
    pub metric: String,
}

/// The resource of a metric about a namespace itself.
pub const NAMESPACES: &str = "namespaces";

/// What `path` (still percent-encoded) asks for.
pub fn asked(path: &str) -> Asked {
    let parts = parts(path);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let versioned = |group: &str, version: &str| {
        let group = Group::called(group)?;
        Some((group, group.version(version)?))
    };
    match parts.as_slice() {
        ["apis"] => Asked::Groups,
        ["version"] => Asked::Version,
        ["openapi", "v2"] => Asked::OpenApiV2,
        ["openapi", "v3"] => Asked::OpenApiV3,
        ["openapi", "v3", "apis", group, version] => versioned(group, version)
            .map_or(Asked::Unknown, |(group, version)| {
                Asked::OpenApiV3Of(group, version)
            }),
        ["apis", group] => Group::called(group).map_or(Asked::Unknown, Asked::Group),
        ["apis", group, version, rest @ ..] => match versioned(group, version) {
            None => Asked::Unknown,
            Some((group, version)) if rest.is_empty() => Asked::Resources(group, version),
            Some((Group::External, _)) => external(rest),
            Some((Group::Custom, version)) => custom(version, rest),
        },
        _ => Asked::Unknown,
    }
}

fn external(rest: &[&str]) -> Asked {
    match rest {
        ["namespaces", namespace, metric] => Asked::External {
            namespace: (*namespace).to_owned(),
            metric: (*metric).to_owned(),
        },
        _ => Asked::Malformed,
    }
}

fn custom(version: &'static str, rest: &[&str]) -> Asked {
    let (namespace, resource, name, metric) = match rest {
        ["namespaces", namespace, "metrics", metric] => (None, NAMESPACES, namespace, metric),
        ["namespaces", namespace, resource, name, metric] => {
            (Some(*namespace), *resource, name, metric)
        }
        [resource, name, metric] => (None, *resource, name, metric),
        _ => return Asked::Malformed,
    };
    Asked::Custom(CustomAsk {
        version,
        namespace: namespace.map(str::to_owned),
        resource: resource.to_owned(),
        name: (*name).to_owned(),
        metric: (*metric).to_owned(),
    })
}

/// The right that a request needs, found as the API server in front finds it: what it let pass is not refused here for
/// a different reading of the same path.
pub fn right(method: &http::Method, path: &str) -> Attributes {
    let verb = match method.as_str() {
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    };
    let parts = parts(path);
    let (group, version, rest) = match parts.as_slice() {
        [apis, group, version, rest @ ..] if apis == "apis" && !rest.is_empty() => {
            (group, version, rest)
        }
        _ => {
            return Attributes::Page {
                // For a page the method itself is the verb.
                verb: page_verb(method),
                path: path.to_owned(),
            };
        }
    };
    let (namespace, rest) = match rest {
        [first, namespace, rest @ ..] if first == NAMESPACES && !own_subresource(rest) => {
            (namespace.clone(), rest)
        }
        [first, namespace, ..] if first == NAMESPACES => (namespace.clone(), rest),
        _ => (String::new(), rest),
    };
    let part = |index: usize| rest.get(index).cloned().unwrap_or_default();
    Attributes::Resource {
        verb: match (verb, rest.len()) {
            ("get", 1) => "list",
            ("delete", 1) => "deletecollection",
            _ => verb,
        },
        group: group.clone(),
        version: version.clone(),
        resource: part(0),
        name: part(1),
        subresource: part(2),
        namespace,
    }
}

/// Whether what follows a namespace's name still belongs to the namespace object.
fn own_subresource(rest: &[String]) -> bool {
    match rest.first().map(String::as_str) {
        None => true,
        Some(first) => matches!(first, "status" | "finalize"),
    }
}

fn page_verb(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "",
    }
}

/// The parts of a path, decoded; slashes at its ends do not matter.
fn parts(path: &str) -> Vec<String> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Vec::new();
    }
    path.split('/')
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn custom(
        version: &'static str,
        namespace: Option<&str>,
        [resource, name, metric]: [&str; 3],
    ) -> Asked {
        Asked::Custom(CustomAsk {
            version,
            namespace: namespace.map(str::to_owned),
            resource: resource.into(),
            name: name.into(),
            metric: metric.into(),
        })
    }

    #[test]
    fn every_path_of_the_apis_is_understood() {
        for (path, expected) in [
            ("/apis", Asked::Groups),
            ("/apis/", Asked::Groups),
            ("/apis/custom.metrics.k8s.io", Asked::Group(Group::Custom)),
            (
                "/apis/custom.metrics.k8s.io/v1beta1",
                Asked::Resources(Group::Custom, "v1beta1"),
            ),
            (
                "/apis/external.metrics.k8s.io/v1beta1/",
                Asked::Resources(Group::External, "v1beta1"),
            ),
            ("/apis/external.metrics.k8s.io/v1beta2", Asked::Unknown),
            ("/apis/apps", Asked::Unknown),
            ("/openapi/v2", Asked::OpenApiV2),
            ("/openapi/v3", Asked::OpenApiV3),
            (
                "/openapi/v3/apis/external.metrics.k8s.io/v1beta1",
                Asked::OpenApiV3Of(Group::External, "v1beta1"),
            ),
            ("/version", Asked::Version),
            ("/", Asked::Unknown),
            (
                "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/m",
                Asked::External {
                    namespace: "ns".into(),
                    metric: "m".into(),
                },
            ),
            ("/apis/external.metrics.k8s.io/v1beta1/m", Asked::Malformed),
            ("/apis/custom.metrics.k8s.io/v1beta2/pods", Asked::Malformed),
            (
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/deployments.apps/d/m",
                custom("v1beta2", Some("ns"), ["deployments.apps", "d", "m"]),
            ),
            (
                "/apis/custom.metrics.k8s.io/v1beta1/namespaces/ns/pods/%2A/m",
                custom("v1beta1", Some("ns"), ["pods", "*", "m"]),
            ),
            (
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/pods/*/m",
                custom("v1beta2", Some("ns"), ["pods", "*", "m"]),
            ),
            (
                "/apis/custom.metrics.k8s.io/v1beta2/nodes/n1/m",
                custom("v1beta2", None, ["nodes", "n1", "m"]),
            ),
            (
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/metrics/m",
                custom("v1beta2", None, ["namespaces", "ns", "m"]),
            ),
        ] {
            assert_eq!(asked(path), expected, "{path}");
        }
    }

    fn right_in_words(method: Method, path: &str) -> String {
        match right(&method, path) {
            Attributes::Page { verb, path } => format!("{verb} {path}"),
            Attributes::Resource {
                verb,
                group,
                version,
                resource,
                subresource,
                namespace,
                name,
            } => format!(
                "{verb} {group} {version} {namespace:?} {resource} {name:?} {subresource:?}"
            ),
        }
    }

    #[test]
    fn rights_are_those_that_the_api_server_in_front_asks_for() {
        for (method, path, expected) in [
            (Method::GET, "/apis", "get /apis"),
            (
                Method::GET,
                "/apis/custom.metrics.k8s.io/v1beta2",
                "get /apis/custom.metrics.k8s.io/v1beta2",
            ),
            (
                Method::GET,
                "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/m",
                r#"list external.metrics.k8s.io v1beta1 "ns" m "" """#,
            ),
            (
                Method::POST,
                "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/m",
                r#"create external.metrics.k8s.io v1beta1 "ns" m "" """#,
            ),
            (
                Method::GET,
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/deployments.apps/d/m",
                r#"get custom.metrics.k8s.io v1beta2 "ns" deployments.apps "d" "m""#,
            ),
            (
                Method::GET,
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/pods/%2A/m",
                r#"get custom.metrics.k8s.io v1beta2 "ns" pods "*" "m""#,
            ),
            (
                Method::GET,
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/metrics/m",
                r#"get custom.metrics.k8s.io v1beta2 "ns" metrics "m" """#,
            ),
            (
                Method::GET,
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns",
                r#"get custom.metrics.k8s.io v1beta2 "ns" namespaces "ns" """#,
            ),
            (
                Method::GET,
                "/apis/custom.metrics.k8s.io/v1beta2/nodes/n1/m",
                r#"get custom.metrics.k8s.io v1beta2 "" nodes "n1" "m""#,
            ),
        ] {
            assert_eq!(right_in_words(method, path), expected);
        }
    }
}
