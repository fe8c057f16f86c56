//! Hot path: one request against one pool: candidates → predict → admit → filter → score → pick → reserve.

mod dispatch;
mod gather;
mod predict;
mod reload;
mod replay;

pub(crate) use replay::Again;

use std::sync::Arc;
use std::time::Duration;

use predictor::{Features, LatencyModel, Models, Prediction};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::admit::{Chances, Rules, refusal_probability};
use crate::config::{Config, Filter, HealthRules};
use crate::endpoint::Endpoint;
use crate::flow::{Meter, Reading, Saturation, Waiting};
use crate::health::Watch;
use crate::peers::{Chain, Sent};
use crate::pool::Pool;
use crate::prefix::{PrefixIndex, block_tokens};
use crate::schedule::{Ask, Candidate, Profile, Stage};
use crate::stopwatch::{Stopwatch, Work};

/// Everything a pick depends on besides the request, and buffers that live between requests.
#[derive(Debug)]
pub(crate) struct Router {
    config: Config,
    rules: Rules,
    pool: Arc<Pool>,
    models: Arc<Models>,
    /// Which of the models each endpoint of the pool has.
    of_slot: Vec<usize>,
    /// The one that all of them have, if there is one.
    only: Option<usize>,
    /// Endpoints of the pool that only prefill.
    prefills: Vec<bool>,
    prefixes: Option<PrefixIndex>,
    /// Prompts sent to endpoints that other pickers have not been told of; `None` = there are none to tell.
    sent: Option<Sent>,
    profile: Profile,
    /// Passive health, if it is configured.
    watch: Option<Arc<Watch>>,
    rng: StdRng,
    readings: Vec<Reading>,
    meter: Meter,
    candidates: Vec<Candidate>,
    rows: Vec<Features>,
    predictions: Vec<Prediction>,
    /// Candidates of one class, where there are several.
    of_class: Vec<usize>,
    class_rows: Vec<Features>,
    names: Names,
}

/// What steps that are no filter or scorer are called.
#[derive(Debug)]
struct Names {
    predictor: Arc<str>,
    room: Arc<str>,
}

/// Which endpoints a request is weighed against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Among {
    /// All it may ever go to, whatever their state now: can waiting help?
    Ever,
    /// All that the profile's filters let pass now.
    Now,
    /// Those of them with room for one more.
    WithRoom,
}

/// Whether a request can be dispatched now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Offer {
    /// No endpoint of the pool is among those it may go to.
    NoEndpoint,
    /// It is refused, and why: waiting does not help.
    Barred(&'static str),
    /// Those it may go to are full. `narrowed` = there are others, for which only this request is not; they may have
    /// room for whoever comes behind it.
    NoRoom { narrowed: bool },
    /// Its SLO cannot be met, by so many milliseconds of TTFT, or only at the cost of others'.
    Hopeless { over_ms: f64 },
    /// It can.
    Go,
}

/// The rules of passive health, if it is configured.
fn health(config: &Config) -> Option<&HealthRules> {
    let mut filters = config.profile.filters.iter();
    filters.find_map(|named| match &named.filter {
        Filter::Health(rules) => Some(rules),
        _ => None,
    })
}

impl Router {
    pub(crate) fn new(config: Config, seed: u64) -> Self {
        let watch = health(&config).map(|rules| Arc::new(Watch::new(rules.clone())));
        Self {
            rules: Rules::of(&config),
            pool: Arc::default(),
            models: Arc::new(Models::one(LatencyModel::prior())),
            of_slot: Vec::new(),
            only: None,
            prefills: Vec::new(),
            prefixes: config.prefix.clone().map(PrefixIndex::new),
            sent: None,
            profile: Profile::new(&config, watch.as_ref()),
            watch,
            rng: StdRng::seed_from_u64(seed),
            readings: Vec::new(),
            meter: Meter::of(&config),
            candidates: Vec::new(),
            rows: Vec::new(),
            predictions: Vec::new(),
            of_class: Vec::new(),
            class_rows: Vec::new(),
            names: Names {
                predictor: "predicted-latency-producer".into(),
                room: config.detector.type_name().into(),
            },
            config,
        }
    }

    pub(crate) fn lend(&mut self, watch: Stopwatch) {
        self.profile.trail.laps.lend(watch);
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn set_pool(&mut self, pool: Arc<Pool>) {
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.set_pool(&self.pool, &pool);
        }
        if let Some(sent) = &mut self.sent {
            // Slots mean other endpoints from now on.
            sent.clear();
        }
        self.profile.pool_changed(&pool);
        self.pool = pool;
        self.find_prefills();
        self.meter.set_pool(&self.pool);
        self.assign_models();
    }

    fn find_prefills(&mut self) {
        let producer = self.config.predicted_latency.as_ref();
        let role = producer.map_or("", |producer| producer.endpoint_role_label.as_str());
        let prefills = |endpoint: &Arc<Endpoint>| {
            endpoint
                .labels
                .get(role)
                .is_some_and(|role| role == "prefill")
        };
        self.prefills.clear();
        self.prefills
            .extend(self.pool.endpoints.iter().map(prefills));
    }

    pub(crate) fn set_models(&mut self, models: Arc<Models>) {
        let same = Arc::ptr_eq(self.models.names(), models.names());
        self.models = models;
        if !same {
            self.assign_models();
        }
    }

    /// Tokens per block that prompts should be hashed with now; `None` = nothing reads the hashes.
    pub(crate) fn block_tokens(&self) -> Option<u32> {
        Some(block_tokens(self.config.prefix.as_ref()?, &self.pool))
    }

    pub(crate) fn share_prefixes(&mut self) {
        self.sent.get_or_insert_default();
    }

    pub(crate) fn take_sent(&mut self) -> Vec<Chain> {
        self.sent.as_mut().map(Sent::take).unwrap_or_default()
    }

    /// Another picker sent a prompt to the endpoint in `slot`. One that was cut into blocks of another size matches
    /// nothing and is forgotten in time.
    pub(crate) fn learn_elsewhere(&mut self, slot: usize, chain: &Chain) {
        let endpoint = self.pool.endpoints.get(slot);
        if let (Some(prefixes), Some(endpoint)) = (&mut self.prefixes, endpoint) {
            prefixes.learn(slot, endpoint, &chain.blocks, chain.block_tokens);
        }
    }

    /// Blocks remembered in the prefix index, over all endpoints.
    pub(crate) fn prefix_blocks(&self) -> usize {
        self.prefixes.as_ref().map_or(0, PrefixIndex::len)
    }

    /// Reads every endpoint once; what follows judges by these readings.
    pub(crate) fn observe(&mut self) {
        self.readings.clear();
        self.readings
            .extend(self.pool.endpoints.iter().map(|one| Reading::of(one)));
        self.meter.observed();
    }

    /// How full the pool is, by the last readings and what was dispatched since.
    pub(crate) fn saturation(&mut self, now: Duration) -> Saturation {
        self.meter
            .saturation(&self.config.detector, &self.readings, now)
    }

    /// Requests in flight on the endpoints of the pool, by the last readings.
    pub(crate) fn in_flight(&self) -> u64 {
        let in_flight = |reading: &Reading| u64::from(reading.load.in_flight);
        self.readings.iter().map(in_flight).sum()
    }

    /// The endpoint in `slot` was given a request: its reading, and what is summed of it, follow.
    fn reread(&mut self, slot: usize) {
        if let (Some(endpoint), Some(reading)) =
            (self.pool.endpoints.get(slot), self.readings.get_mut(slot))
        {
            let before = std::mem::replace(reading, Reading::of(endpoint));
            self.meter
                .reread(&self.config.detector, slot, &before, reading);
        }
    }

    /// Whether filters of the profile choose endpoints by the request.
    pub(crate) fn selects_by_request(&self) -> bool {
        self.profile.selects_by_request()
    }

    /// [`Router::offer`] among those with room. Where none of them meets the SLO of a request that may be shed for it,
    /// but one that is full now would, should it have room in `next_room`, the request has no room yet; others may.
    pub(crate) fn offer_room(
        &mut self,
        now: Duration,
        waiting: &Waiting,
        waited: Duration,
        next_room: Duration,
        ceiling: f64,
    ) -> Offer {
        let offer = self.offer(now, waiting, waited, Among::WithRoom, ceiling);
        if !matches!(offer, Offer::Hopeless { .. }) || !self.sheds(waiting.request.sheddable()) {
            return offer;
        }
        let expected = waited.saturating_add(next_room);
        match self.offer(now, waiting, expected, Among::Ever, ceiling) {
            Offer::Go => Offer::NoRoom { narrowed: true },
            _ => offer,
        }
    }

    /// Weighs a request that has waited (or is expected to wait) `waited`, by the last readings; endpoints at or above
    /// `ceiling` have no room for it. After [`Offer::Go`] or [`Offer::Hopeless`] the candidates stand ready for [`Router::dispatch`].
    pub(crate) fn offer(
        &mut self,
        now: Duration,
        waiting: &Waiting,
        waited: Duration,
        among: Among,
        ceiling: f64,
    ) -> Offer {
        self.profile.trail.begin(waiting.request.recorded);
        if !self.reach(now, waiting) {
            return Offer::NoEndpoint;
        }
        let request = &waiting.request;
        let ask = self.ask(now, waiting, waited);
        let reached = self.candidates.len();
        self.keep(Stage::Constraint, &ask);
        let narrowed = waiting.subset.is_some()
            || self.selects_by_request() && self.candidates.len() < reached;
        if self.candidates.is_empty() {
            return Offer::Barred("no endpoint passes the filters of the scheduling profile");
        }
        if among != Among::Ever {
            self.keep_room(now, among, ceiling);
            self.keep(Stage::Room, &ask);
        }
        if self.candidates.is_empty() {
            return Offer::NoRoom { narrowed };
        }
        self.match_prefix(request);
        let began = self.profile.trail.laps.start();
        self.predict(request.prompt_tokens);
        let laps = &mut self.profile.trail.laps;
        laps.lap(Work::Predict, &self.names.predictor, began);
        match self.weigh(&ask, among) {
            Offer::Go if among != Among::Ever && self.unlucky(now, request.priority) => {
                Offer::Barred("the pool is filling up and the request is sheddable")
            }
            Offer::NoRoom { .. } => Offer::NoRoom { narrowed },
            offer => offer,
        }
    }

    /// What the predictions make of the candidates.
    fn weigh(&self, ask: &Ask<'_>, among: Among) -> Offer {
        let request = ask.request;
        match self.rules.chances(ask, &self.candidates) {
            Chances::Open => Offer::Go,
            Chances::None { over_ms } => Offer::Hopeless { over_ms },
            // Those who are in the way now will be gone by the time it is dispatched.
            Chances::Harmful if among == Among::Ever => Offer::Go,
            Chances::Harmful if !self.sheds(request.sheddable()) => Offer::Go,
            // It can wait for them in a queue that holds up nobody above it.
            Chances::Harmful if among == Among::WithRoom && request.priority < 0 => {
                Offer::NoRoom { narrowed: false }
            }
            Chances::Harmful => Offer::Hopeless { over_ms: 0.0 },
        }
    }

    fn sheds(&self, sheddable: bool) -> bool {
        sheddable && self.config.slo_admitter.is_some()
    }

    /// Whether the probabilistic admitter refuses a request of that priority.
    fn unlucky(&mut self, now: Duration, priority: i32) -> bool {
        let Some(parameters) = self.config.probabilistic_admitter.as_ref() else {
            return false;
        };
        if priority >= 0 {
            return false;
        }
        let staleness = self.config.metrics_staleness;
        let fresh = |reading: &Reading| reading.scraped.filter(|one| one.age(now) <= staleness);
        let scraped = self.readings.iter().map(fresh);
        let probability = refusal_probability(parameters, scraped);
        probability > 0.0 && self.rng.random_bool(probability)
    }
}
