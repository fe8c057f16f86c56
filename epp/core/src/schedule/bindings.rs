//! Which endpoint a session belongs to: told by the request itself, or remembered here.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::config::{SessionAffinity, SessionIdSource, SessionStrategy};
use crate::pool::Pool;
use crate::schedule::Ask;
use crate::session;

/// Sessions remembered in each of two generations; a client may invent as many as it likes.
const GENERATION: usize = 32_768;

/// The endpoints of sessions.
#[derive(Debug)]
pub(crate) struct Bindings {
    how: How,
    by_name: FxHashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

#[derive(Debug)]
enum How {
    /// In a header, encoded.
    Told(String),
    /// By an id, here.
    Remembered {
        sources: Vec<SessionIdSource>,
        memory: Memory,
    },
}

/// Names of endpoints by session id. When the young generation is full it becomes the old one, which is forgotten:
/// bounded, and whoever comes back in time is young again.
#[derive(Debug)]
struct Memory {
    time_to_live: Duration,
    sweep_every: Duration,
    swept: Duration,
    young: FxHashMap<Arc<str>, Bound>,
    old: FxHashMap<Arc<str>, Bound>,
}

#[derive(Clone, Debug)]
struct Bound {
    endpoint: Arc<str>,
    used: Duration,
}

impl Bindings {
    pub(crate) fn new(parameters: &SessionAffinity) -> Self {
        let how = match parameters.strategy {
            SessionStrategy::EncodedEndpointHeader => {
                How::Told(parameters.token_header().to_ascii_lowercase())
            }
            SessionStrategy::SessionId => {
                let (live, sweep) = parameters.memory_seconds();
                let span = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
                How::Remembered {
                    sources: parameters.sources().iter().map(lower_case).collect(),
                    memory: Memory {
                        time_to_live: span(live),
                        sweep_every: span(sweep),
                        swept: Duration::ZERO,
                        young: FxHashMap::default(),
                        old: FxHashMap::default(),
                    },
                }
            }
        };
        Self {
            how,
            by_name: FxHashMap::default(),
            names: Vec::new(),
        }
    }

    pub(crate) fn pool_changed(&mut self, pool: &Pool) {
        let names = pool.endpoints.iter().map(|endpoint| &endpoint.name);
        self.names = names.cloned().collect();
        let numbered = self.names.iter().cloned().zip(0..);
        self.by_name = numbered.collect();
    }

    /// Where the endpoint of the request's session is in the pool.
    pub(crate) fn slot(&self, ask: &Ask<'_>) -> Option<u32> {
        match &self.how {
            How::Told(header) => {
                let name = session::endpoint_of(ask.request.header(header)?)?;
                self.by_name.get(name.as_str()).copied()
            }
            How::Remembered { sources, memory } => {
                let bound = memory.get(session_id(sources, ask)?, ask.now)?;
                self.by_name.get(&bound.endpoint).copied()
            }
        }
    }

    /// The request goes to the endpoint at `slot`: its session does from now on.
    pub(crate) fn bind(&mut self, ask: &Ask<'_>, slot: u32) {
        let How::Remembered { sources, memory } = &mut self.how else {
            return;
        };
        let (Some(id), Some(name)) = (session_id(sources, ask), self.names.get(slot as usize))
        else {
            return;
        };
        memory.put(id, Arc::clone(name), ask.now);
    }
}

fn lower_case(source: &SessionIdSource) -> SessionIdSource {
    match source.header() {
        Some(header) => SessionIdSource::Name(header.to_ascii_lowercase()),
        None => source.clone(),
    }
}

/// The first id that a source of the request holds.
fn session_id<'r>(sources: &[SessionIdSource], ask: &Ask<'r>) -> Option<&'r str> {
    let read = |source: &SessionIdSource| match source.header() {
        Some(header) => ask.request.header(header),
        None => ask.request.session.as_deref(),
    };
    sources
        .iter()
        .filter_map(read)
        .find(|id| !id.is_empty() && id.len() <= session::LONGEST_ID)
}

impl Memory {
    fn get(&self, id: &str, now: Duration) -> Option<&Bound> {
        let bound = self.young.get(id).or_else(|| self.old.get(id))?;
        (now.saturating_sub(bound.used) <= self.time_to_live).then_some(bound)
    }

    fn put(&mut self, id: &str, endpoint: Arc<str>, now: Duration) {
        self.sweep(now);
        let bound = Bound {
            endpoint,
            used: now,
        };
        if let Some(known) = self.young.get_mut(id) {
            *known = bound;
            return;
        }
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id.into(), bound);
    }

    fn sweep(&mut self, now: Duration) {
        if now.saturating_sub(self.swept) < self.sweep_every {
            return;
        }
        self.swept = now;
        let live = self.time_to_live;
        let keep = |_: &Arc<str>, bound: &mut Bound| now.saturating_sub(bound.used) <= live;
        self.young.retain(keep);
        self.old.retain(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_ages() {
        let seconds = Duration::from_secs;
        let mut memory = Memory {
            time_to_live: seconds(300),
            sweep_every: seconds(10),
            swept: Duration::ZERO,
            young: FxHashMap::default(),
            old: FxHashMap::default(),
        };
        for number in 0..5 * GENERATION {
            memory.put(&number.to_string(), "e".into(), seconds(1));
        }
        assert!(memory.young.len() + memory.old.len() <= 2 * GENERATION);
        let newest = (5 * GENERATION - 1).to_string();
        assert!(memory.get(&newest, seconds(301)).is_some());
        assert!(memory.get(&newest, seconds(302)).is_none());
        memory.put("late", "e".into(), seconds(400));
        assert_eq!(memory.young.len() + memory.old.len(), 1, "swept");
    }
}
