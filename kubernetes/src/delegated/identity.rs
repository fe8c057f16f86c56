//! Who asks.

use std::collections::BTreeMap;

use serde::Serialize;

/// User of a request that proves nothing.
pub const ANONYMOUS: &str = "system:anonymous";
/// Group of a request that proves nothing.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group of everybody else.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group that may do anything.
pub const MASTERS: &str = "system:masters";

/// Who asks, as Kubernetes knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// User name.
    pub user: String,
    /// Unique id of the user; empty when not told.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Further attributes, for authorisers that know them.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// Somebody who proves nothing.
    pub fn anonymous() -> Self {
        Self {
            user: ANONYMOUS.into(),
            groups: vec![UNAUTHENTICATED.into()],
            ..Self::default()
        }
    }

    /// Whether they belong to `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The same, a member of the group of all who proved who they are; that does not make somebody of nobody.
    pub(super) fn authenticated(mut self) -> Self {
        let nobody = self.user == ANONYMOUS || self.is_in(UNAUTHENTICATED);
        if !nobody && !self.is_in(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }
}
