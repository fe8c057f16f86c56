//! One recorded request weighed again: with the readings and predictions of its record in the place of the pool's and
//! the models'.

use std::time::Duration;

use predictor::State;

use super::{Among, Offer, Router};
use crate::flow::Reading;
use crate::request::Request;
use crate::schedule::{Ask, Candidate, Stage};

/// What would become of a recorded request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Again {
    /// Refused: no endpoint is for it, or an admitter bars it.
    Barred(&'static str),
    /// It would wait, or without a queue be refused: those it may go to are full.
    NoRoom,
    /// Refused: its SLO cannot be met.
    Hopeless,
    /// Sent to the endpoint in that slot.
    Picked(u32),
}

impl Router {
    /// Weighs `request`, which has waited so long, among the candidates of its record.
    pub(crate) fn again(
        &mut self,
        now: Duration,
        request: &Request,
        waited: Duration,
        ttft_state: Option<State>,
        recorded: impl Iterator<Item = Candidate>,
    ) -> Again {
        let predicts = self.config.predicted_latency.is_some();
        let staleness = self.config.metrics_staleness;
        self.profile.trail.begin(false);
        self.candidates.clear();
        self.candidates.extend(recorded.map(|candidate| {
            Candidate {
                scraped: candidate
                    .scraped
                    .filter(|scraped| scraped.age(now) <= staleness),
                prediction: candidate.prediction.filter(|_| predicts),
                ..candidate
            }
        }));
        self.readings.clear();
        let unread = Reading {
            load: Default::default(),
            scraped: None,
        };
        self.readings.resize(self.pool.endpoints.len(), unread);
        for candidate in &self.candidates {
            if let Some(reading) = self.readings.get_mut(candidate.slot as usize) {
                *reading = Reading {
                    load: candidate.load,
                    scraped: candidate.scraped,
                };
            }
        }
        let among = if self.config.flow_control() {
            Among::WithRoom
        } else {
            Among::Now
        };
        let ask = Ask {
            request,
            now,
            waited_ms: waited.as_secs_f64() * 1e3,
            ttft_state: ttft_state.filter(|_| predicts),
        };
        self.keep(Stage::Constraint, &ask);
        if self.candidates.is_empty() {
            return Again::Barred("no endpoint passes the filters");
        }
        self.keep_room(now, among, self.config.usage_limit.highest());
        self.keep(Stage::Room, &ask);
        if self.candidates.is_empty() {
            return Again::NoRoom;
        }
        match self.weigh(&ask, among) {
            Offer::Hopeless { .. } if self.sheds(request.sheddable()) => return Again::Hopeless,
            Offer::NoRoom { .. } => return Again::NoRoom,
            _ => {}
        }
        if self.unlucky(now, request.priority) {
            return Again::Barred("an admitter draws against it");
        }
        self.keep(Stage::Preference, &ask);
        let picked = self.profile.pick(&ask, &self.candidates, &mut self.rng);
        let Some(first) = picked.order.first().copied() else {
            return Again::NoRoom;
        };
        self.profile.dispatched(&ask, &self.candidates, first);
        let slot = self.candidates.get(first).map(|candidate| candidate.slot);
        slot.map_or(Again::NoRoom, Again::Picked)
    }
}
