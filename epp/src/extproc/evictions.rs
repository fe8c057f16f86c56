//! Who is told that its request is taken off its server: one waker per running request of negative priority.

use epp_core::Ticket;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

/// Streams whose request may be taken off its server. Empty unless the configuration has eviction on.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    running: FxHashMap<Ticket, oneshot::Sender<&'static str>>,
    /// Named before their stream had read its verdict.
    early: FxHashMap<Ticket, &'static str>,
}

impl Evictions {
    /// The stream of `ticket` is told the reason through what is returned. It must [`Evictions::forget`] once it ends.
    pub(super) fn follow(&mut self, ticket: Ticket) -> oneshot::Receiver<&'static str> {
        let (tell, told) = oneshot::channel();
        match self.early.remove(&ticket) {
            // The receiver is right here: it takes the reason.
            Some(reason) => drop(tell.send(reason)),
            None => drop(self.running.insert(ticket, tell)),
        }
        told
    }

    /// The request behind `ticket` is to end.
    pub(super) fn evict(&mut self, ticket: Ticket, reason: &'static str) {
        match self.running.remove(&ticket) {
            // A stream that is gone has given its room back already.
            Some(tell) => drop(tell.send(reason)),
            None => drop(self.early.insert(ticket, reason)),
        }
    }

    /// The request behind `ticket` has ended.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.running.remove(&ticket);
        self.early.remove(&ticket);
    }
}
