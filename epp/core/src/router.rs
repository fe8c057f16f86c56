//! Hot path: one request against one pool: candidates → predict → admit → filter → score → pick → reserve.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use predictor::{Features, LatencyModel, Models, Prediction, State, Target};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::admit::{Chances, Trust, chances};
use crate::config::{Config, Quantile};
use crate::decision::{Considered, Decision, ModelState};
use crate::demand::DemandLedger;
use crate::director::Dispatch;
use crate::endpoint::{Endpoint, features};
use crate::flow::{Meter, Reading, Saturation, Waiting, has_room};
use crate::in_flight::{Booking, InFlight};
use crate::pool::Pool;
use crate::prefix::{PrefixIndex, block_tokens};
use crate::schedule::{Ask, Candidate, Profile};

/// Everything a pick depends on besides the request, and buffers that live between requests.
#[derive(Debug)]
pub(crate) struct Router {
    config: Config,
    pool: Arc<Pool>,
    models: Arc<Models>,
    /// Which of the models each endpoint of the pool has.
    of_slot: Vec<usize>,
    /// The one that all of them have, if there is one.
    only: Option<usize>,
    prefixes: Option<PrefixIndex>,
    profile: Profile,
    rng: StdRng,
    readings: Vec<Reading>,
    meter: Meter,
    candidates: Vec<Candidate>,
    rows: Vec<Features>,
    predictions: Vec<Prediction>,
    /// Candidates of one class, where there are several.
    of_class: Vec<usize>,
    class_rows: Vec<Features>,
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
    /// Those it may go to are full.
    NoRoom,
    /// Its SLO cannot be met, by so many milliseconds of TTFT.
    Hopeless { over_ms: f64 },
    /// It can.
    Go,
}

impl Router {
    pub(crate) fn new(config: Config, seed: u64) -> Self {
        Self {
            pool: Arc::default(),
            models: Arc::new(Models::one(LatencyModel::prior())),
            of_slot: Vec::new(),
            only: None,
            prefixes: config.prefix.clone().map(PrefixIndex::new),
            profile: Profile::new(&config),
            rng: StdRng::seed_from_u64(seed),
            readings: Vec::new(),
            meter: Meter::new(&config.detector),
            candidates: Vec::new(),
            rows: Vec::new(),
            predictions: Vec::new(),
            of_class: Vec::new(),
            class_rows: Vec::new(),
            config,
        }
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
        self.pool = pool;
        self.meter.set_pool(&self.pool);
        self.assign_models();
    }

    pub(crate) fn set_models(&mut self, models: Arc<Models>) {
        let same = Arc::ptr_eq(self.models.names(), models.names());
        self.models = models;
        if !same {
            self.assign_models();
        }
    }

    fn assign_models(&mut self) {
        let models = &self.models;
        let index = |endpoint: &Arc<Endpoint>| models.index_of(&endpoint.class);
        self.of_slot.clear();
        self.of_slot.extend(self.pool.endpoints.iter().map(index));
        let first = self.of_slot.first().copied();
        self.only = first.filter(|first| self.of_slot.iter().all(|of| of == first));
    }

    /// Tokens per block that prompts should be hashed with now; `None` = nothing reads the hashes.
    pub(crate) fn block_tokens(&self) -> Option<u32> {
        Some(block_tokens(self.config.prefix.as_ref()?, &self.pool))
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

    /// Weighs a request that has waited (or is expected to wait) `waited`, by the last readings; endpoints at or
    /// above `ceiling` have no room for it. After [`Offer::Go`] or [`Offer::Hopeless`] the candidates stand ready for [`Router::dispatch`].
    pub(crate) fn offer(
        &mut self,
        now: Duration,
        waiting: &Waiting,
        waited: Duration,
        among: Among,
        ceiling: f64,
    ) -> Offer {
        let reachable = self.gather(now, waiting, among, ceiling);
        if !reachable {
            return Offer::NoEndpoint;
        }
        if among != Among::Ever {
            self.profile.filter(now, &mut self.candidates);
        }
        if self.candidates.is_empty() {
            return Offer::NoRoom;
        }
        self.predict(waiting);
        match self.chances(&self.ask(waiting, waited)) {
            Chances::None { over_ms } => Offer::Hopeless { over_ms },
            Chances::Open => Offer::Go,
        }
    }

    /// Fills the candidates; false = no endpoint of the pool is within the request's subset.
    fn gather(&mut self, now: Duration, waiting: &Waiting, among: Among, ceiling: f64) -> bool {
        self.candidates.clear();
        let mut reachable = false;
        let request = &waiting.request;
        for (slot, (endpoint, reading)) in
            self.pool.endpoints.iter().zip(&self.readings).enumerate()
        {
            if !within(waiting.subset.as_deref(), endpoint.ip) {
                continue;
            }
            reachable = true;
            let full = || !has_room(&self.config.detector, reading, ceiling, now);
            if among == Among::WithRoom && full() {
                continue;
            }
            let matched_blocks = self
                .prefixes
                .as_ref()
                .map_or(0, |prefixes| prefixes.matched(slot, &request.prefix));
            let cached = u64::from(matched_blocks) * u64::from(request.prefix_block_tokens);
            self.candidates.push(Candidate {
                slot: slot as u32,
                load: reading.load,
                scraped: reading
                    .scraped
                    .filter(|scraped| scraped.age(now) <= self.config.metrics_staleness),
                matched_blocks,
                cached_tokens: cached.min(u64::from(request.prompt_tokens)) as u32,
                prediction: None,
                trust: Trust::NONE,
            });
        }
        reachable
    }

    /// Asks the models about all candidates, each class at once, if anything reads predictions.
    fn predict(&mut self, waiting: &Waiting) {
        self.rows.clear();
        if self.config.predicted_latency.is_none() {
            return;
        }
        let prompt = waiting.request.prompt_tokens;
        let row = |candidate: &Candidate| {
            features(
                &candidate.load,
                candidate.scraped.as_ref(),
                prompt,
                candidate.cached_tokens,
            )
        };
        self.rows.extend(self.candidates.iter().map(row));
        let Some(of) = self.only else {
            return self.predict_by_class();
        };
        let model = self.models.get(of);
        let trust = Trust::of(model);
        model.predict(&self.rows, &mut self.predictions);
        for (candidate, prediction) in self.candidates.iter_mut().zip(&self.predictions) {
            candidate.prediction = Some(*prediction);
            candidate.trust = trust;
        }
    }

    fn predict_by_class(&mut self) {
        for of in 0..=self.models.names().len() {
            self.of_class.clear();
            self.class_rows.clear();
            for (at, candidate) in self.candidates.iter().enumerate() {
                if self.of_slot[candidate.slot as usize] == of {
                    self.of_class.push(at);
                    self.class_rows.push(self.rows[at]);
                }
            }
            if self.of_class.is_empty() {
                continue;
            }
            let model = self.models.get(of);
            model.predict(&self.class_rows, &mut self.predictions);
            for (&at, prediction) in self.of_class.iter().zip(&self.predictions) {
                self.candidates[at].prediction = Some(*prediction);
                self.candidates[at].trust = Trust::of(model);
            }
        }
    }

    fn ask(&self, waiting: &Waiting, waited: Duration) -> Ask {
        Ask {
            slo: waiting.request.slo,
            waited_ms: waited.as_secs_f64() * 1e3,
            prompt_tokens: waiting.request.prompt_tokens,
            blocks: waiting.request.prefix.len() as u32,
            ttft_state: self.ttft_state(),
        }
    }

    /// State of the candidates' TTFT models, if anything reads predictions: the prior as long as any is at it, since
    /// a guess cannot be compared with what was learned.
    fn ttft_state(&self) -> Option<State> {
        self.config.predicted_latency.as_ref()?;
        if let Some(of) = self.only {
            return Some(self.models.get(of).state(Target::Ttft));
        }
        let state = |candidate: &Candidate| {
            model_of(&self.models, &self.of_slot, candidate.slot).state(Target::Ttft)
        };
        let mut states = self.candidates.iter().map(state);
        let first = states.next()?;
        Some(states.find(|&state| state == State::Prior).unwrap_or(first))
    }

    fn chances(&self, ask: &Ask) -> Chances {
        let quantile = self
            .config
            .slo_admitter
            .as_ref()
            .map_or(Quantile::P50, |admitter| admitter.quantile);
        chances(quantile, ask, &self.candidates)
    }

    /// Picks among the candidates of the last offer, reserves the load there and learns the prefix. The
    /// request comes back only if that offer left no candidate.
    pub(crate) fn dispatch(
        &mut self,
        now: Duration,
        waiting: Box<Waiting>,
        expected_miss: bool,
        ledger: &DemandLedger,
    ) -> Result<Box<Dispatch>, Box<Waiting>> {
        let waited = now.saturating_sub(waiting.arrived);
        let ask = self.ask(&waiting, waited);
        let picked = self.profile.pick(&ask, &self.candidates, &mut self.rng);
        let at = |index: &usize| {
            let candidate = self.candidates.get(*index)?;
            Some((
                *index,
                candidate,
                self.pool.endpoints.get(candidate.slot as usize)?,
            ))
        };
        let mut order = picked.order.iter().filter_map(at);
        let Some((first, chosen, endpoint)) = order.next() else {
            return Err(waiting);
        };
        let endpoint = Arc::clone(endpoint);
        let model = model_of(&self.models, &self.of_slot, chosen.slot);
        let trust = chosen.trust;
        let fallbacks = order.map(|(_, _, endpoint)| Arc::clone(endpoint)).collect();
        let predicts = self.config.predicted_latency.is_some();
        let decision = Decision {
            at: now,
            waited,
            cached_tokens: chosen.cached_tokens,
            prediction: chosen.prediction,
            trusted: trust.ttft && trust.tpot && chosen.prediction.is_some() && !chosen.load.cold(),
            expected_miss,
            state: predicts.then(|| ModelState {
                ttft: model.state(Target::Ttft),
                tpot: model.state(Target::Tpot),
            }),
            picked: first,
            pool: Arc::clone(&self.pool),
            scorers: Arc::clone(picked.scorers),
            considered: self
                .candidates
                .iter()
                .zip(picked.totals)
                .map(considered)
                .collect(),
            scores: picked.scores.to_vec(),
        };
        let booking = Booking {
            band: waiting.counters,
            dispatched_at: now,
            waited,
            prompt_tokens: waiting.request.prompt_tokens,
            cached_tokens: chosen.cached_tokens,
            priority: waiting.request.priority,
            slo: waiting.request.slo,
            features: self.rows.get(first).copied(),
            prediction: chosen.prediction,
            account: waiting.account,
            charge: waiting.charge,
            limit: self.meter.rule(),
        };
        if expected_miss {
            booking.band.expected_miss();
        }
        if let Some(prefixes) = &mut self.prefixes {
            let request = &waiting.request;
            prefixes.learn(
                chosen.slot as usize,
                &endpoint,
                &request.prefix,
                request.prefix_block_tokens,
            );
        }
        let slot = chosen.slot as usize;
        let in_flight = InFlight::reserve(Arc::clone(&endpoint), ledger.clone(), booking);
        self.reread(slot);
        Ok(Box::new(Dispatch {
            endpoint,
            fallbacks,
            waited,
            decision,
            in_flight,
            advice: None,
        }))
    }
}

/// The model of the endpoint in `slot`.
fn model_of<'m>(models: &'m Models, of_slot: &[usize], slot: u32) -> &'m LatencyModel {
    models.get(of_slot.get(slot as usize).copied().unwrap_or_default())
}

fn considered((candidate, &total): (&Candidate, &f32)) -> Considered {
    Considered {
        slot: candidate.slot,
        cached_tokens: candidate.cached_tokens,
        in_flight: candidate.load.in_flight,
        total,
        ttft_p50_ms: candidate
            .prediction
            .map_or(f32::NAN, |prediction| prediction.ttft.p50),
        tpot_p50_ms: candidate
            .prediction
            .map_or(f32::NAN, |prediction| prediction.tpot.p50),
    }
}

/// Whether an endpoint's IP is in the subset; no subset = every endpoint is.
fn within(subset: Option<&[IpAddr]>, ip: Option<IpAddr>) -> bool {
    subset.is_none_or(|subset| ip.is_some_and(|ip| subset.contains(&ip)))
}
