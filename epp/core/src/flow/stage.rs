//! Which stages of serving an endpoint takes part in, by its role.

use names::{label, role};

use crate::endpoint::Endpoint;

/// The stages that an endpoint's room counts for; with neither it counts for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stages {
    /// Prompts are read there.
    pub(crate) prefill: bool,
    /// Output is made there.
    pub(crate) decode: bool,
}

impl Stages {
    /// By the label that names the role. What is not labelled decodes; an unknown role takes part in nothing.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        let mut roles = label::ROLE.all();
        let (prefill, decode) = match roles.find_map(|name| endpoint.labels.get(name)) {
            None => (false, true),
            Some(named) => match named.as_str() {
                role::PREFILL | role::ENCODE_PREFILL => (true, false),
                role::DECODE => (false, true),
                role::PREFILL_DECODE | role::BOTH | role::ENCODE_PREFILL_DECODE => (true, true),
                _ => (false, false),
            },
        };
        Self { prefill, decode }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_name_stages() {
        let stages = |role: &str| {
            let labels = [(label::ROLE.canonical.to_owned(), role.to_owned())].into();
            let stages = Stages::of(&Endpoint::new("a", "10.0.0.1:80", labels));
            (stages.prefill, stages.decode)
        };
        assert_eq!(stages("prefill"), (true, false));
        assert_eq!(stages("encode-prefill"), (true, false));
        assert_eq!(stages("decode"), (false, true));
        for both in ["both", "prefill-decode", "encode-prefill-decode"] {
            assert_eq!(stages(both), (true, true), "{both}");
        }
        for none in ["encode", "encode-decode", "cook"] {
            assert_eq!(stages(none), (false, false), "{none}");
        }
        let bare = Stages::of(&Endpoint::new("a", "10.0.0.1:80", Default::default()));
        assert_eq!((bare.prefill, bare.decode), (false, true));
    }
}
