//! Both ends of the exchange between pickers.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHasher};

use super::heard::Heard;
use super::share::Remote;
use super::told::Told;
use super::{
    BandUse, Chain, Delta, EndpointKey, MOST_BANDS, MOST_BLOCKS, MOST_ENDPOINTS, MOST_PEERS,
};
use crate::endpoint::Endpoint;
use crate::pool::Pool;

/// Time after which it is another picker's turn at the slots that an even share leaves over.
const TURN: Duration = Duration::from_millis(800);
/// Of that, the time that they may be taken in. In the rest nobody takes them, until all know who did.
const OPEN: Duration = Duration::from_millis(400);

/// One picker's side: what it tells its peers, and what it knows of them.
#[derive(Debug)]
pub struct Exchange {
    name: Arc<str>,
    incarnation: u64,
    sequence: u64,
    pool: Arc<Pool>,
    slots: FxHashMap<EndpointKey, usize>,
    told: Told,
    heard: Heard,
    /// A peer told of its load and waits to hear that we know.
    owes_answer: bool,
    /// A peer fell silent: what it had in flight is room now.
    lost: bool,
}

/// What a delta changed.
#[derive(Debug, Default, PartialEq)]
pub struct Applied {
    /// Prompts that the peer sent to endpoints, by slot of the pool in force.
    pub learned: Vec<(usize, Chain)>,
}

/// Why a delta was not taken in.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// It is our own.
    #[error("this picker is {name:?} itself")]
    Oneself {
        /// Our name.
        name: Arc<str>,
    },
    /// Another picker has our name.
    #[error(
        "another picker is called {name:?} as well: every picker of a pool needs a name of its own (--name, or the \
         pod's)"
    )]
    Namesake {
        /// The name.
        name: Arc<str>,
    },
    /// It refers to something that was never heard; its sender has to begin anew.
    #[error(
        "what {from:?} says refers to what it said before, which was not heard: it has to begin anew"
    )]
    Unknown {
        /// The sender.
        from: Arc<str>,
    },
    /// It says more than it may.
    #[error("{from:?} tells of {count} {what}; at most {most} are taken in")]
    TooMany {
        /// The sender.
        from: Arc<str>,
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        count: usize,
        /// The limit.
        most: usize,
    },
}

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Its name.
    pub name: Arc<str>,
    /// When it last said something.
    pub heard_at: Duration,
    /// Whether it has heard us: only then do we share room with it.
    pub hears_us: bool,
    /// What it has queued.
    pub queued: BandUse,
}

impl Exchange {
    /// A picker of that name in its `incarnation`, which no other life of it and no peer may have.
    pub fn new(name: Arc<str>, incarnation: u64) -> Self {
        Self {
            name,
            incarnation,
            sequence: 0,
            pool: Arc::default(),
            slots: FxHashMap::default(),
            told: Told::default(),
            heard: Heard::default(),
            owes_answer: false,
            lost: false,
        }
    }

    /// Follows the pool.
    pub fn set_pool(&mut self, pool: Arc<Pool>) {
        self.told.set_pool(&pool);
        self.slots = pool
            .endpoints
            .iter()
            .enumerate()
            .map(|(slot, endpoint)| (key(endpoint), slot))
            .collect();
        self.pool = pool;
    }

    /// Time for a delta: what changed since the last one, with `bands` queued and `chains` sent to endpoints since.
    /// `epoch` is the time of day, which pickers need not agree on exactly. `None` = there is nothing to say. Ask
    /// [`Exchange::lost_peer`] afterwards.
    pub fn tick(
        &mut self,
        now: Duration,
        epoch: Duration,
        bands: Vec<BandUse>,
        chains: Vec<Chain>,
    ) -> Option<Delta> {
        self.sequence += 1;
        self.lost |= self.heard.age(now);
        if let Some(answered) = self.heard.answered() {
            self.told.answered(answered);
        }
        let said = self.told.tell(self.sequence, &self.pool);
        self.share(epoch);
        let more = self.owes_answer || !bands.is_empty() || !chains.is_empty();
        let delta = said.or_else(|| {
            more.then(|| Delta {
                sequence: self.sequence,
                ..Delta::default()
            })
        })?;
        self.told.speak(self.sequence);
        self.owes_answer = false;
        Some(self.signed(Delta {
            chains,
            bands,
            ..delta
        }))
    }

    /// Whether a peer has fallen silent since the last call, so that what it had in flight no longer counts and there may
    /// be room for who waits: the director is to look ([`crate::Director::learn_elsewhere`]).
    pub fn lost_peer(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// What opens a connection to a peer: all that was said, up to the last tick.
    pub fn whole(&self) -> Delta {
        self.signed(self.told.whole(self.sequence))
    }

    fn signed(&self, delta: Delta) -> Delta {
        let peers = self.heard.peers.values();
        Delta {
            from: Arc::clone(&self.name),
            incarnation: self.incarnation,
            heard: peers
                .map(|peer| (peer.incarnation, peer.sequence))
                .collect(),
            ..delta
        }
    }

    /// Takes in what a peer says.
    ///
    /// # Errors
    /// [`Refused`]; nothing of the delta counts then.
    pub fn apply(&mut self, now: Duration, delta: &Delta) -> Result<Applied, Refused> {
        self.check(delta)?;
        if !self.heard.apply(now, self.incarnation, delta) {
            return Err(Refused::Unknown {
                from: Arc::clone(&delta.from),
            });
        }
        // An answer to an answer would never end.
        self.owes_answer |= delta.whole.is_some() || !delta.loads.is_empty();
        if delta.whole.is_some() {
            self.refresh(0..self.pool.endpoints.len());
        } else {
            let slot = |at: u32| self.slot(&delta.from, at);
            let slots: Vec<usize> = delta.loads.iter().filter_map(|&(at, _)| slot(at)).collect();
            self.refresh(slots);
        }
        let learned = delta.chains.iter().filter_map(|chain| {
            let slot = self.slot(&delta.from, chain.endpoint)?;
            Some((slot, chain.clone()))
        });
        Ok(Applied {
            learned: learned.collect(),
        })
    }

    fn check(&self, delta: &Delta) -> Result<(), Refused> {
        if delta.from == self.name {
            let name = Arc::clone(&self.name);
            return Err(if delta.incarnation == self.incarnation {
                Refused::Oneself { name }
            } else {
                Refused::Namesake { name }
            });
        }
        let known = self.heard.peers.contains_key(&delta.from);
        let peers = self.heard.peers.len() + usize::from(!known);
        let endpoints = delta.whole.as_ref().map_or(0, Vec::len);
        let blocks = delta.chains.iter().map(|chain| chain.blocks.len()).sum();
        for (what, count, most) in [
            ("peers, with itself", peers, MOST_PEERS),
            (
                "endpoints",
                endpoints.max(delta.loads.len()),
                MOST_ENDPOINTS,
            ),
            ("bands", delta.bands.len(), MOST_BANDS),
            ("prefix blocks", blocks, MOST_BLOCKS),
        ] {
            if count > most {
                return Err(Refused::TooMany {
                    from: Arc::clone(&delta.from),
                    what,
                    count,
                    most,
                });
            }
        }
        Ok(())
    }

    /// The slot of the pool in force that an index of a peer means.
    fn slot(&self, from: &str, at: u32) -> Option<usize> {
        self.slots.get(self.heard.key(from, at)?).copied()
    }

    /// What all peers have queued, by band.
    pub fn queued(&self) -> BTreeMap<i32, BandUse> {
        self.heard.bands()
    }

    /// The peers that are there.
    pub fn peers(&self) -> Vec<PeerState> {
        let state = |(name, peer): (&Arc<str>, &super::heard::Peer)| {
            let mut queued = BandUse::default();
            for band in &peer.bands {
                queued.requests = queued.requests.saturating_add(band.requests);
                queued.bytes = queued.bytes.saturating_add(band.bytes);
            }
            PeerState {
                name: Arc::clone(name),
                heard_at: peer.at,
                hears_us: peer.answered.is_some(),
                queued,
            }
        };
        self.heard.peers.iter().map(state).collect()
    }

    /// Writes what peers have in flight into the endpoints in `slots`; how room is shared stays.
    fn refresh(&self, slots: impl IntoIterator<Item = usize>) {
        for endpoint in slots
            .into_iter()
            .filter_map(|slot| self.pool.endpoints.get(slot))
        {
            let flight = self.heard.flight(&key(endpoint));
            let shared = endpoint.load.remote().unwrap_or_default();
            endpoint.load.set_remote(Remote {
                flight,
                pickers: shared.pickers.max(1),
                ..shared
            });
        }
    }

    /// Writes into every endpoint what peers have in flight there and how room is shared with them.
    fn share(&self, epoch: Duration) {
        if self.heard.peers.is_empty() {
            for endpoint in &self.pool.endpoints {
                endpoint.load.set_remote(Remote::default());
            }
            return;
        }
        let before = self
            .heard
            .sharing()
            .filter(|name| **name < self.name)
            .count();
        let pickers = self.heard.sharing().count() + 1;
        let turns = (epoch.as_millis() / TURN.as_millis()) as usize;
        let open = epoch.as_millis() % TURN.as_millis() < OPEN.as_millis();
        for (slot, endpoint) in self.pool.endpoints.iter().enumerate() {
            let key = key(endpoint);
            let turn = before.wrapping_add(turns).wrapping_add(spread(&key)) % pickers;
            let turn = if open { turn } else { pickers - 1 };
            endpoint.load.set_remote(Remote {
                flight: self.heard.flight(&key),
                base: self.told.base(slot),
                // Room is shared with whoever hears us; load counts from whoever is heard.
                pickers: pickers as u32,
                turn: turn as u32,
            });
        }
    }
}

fn key(endpoint: &Arc<Endpoint>) -> EndpointKey {
    EndpointKey {
        name: Arc::clone(&endpoint.name),
        address: Arc::clone(&endpoint.address),
    }
}

/// A number that is the same at all pickers and different from endpoint to endpoint.
fn spread(key: &EndpointKey) -> usize {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish() as usize >> 8
}
