//! Offers in, report out: the event loop of a fleet on a virtual clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use epp_core::{Director, End, Endpoint, InFlight, Outcome, Request, Verdict};
use predictor::Observation;
use rustc_hash::FxHashMap;
use simulator_core::{Event as EngineEvent, EventKind, Prefix, Submission};

use super::client::{Offer, mix64};
use super::crowding::Crowding;
use super::event::{Agenda, Event};
use super::launch::{Phase, Replica};
use super::picker::Picker;
use super::score::{Fate, Percentiles, Tally};
use super::sizing::{Sizing, TICK};
use super::spec::FleetSpec;
use super::{FleetReport, Sample};
use crate::{Controller, Decision};

/// Runs `offers` (in order of arrival) through the fleet until the last answer ends.
pub fn replay(spec: &FleetSpec, offers: &[Offer]) -> FleetReport {
    let mut run = Run::new(spec, offers);
    while run.open > 0 {
        let Some((now, event)) = run.agenda.next() else {
            break;
        };
        run.now = now;
        run.handle(event);
    }
    run.report()
}

/// A request on a replica.
struct Live {
    in_flight: InFlight,
    replica: usize,
    picker: usize,
    /// Learned once the answer is complete, as behind Envoy.
    first_label: Option<Observation>,
    tokens: u32,
    cached_tokens: u32,
    first_token: Option<Duration>,
}

pub(super) struct Run<'a> {
    pub(super) spec: &'a FleetSpec,
    offers: &'a [Offer],
    pub(super) now: Duration,
    pub(super) agenda: Agenda,
    /// Requests that have not met their fate.
    open: usize,
    pub(super) pickers: Vec<Picker>,
    pub(super) replicas: Vec<Replica>,
    /// When each offer was sent.
    sent: Vec<Duration>,
    /// Offers whose clients hold back, in order of arrival.
    held: VecDeque<usize>,
    under_way: u32,
    /// Offers on replicas, by index, which is also the engine's id.
    live: FxHashMap<u64, Live>,
    pub(super) controller: Option<Controller>,
    pub(super) decisions: Vec<Decision>,
    tally: Tally,
    timeline: Vec<Sample>,
    sampled_offers: usize,
    arrived: usize,
    recent_ttft_ms: Vec<f64>,
    engine_events: Vec<EngineEvent>,
}

impl<'a> Run<'a> {
    fn new(spec: &'a FleetSpec, offers: &'a [Offer]) -> Self {
        let (initial, controller, pickers) = match &spec.sizing {
            Sizing::Fixed(count) => (*count, None, spec.pickers.count.max(1)),
            Sizing::Autoscaled(scaling) => (
                scaling.initial,
                Some(Controller::new(scaling.policy.clone())),
                1,
            ),
        };
        let picker = |index: usize| {
            let seed = spec.seed.wrapping_add(index as u64);
            Picker::new(spec.epp.clone(), spec.learner.clone(), seed)
        };
        let mut run = Self {
            spec,
            offers,
            now: Duration::ZERO,
            agenda: Agenda::default(),
            open: offers.len(),
            pickers: (0..pickers).map(picker).collect(),
            replicas: Vec::new(),
            sent: vec![Duration::ZERO; offers.len()],
            held: VecDeque::new(),
            under_way: 0,
            live: FxHashMap::default(),
            controller,
            decisions: Vec::new(),
            tally: Tally::default(),
            timeline: Vec::new(),
            sampled_offers: 0,
            arrived: 0,
            recent_ttft_ms: Vec::new(),
            engine_events: Vec::new(),
        };
        for _ in 0..initial {
            run.launch();
        }
        for replica in &mut run.replicas {
            replica.phase = Phase::Ready;
        }
        run.relist();
        run.plan();
        run
    }

    /// Puts on the agenda what is known beforehand.
    fn plan(&mut self) {
        for (index, offer) in self.offers.iter().enumerate() {
            self.agenda.at(offer.at, Event::Arrival { offer: index });
        }
        self.agenda.at(Duration::ZERO, Event::Scrape);
        self.agenda.at(self.spec.sample_interval, Event::Sample);
        if self.controller.is_some() {
            self.agenda.at(TICK, Event::Tick);
        }
        if let Some(exchange) = &self.spec.pickers.exchange {
            self.agenda.at(exchange.every, Event::Exchange);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival { offer } => self.arrive(offer),
            Event::Step { replica } => self.step(replica),
            Event::Ready { replica } => self.ready(replica),
            Event::Install { picker } => self.pickers[picker].install(self.now),
            Event::Wakeup { picker } => self.wake(picker),
            Event::Exchange => self.exchange(),
            Event::Scrape => self.scrape(),
            Event::Tick => self.tick(),
            Event::Sample => self.sample(),
        }
    }

    // --- a request ---

    fn arrive(&mut self, index: usize) {
        self.arrived += 1;
        let busy = |clients| self.under_way >= clients;
        if self.spec.clients.is_some_and(busy) {
            self.held.push_back(index);
        } else {
            self.send(index);
            self.settle();
        }
    }

    /// Hands a request to a picker; its verdict is out after [`Run::settle`].
    fn send(&mut self, index: usize) {
        self.under_way += 1;
        self.sent[index] = self.now;
        let request = self.request(index);
        let draw = mix64(self.offers[index].row ^ mix64(self.spec.seed));
        let at = (draw % self.pickers.len() as u64) as usize;
        let picker = &mut self.pickers[at];
        let ticket = picker.director.submit(self.now, request);
        picker.waiting.insert(ticket, index);
    }

    /// The request as the picker would have parsed it.
    fn request(&self, index: usize) -> Request {
        let offer = &self.offers[index];
        let slo = if offer.kind.has_slo() {
            Some(self.spec.slo)
        } else {
            None
        };
        Request {
            id: offer.row.to_string(),
            prompt_tokens: offer.input_tokens,
            prefix: offer.chain(),
            prefix_block_tokens: offer.block_tokens,
            slo: epp_core::Slo {
                ttft_ms: slo.map(|s| s.ttft_ms),
                tpot_ms: slo.map(|s| s.tpot_ms),
            },
            priority: offer.kind.priority(),
            bytes: u64::from(offer.input_tokens) * BYTES_PER_TOKEN,
            ..Request::default()
        }
    }

    /// Takes every verdict that is out and acts on it.
    pub(super) fn settle(&mut self) {
        // What a verdict ends may let a client send through another picker.
        while (0..self.pickers.len()).any(|picker| self.act(picker)) {}
        for at in 0..self.pickers.len() {
            if let Some(due) = self.pickers[at].wakeup_due() {
                let due = due.max(self.now);
                self.agenda.at(due, Event::Wakeup { picker: at });
            }
        }
    }

    /// Acts on the next verdict of a picker; false = there is none.
    fn act(&mut self, at: usize) -> bool {
        let picker = &mut self.pickers[at];
        let Some((ticket, verdict)) = picker.director.poll() else {
            return false;
        };
        let Some(index) = picker.waiting.remove(&ticket) else {
            return true;
        };
        match verdict {
            Verdict::Dispatched(dispatch) => {
                self.serve(index, at, &dispatch.endpoint, dispatch.in_flight);
            }
            Verdict::Refused(refusal) => {
                let expired = matches!(
                    refusal.outcome,
                    Outcome::EvictedTtl | Outcome::EvictedNoEndpoints
                );
                let fate = if expired {
                    Fate::Expired
                } else {
                    Fate::Refused(refusal.reason)
                };
                self.close(index, fate);
            }
        }
        true
    }

    fn serve(
        &mut self,
        index: usize,
        picker: usize,
        endpoint: &Arc<Endpoint>,
        in_flight: InFlight,
    ) {
        if let Some(learner) = &mut self.pickers[picker].learner {
            learner.note_dispatch(self.now);
        }
        let replica = self
            .replicas
            .iter()
            .position(|replica| Arc::ptr_eq(&replica.endpoints[picker], endpoint));
        let Some(replica) = replica else {
            return self.close(index, Fate::Refused("unknown-replica"));
        };
        let offer = &self.offers[index];
        let submission = Submission {
            id: index as u64,
            prompt_tokens: offer.input_tokens,
            prefix: Prefix {
                ids: offer.full_blocks().into(),
                tokens_per_id: offer.block_tokens,
            },
            output_tokens: offer.output_tokens,
        };
        if self.replicas[replica]
            .engine
            .submit(self.now, submission)
            .is_err()
        {
            drop(in_flight);
            self.close(index, Fate::Refused("too-long"));
            return;
        }
        let live = Live {
            in_flight,
            replica,
            picker,
            first_label: None,
            tokens: 0,
            cached_tokens: 0,
            first_token: None,
        };
        self.live.insert(index as u64, live);
        self.replicas[replica].serves(self.now, 1, self.spec.limit());
        self.step(replica);
    }

    fn close(&mut self, index: usize, fate: Fate) {
        let offer = &self.offers[index];
        self.tally.record(
            offer.kind,
            offer.input_tokens,
            offer.output_tokens,
            fate,
            self.spec.slo,
        );
        self.open -= 1;
        self.under_way -= 1;
        if let Some(next) = self.held.pop_front() {
            self.send(next);
        }
    }

    // --- a replica ---

    fn step(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        if replica.step_due.is_some_and(|due| due <= self.now) {
            replica.step_due = None;
        }
        let mut events = std::mem::take(&mut self.engine_events);
        replica.engine.advance(self.now, &mut events);
        if replica.step_due.is_none()
            && let Some(due) = replica.engine.next_event()
        {
            replica.step_due = Some(due);
            self.agenda.at(due, Event::Step { replica: index });
        }
        let mut finished = false;
        for event in events.drain(..) {
            finished |= self.engine_event(&event);
        }
        self.engine_events = events;
        if finished {
            for picker in &mut self.pickers {
                picker.director.advance(self.now);
            }
            self.end_drains();
            self.settle();
        }
    }

    /// Whether the event freed room.
    fn engine_event(&mut self, event: &EngineEvent) -> bool {
        let Some(live) = self.live.get_mut(&event.id) else {
            return false;
        };
        match event.kind {
            EventKind::Scheduled { cached_tokens } => {
                live.cached_tokens = live.cached_tokens.max(cached_tokens)
            }
            EventKind::FirstToken => {
                live.tokens = 1;
                live.first_token = Some(event.at);
                let ttft = event.at.saturating_sub(self.sent[event.id as usize]);
                self.recent_ttft_ms.push(ttft.as_secs_f64() * 1e3);
                live.first_label = live.in_flight.first_token(event.at);
            }
            EventKind::Token => {
                live.tokens += 1;
                live.in_flight.emitted(live.tokens);
            }
            EventKind::Preempted => {}
            EventKind::Finished { .. } => {
                self.finish(event.id, event.at);
                return true;
            }
        }
        false
    }

    fn finish(&mut self, id: u64, at: Duration) {
        let Some(live) = self.live.remove(&id) else {
            return;
        };
        let offer = &self.offers[id as usize];
        let completion = live.in_flight.finish(
            at,
            End::Complete {
                status: 200,
                streaming: true,
                prompt_tokens: Some(offer.input_tokens),
                cached_tokens: Some(live.cached_tokens),
                output_tokens: Some(offer.output_tokens),
            },
        );
        let first_token = live.first_token.unwrap_or(at);
        let fate = Fate::Served {
            ttft: first_token.saturating_sub(self.sent[id as usize]),
            decode: at.saturating_sub(first_token),
            cached_tokens: live.cached_tokens,
        };
        self.replicas[live.replica].serves(self.now, -1, self.spec.limit());
        let labels = live.first_label.into_iter().chain(completion.observations);
        self.learn(live.picker, labels);
        self.close(id as usize, fate);
    }

    /// Gives the pickers the replicas that are ready.
    pub(super) fn relist(&mut self) {
        let (now, replicas) = (self.now, &self.replicas);
        for (at, picker) in self.pickers.iter_mut().enumerate() {
            let ready = replicas
                .iter()
                .filter(|replica| replica.phase == Phase::Ready);
            let endpoints = ready.map(|replica| Arc::clone(&replica.endpoints[at]));
            picker.set_pool(now, endpoints.collect());
        }
    }

    fn scrape(&mut self) {
        for replica in self
            .replicas
            .iter()
            .filter(|replica| replica.phase == Phase::Ready)
        {
            replica.scrape(self.now, self.spec.profile.block_tokens);
        }
        self.agenda
            .at(self.now + self.spec.scrape_interval, Event::Scrape);
    }

    // --- the pickers ---

    fn wake(&mut self, picker: usize) {
        self.pickers[picker].wake(self.now);
        self.settle();
    }

    fn learn(&mut self, picker: usize, labels: impl IntoIterator<Item = Observation>) {
        if let Some(in_force) = self.pickers[picker].learn(self.now, labels) {
            self.agenda.at(in_force, Event::Install { picker });
        }
    }

    fn exchange(&mut self) {
        let Some(exchanging) = &self.spec.pickers.exchange else {
            return;
        };
        let now = self.now;
        let pickers = self.pickers.iter_mut();
        let mut directors: Vec<&mut Director> = pickers.map(|it| &mut it.director).collect();
        let reachable = |from, to| exchanging.reachable(now, from, to);
        exchanging.with.exchange(now, &mut directors, &reachable);
        self.agenda.at(now + exchanging.every, Event::Exchange);
        self.settle();
    }

    // --- the record ---

    fn sample(&mut self) {
        self.agenda
            .at(self.now + self.spec.sample_interval, Event::Sample);
        let ttft = Percentiles::of(std::mem::take(&mut self.recent_ttft_ms));
        let known = |value: f64| value.is_finite().then_some(value);
        self.timeline.push(Sample {
            at: self.now.as_secs_f64(),
            offered: (self.arrived - self.sampled_offers) as f64
                / self.spec.sample_interval.as_secs_f64(),
            ready: self.count(Phase::Ready),
            in_transition: self.count(Phase::Starting) + self.count(Phase::Draining),
            queued: self
                .pickers
                .iter()
                .map(|picker| picker.waiting.len() as u64)
                .sum(),
            in_flight: self.live.len() as u64,
            ttft_p50: known(ttft.p50),
            ttft_p90: known(ttft.p90),
        });
        self.sampled_offers = self.arrived;
    }

    fn report(self) -> FleetReport {
        let hit_share =
            self.tally.cached_tokens as f64 / (self.tally.prompt_tokens as f64).max(1.0);
        let learner = self.pickers.into_iter().find_map(|picker| picker.learner);
        let output_tokens = self.tally.output_tokens;
        let (all, kinds) = self.tally.scores();
        FleetReport {
            all,
            kinds,
            output_tokens,
            crowding: Crowding::of(self.replicas.iter().map(|replica| &replica.crowd)),
            policy: self.spec.name.clone(),
            makespan: self.now,
            replica_seconds: self
                .replicas
                .iter()
                .map(|replica| replica.seconds(self.now))
                .sum(),
            hit_share,
            decisions: self.decisions,
            timeline: self.timeline,
            predictor: learner.map(|learner| learner.report(self.now)),
        }
    }
}

/// llm-d's estimate, used where only token counts are known.
const BYTES_PER_TOKEN: u64 = 4;
