//! Hot path: from candidates to a reserved place on one of them.

use std::sync::Arc;
use std::time::Duration;

use predictor::{State, Target};

use super::Router;
use super::predict::row;
use crate::config::InflightLoadProducer;
use crate::decision::{Decision, ModelState, Record, RequestFacts};
use crate::demand::DemandLedger;
use crate::director::Dispatch;
use crate::flow::Waiting;
use crate::in_flight::{Booking, InFlight};
use crate::request::Request;
use crate::schedule::{Candidate, Stage};

impl Router {
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
        let ask = self.ask(now, &waiting, waited);
        self.keep(Stage::Preference, &ask);
        let request = &waiting.request;
        let removed = request.recorded.then(|| self.removed(request));
        let picked = self.profile.pick(&ask, &self.candidates, &mut self.rng);
        let endpoint = |&index: &usize| {
            let slot = self.candidates.get(index)?.slot;
            Some((index, self.pool.endpoints.get(slot as usize)?))
        };
        let mut order = picked.order.iter().filter_map(endpoint);
        let Some((first, endpoint)) = order.next() else {
            return Err(waiting);
        };
        let endpoint = Arc::clone(endpoint);
        let fallbacks = order.map(|(_, endpoint)| Arc::clone(endpoint)).collect();
        let mut record = removed.map(|removed| {
            Box::new(Record {
                request: RequestFacts::of(&waiting.request),
                removed,
                picked: first,
                pool: Arc::clone(&self.pool),
                scorers: Arc::clone(picked.scorers),
                candidates: self.candidates.clone(),
                totals: picked.totals.to_vec(),
                scores: picked.scores.to_vec(),
                laps: Vec::new(),
            })
        });
        if let Some(record) = &mut record {
            record.laps = self.profile.trail.laps.take();
        }
        self.profile.dispatched(&ask, &self.candidates, first);
        let chosen = self.candidates[first];
        let trusted = chosen.prediction.is_some()
            && chosen.trust.ttft
            && chosen.trust.tpot
            && !chosen.load.cold();
        let decision = Decision {
            at: now,
            waited,
            cached_tokens: chosen.cached_tokens,
            prediction: chosen.prediction,
            trusted,
            expected_miss,
            state: self.model_state(chosen.slot),
            record,
        };
        if expected_miss {
            waiting.counters.expected_miss();
        }
        let slot = chosen.slot as usize;
        let booking = self.booking(now, &waiting, &chosen, trusted);
        if let Some(prefixes) = &mut self.prefixes {
            let request = &waiting.request;
            prefixes.learn(
                chosen.slot as usize,
                &endpoint,
                &request.prefix,
                request.prefix_block_tokens,
            );
            if let Some(sent) = &mut self.sent {
                sent.note(chosen.slot, request, chosen.matched_blocks);
            }
        }
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

    /// State of the model of the endpoint in `slot`, if anything reads predictions.
    fn model_state(&self, slot: u32) -> Option<ModelState> {
        self.config.predicted_latency.as_ref()?;
        let model = self.model_of(slot);
        let state = |target| -> State { model.state(target) };
        Some(ModelState {
            ttft: state(Target::Ttft),
            tpot: state(Target::Tpot),
        })
    }

    fn booking(
        &self,
        now: Duration,
        waiting: &Waiting,
        chosen: &Candidate,
        trusted: bool,
    ) -> Booking {
        let request = &waiting.request;
        let learns = self.config.predicted_latency.is_some();
        Booking {
            band: Arc::clone(&waiting.counters),
            dispatched_at: now,
            waited: now.saturating_sub(waiting.arrived),
            prompt_tokens: request.prompt_tokens,
            cached_tokens: chosen.cached_tokens,
            estimated_tokens: estimated_tokens(&self.config.inflight_load, request),
            streams: request.streams,
            priority: request.priority,
            slo: request.slo,
            features: learns.then(|| row(chosen, request.prompt_tokens)),
            prediction: chosen.prediction,
            trusted,
            watch: self.watch.clone(),
            account: Arc::clone(&waiting.account),
            charge: waiting.charge,
            limit: self.meter.rule(),
        }
    }
}

/// Output tokens that count as in flight: prompt × ratio, at most the configured and the client's own limit.
fn estimated_tokens(parameters: &InflightLoadProducer, request: &Request) -> u32 {
    if !parameters.add_estimated_output_tokens {
        return 0;
    }
    let estimate = (f64::from(request.prompt_tokens) * parameters.output_ratio) as u32;
    let limits = [
        parameters.max_estimated_output_tokens,
        request.max_output_tokens,
    ];
    limits
        .into_iter()
        .flatten()
        .fold(estimate, |estimate, limit| estimate.min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_output_is_bounded_by_both_limits() {
        let mut parameters = InflightLoadProducer::default();
        let mut request = Request {
            prompt_tokens: 1_000,
            ..Request::default()
        };
        assert_eq!(estimated_tokens(&parameters, &request), 0, "not asked for");
        parameters.add_estimated_output_tokens = true;
        assert_eq!(estimated_tokens(&parameters, &request), 1_500);
        parameters.max_estimated_output_tokens = Some(700);
        assert_eq!(estimated_tokens(&parameters, &request), 700);
        request.max_output_tokens = Some(64);
        assert_eq!(estimated_tokens(&parameters, &request), 64);
    }
}
