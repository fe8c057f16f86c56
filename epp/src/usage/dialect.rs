//! When each server writes `"usage":null`, learned from its own answers.
//!
//! Asking for usage in a client's place must not show. Some servers write `"usage":null` on every event
//! of every stream, some only when usage was asked for, some never; an answer to a request that asks
//! does not tell the first two apart. So the member is taken out at first; a server that was seen
//! to write it is once not asked, which settles how its plain answers look.

use crate::api::paths::Api;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What is known of one server's plain answers.
const UNKNOWN: u8 = 0;
/// It writes the member when asked; whether it does so too when not asked is to be found out.
const SUSPECTED: u8 = 1;
/// One request goes unasked to find out.
const PROBING: u8 = 2;
/// Plain answers do not have the member.
const ABSENT: u8 = 3;
/// Plain answers have it.
const PRESENT: u8 = 4;

/// What to do with one request whose client did not ask for usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Ask, and take the usage event out; `nulls`: take `"usage":null` out too.
    Ask {
        /// Plain answers do not have the member, as far as is known.
        nulls: bool,
    },
    /// Do not ask: this answer shows what plain ones look like.
    Probe,
}

/// One server's way with one API. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Dialect {
    state: Arc<AtomicU8>,
}

impl Dialect {
    /// What to do with the next request; a probe is planned for one request only.
    pub fn plan(&self) -> Plan {
        match self.state.load(Ordering::Relaxed) {
            PRESENT => Plan::Ask { nulls: false },
            SUSPECTED if self.step(SUSPECTED, PROBING) => Plan::Probe,
            _ => Plan::Ask { nulls: true },
        }
    }

    /// An answer to a request that asked has the member.
    pub fn null_when_asked(&self) {
        self.step(UNKNOWN, SUSPECTED);
    }

    /// The first event of an answer to a request that did not ask.
    pub fn plain(&self, null: bool) {
        self.state
            .store(if null { PRESENT } else { ABSENT }, Ordering::Relaxed);
    }

    /// A probe ended without an event.
    pub fn probe_failed(&self) {
        self.step(PROBING, SUSPECTED);
    }

    fn step(&self, from: u8, to: u8) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// All servers by address.
#[derive(Debug, Default)]
pub struct Dialects {
    /// The dialect in completions, and that in chats.
    known: RwLock<FxHashMap<Arc<str>, [Dialect; 2]>>,
}

impl Dialects {
    /// The dialect of the server at `address` in answers of `api`, which is one of the two that usage can be asked of.
    pub fn of(&self, address: &Arc<str>, api: Api) -> Dialect {
        let index = usize::from(api == Api::ChatCompletions);
        if let Some(dialects) = self.known.read().get(address) {
            return dialects[index].clone();
        }
        self.known.write().entry(Arc::clone(address)).or_default()[index].clone()
    }

    /// Forgets servers that are not among `addresses`: another one may come up there.
    pub fn retain(&self, addresses: &[&str]) {
        self.known
            .write()
            .retain(|address, _| addresses.contains(&&**address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_writes_null_is_probed_once_and_then_known() {
        for plain_has_null in [false, true] {
            let dialect = Dialect::default();
            assert_eq!(dialect.plan(), Plan::Ask { nulls: true });
            dialect.null_when_asked();
            assert_eq!(dialect.plan(), Plan::Probe);
            assert_eq!(
                dialect.plan(),
                Plan::Ask { nulls: true },
                "only one request goes unasked"
            );
            dialect.plain(plain_has_null);
            dialect.null_when_asked();
            assert_eq!(
                dialect.plan(),
                Plan::Ask {
                    nulls: !plain_has_null
                }
            );
        }
    }

    #[test]
    fn a_server_without_the_member_is_never_probed() {
        let dialect = Dialect::default();
        assert_eq!(
            (dialect.plan(), dialect.plan()),
            (Plan::Ask { nulls: true }, Plan::Ask { nulls: true })
        );
    }

    #[test]
    fn a_probe_that_fails_is_made_again() {
        let dialect = Dialect::default();
        dialect.null_when_asked();
        assert_eq!(dialect.plan(), Plan::Probe);
        dialect.probe_failed();
        assert_eq!(dialect.plan(), Plan::Probe);
    }

    #[test]
    fn servers_and_apis_are_kept_apart_and_forgotten_when_they_leave() {
        let dialects = Dialects::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a:1".into(), "b:1".into());
        dialects.of(&a, Api::Completions).plain(true);
        dialects.of(&b, Api::Completions).plain(true);
        assert_eq!(
            dialects.of(&a, Api::ChatCompletions).plan(),
            Plan::Ask { nulls: true }
        );
        dialects.retain(&["b:1"]);
        assert_eq!(
            dialects.of(&a, Api::Completions).plan(),
            Plan::Ask { nulls: true }
        );
        assert_eq!(
            dialects.of(&b, Api::Completions).plan(),
            Plan::Ask { nulls: false }
        );
    }
}
