//! A latency model in closed form, for tests.

use predictor::{Features, Prediction, Quantiles, State};

use crate::latency::Latency;

/// An engine in closed form: TTFT = base + prefill·(own + waiting tokens) + 2·running, TPOT = base + slope·running +
/// kv·resident; every quantile spread by the same factor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Engine {
    pub(crate) base: f64,
    pub(crate) prefill: f64,
    pub(crate) slope: f64,
    pub(crate) kv: f64,
    pub(crate) spread: f64,
    pub(crate) seen_running: f64,
    pub(crate) state: State,
}

pub(crate) const ENGINE: Engine = Engine {
    base: 20.0,
    prefill: 0.1,
    slope: 0.5,
    kv: 1e-5,
    spread: 1.2,
    seen_running: 1e9,
    state: State::Trained,
};

impl Latency for Engine {
    fn predict(&self, rows: &[Features], out: &mut Vec<Prediction>) {
        let spread = |ms: f64| Quantiles {
            p50: ms as f32,
            p90: (ms * self.spread) as f32,
            p99: (ms * self.spread * self.spread) as f32,
        };
        out.clear();
        out.extend(rows.iter().map(|row| {
            let tokens = f64::from(row.uncached_tokens() + row.waiting_tokens);
            let running = f64::from(row.running);
            Prediction {
                ttft: spread(self.base + self.prefill * tokens + 2.0 * running),
                tpot: spread(
                    self.base + self.slope * running + self.kv * f64::from(row.resident_tokens),
                ),
            }
        }));
    }

    fn state(&self) -> State {
        self.state
    }

    fn extrapolates(&self, row: &Features) -> bool {
        f64::from(row.running) > self.seen_running
    }

    fn version(&self) -> u64 {
        1
    }
}
