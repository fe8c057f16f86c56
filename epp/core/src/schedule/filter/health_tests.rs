//! Ejection as requests feel it.

use proptest::prelude::*;
use rand::SeedableRng;

use super::*;
use crate::config::HealthRules;
use crate::endpoint::Endpoint;
use crate::health::Fate;
use crate::request::Request;
use crate::schedule::{ask, candidate, labelled};

struct Bench {
    filter: HealthFilter,
    watch: Arc<Watch>,
    pool: Arc<Pool>,
}

fn bench(endpoints: usize) -> Bench {
    let watch = Arc::new(Watch::new(HealthRules::default()));
    let mut filter = HealthFilter::new(Arc::clone(&watch));
    let pool = labelled(&vec![&[][..]; endpoints]);
    filter.pool_changed(&pool);
    Bench {
        filter,
        watch,
        pool,
    }
}

impl Bench {
    fn endpoint(&self, slot: usize) -> &Endpoint {
        &self.pool.endpoints[slot]
    }

    /// One request there, answered with `status`.
    fn answer(&self, slot: usize, now: Duration, status: u16) {
        let health = &self.endpoint(slot).load.health;
        let mut visit = self.watch.dispatched(health, now);
        let fate = Fate::Answered(status);
        self.watch.ended(health, now, &mut visit, fate, None);
    }

    fn fail(&self, slot: usize, now: Duration) {
        for _ in 0..3 {
            self.answer(slot, now, 503);
        }
    }

    fn left(&mut self, now: Duration, in_flight: &[u32]) -> Vec<u32> {
        let mut candidates: Vec<_> = (0..self.pool.endpoints.len() as u32)
            .map(candidate)
            .collect();
        for (candidate, &in_flight) in candidates.iter_mut().zip(in_flight) {
            candidate.load.in_flight = in_flight;
        }
        self.retain(now, candidates)
    }

    fn retain(&mut self, now: Duration, mut candidates: Vec<Candidate>) -> Vec<u32> {
        let request = Request::default();
        let rng = &mut StdRng::seed_from_u64(1);
        self.filter
            .retain(now, &ask(&request), &mut candidates, rng);
        candidates.iter().map(|candidate| candidate.slot).collect()
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn who_fails_is_left_alone_then_tried_then_let_back_in_by_and_by() {
    let mut bench = bench(3);
    bench.fail(1, seconds(1.0));
    assert_eq!(bench.left(seconds(1.0), &[]), [0, 2]);
    assert_eq!(bench.left(seconds(10.9), &[]), [0, 2]);
    assert_eq!(bench.left(seconds(11.0), &[]), [0, 1, 2], "half-open");
    let watch = Arc::clone(&bench.watch);
    let endpoint = Arc::clone(&bench.pool.endpoints[1]);
    let health = &endpoint.load.health;
    let mut trial = watch.dispatched(health, seconds(11.0));
    assert_eq!(
        bench.left(seconds(11.0), &[]),
        [0, 2],
        "one trial at a time"
    );
    watch.first_token(health, seconds(12.0), &mut trial, None);
    // Others hold ten: a tenth is one, a third of the way through four.
    assert_eq!(bench.left(seconds(12.0), &[10, 0, 10]), [0, 1, 2]);
    assert_eq!(bench.left(seconds(12.0), &[10, 1, 10]), [0, 2]);
    assert_eq!(bench.left(seconds(22.0), &[10, 3, 10]), [0, 1, 2]);
    assert_eq!(bench.left(seconds(22.0), &[10, 4, 10]), [0, 2]);
    assert_eq!(bench.left(seconds(42.0), &[10, 99, 10]), [0, 1, 2]);
}

#[test]
fn at_most_half_is_left_out_and_a_request_gets_through_to_the_only_one() {
    let mut bench = bench(5);
    for slot in 0..4 {
        bench.fail(slot, seconds(slot as f64));
    }
    assert_eq!(
        bench.left(seconds(5.0), &[]),
        [0, 1, 4],
        "those whose ejection ends soonest are back in"
    );
    assert_eq!(bench.retain(seconds(5.0), vec![candidate(3)]), [3]);
    let mut alone = self::bench(1);
    alone.fail(0, seconds(1.0));
    assert_eq!(alone.left(seconds(1.0), &[]), [0]);
}

#[test]
fn standing_survives_a_pool_update() {
    let mut bench = bench(3);
    bench.fail(2, seconds(1.0));
    let moved = Pool {
        endpoints: bench.pool.endpoints.iter().rev().cloned().collect(),
    };
    bench.pool = Arc::new(moved);
    bench.filter.pool_changed(&bench.pool);
    assert_eq!(bench.left(seconds(2.0), &[]), [1, 2]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Answer(usize, u16),
    Cut(usize),
    Slow(usize),
    Leave(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..6_usize;
    prop_oneof![
        4 => (slot.clone(), prop::sample::select(vec![200, 404, 500, 502, 503])).prop_map(|(slot, status)| Step::Answer(slot, status)),
        1 => slot.clone().prop_map(Step::Cut),
        1 => slot.clone().prop_map(Step::Slow),
        1 => slot.prop_map(Step::Leave),
        2 => (0..20_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_half_of_the_pool_stays_and_trials_come_singly(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut bench = bench(6);
        let watch = Arc::clone(&bench.watch);
        let mut now = seconds(1.0);
        for step in steps {
            if let Step::Wait(ms) = step {
                now += Duration::from_millis(ms);
            }
            if let Step::Answer(slot, _) | Step::Cut(slot) | Step::Slow(slot) | Step::Leave(slot) = step {
                let endpoint = Arc::clone(&bench.pool.endpoints[slot]);
                let health = &endpoint.load.health;
                let before = health.standing(now, Duration::ZERO);
                let mut visit = watch.dispatched(health, now);
                if before == Standing::HalfOpen {
                    prop_assert_eq!(health.standing(now, Duration::ZERO), Standing::Probing);
                    let mut second = watch.dispatched(health, now);
                    watch.ended(health, now, &mut second, Fate::Answered(500), None);
                    prop_assert_eq!(health.standing(now, Duration::ZERO), Standing::Probing, "only the trial decides");
                }
                let fate = match step {
                    Step::Answer(_, status) => Fate::Answered(status),
                    Step::Cut(_) => Fate::Cut,
                    Step::Slow(_) => {
                        watch.first_token(health, now, &mut visit, Some(50.0));
                        Fate::Answered(200)
                    }
                    _ => Fate::Left(None),
                };
                watch.ended(health, now, &mut visit, fate, Some(20.0));
                prop_assert_ne!(health.standing(now, Duration::ZERO), Standing::Probing, "a trial that ended");
            }
            for endpoint in &bench.pool.endpoints {
                if let Standing::Ejected { until } = endpoint.load.health.standing(now, Duration::ZERO) {
                    prop_assert!(until <= now + watch.rules.max_ejection);
                }
            }
            let left = bench.left(now, &[]);
            prop_assert!(left.len() >= 3, "{left:?}");
        }
    }
}
