//! The shape of recent requests, reduced to a few strata that capacity is computed over.

use serde::{Deserialize, Serialize};

/// Most strata a mix is reduced to. Their number is the cost of a capacity computation; with these, what one step of it
/// asks of the latency model is one batch of its forests (27 of 32 rows), and the shares within an objective are two
/// (60 of 64).
pub const MAX_STRATA: usize = 12;

/// One request as the mix sees it, in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Whole prompt.
    pub input: f32,
    /// Of which were expected to be in the prefix cache.
    pub cached: f32,
    /// Output; `None` while unknown (then the mean of the others is taken).
    pub output: Option<f32>,
}

/// Requests of similar cost: means over a share of the mix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stratum {
    /// Share of the requests, 0 to 1.
    pub weight: f64,
    /// Mean prompt, tokens.
    pub input: f32,
    /// Mean cached part of it, tokens.
    pub cached: f32,
    /// Mean output, tokens.
    pub output: f32,
}

impl Stratum {
    /// Prompt tokens to compute, at least 1 (the last token is always computed).
    pub fn uncached(&self) -> f32 {
        (self.input - self.cached).max(1.0)
    }
}

/// What requests look like: strata of equal weight, ordered by uncached prompt tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    strata: Vec<Stratum>,
}

impl Mix {
    /// Reduces a sample to at most [`MAX_STRATA`] strata of requests with similar prefill work. Samples that are not
    /// finite are dropped; the order of the samples does not matter.
    pub fn from_samples(samples: impl IntoIterator<Item = Sample>) -> Self {
        let mut rows: Vec<Sample> = samples.into_iter().filter_map(sane).collect();
        if rows.is_empty() {
            return Self::default();
        }
        let known = rows.iter().filter_map(|row| row.output);
        let (sum, count) = known.fold((0.0_f64, 0_u32), |(sum, count), output| {
            (sum + f64::from(output), count + 1)
        });
        let typical = if count == 0 {
            1.0
        } else {
            (sum / f64::from(count)) as f32
        };
        rows.sort_by(|a, b| {
            let key = |row: &Sample| {
                (
                    row.input - row.cached,
                    row.input,
                    row.output.unwrap_or(typical),
                )
            };
            let (a, b) = (key(a), key(b));
            a.0.total_cmp(&b.0)
                .then(a.1.total_cmp(&b.1))
                .then(a.2.total_cmp(&b.2))
        });
        let groups = MAX_STRATA.min(rows.len());
        let strata = (0..groups)
            .map(|group| {
                let rows_of = &rows[group * rows.len() / groups..(group + 1) * rows.len() / groups];
                stratum(rows_of, typical, rows_of.len() as f64 / rows.len() as f64)
            })
            .collect();
        Self { strata }
    }

    /// The strata, cheapest prefill first.
    pub fn strata(&self) -> &[Stratum] {
        &self.strata
    }

    /// Whether nothing is known yet.
    pub fn is_empty(&self) -> bool {
        self.strata.is_empty()
    }

    /// The same prompts, each answered with its first token alone: what a prefill replica sees.
    pub fn prompts_only(&self) -> Self {
        self.each(|stratum| Stratum {
            output: 1.0,
            ..stratum
        })
    }

    /// The same answers to prompts whose KV cache is there already: what a decode replica sees.
    pub fn answers_only(&self) -> Self {
        self.each(|stratum| Stratum {
            cached: stratum.input,
            ..stratum
        })
    }

    fn each(&self, change: impl Fn(Stratum) -> Stratum) -> Self {
        Self {
            strata: self.strata.iter().copied().map(change).collect(),
        }
    }

    /// Weighted mean of `value` over the strata; 0 for an empty mix.
    pub fn mean(&self, value: impl Fn(&Stratum) -> f64) -> f64 {
        // A fold from +0.0: the empty sum of floats is -0.0.
        self.strata
            .iter()
            .fold(0.0, |sum, stratum| sum + stratum.weight * value(stratum))
    }

    /// Mean output tokens.
    pub fn mean_output(&self) -> f64 {
        self.mean(|stratum| f64::from(stratum.output))
    }

    /// Share of the prompt tokens that the prefix cache saves.
    pub fn hit_share(&self) -> f64 {
        let input = self.mean(|stratum| f64::from(stratum.input));
        if input > 0.0 {
            self.mean(|stratum| f64::from(stratum.cached)) / input
        } else {
            0.0
        }
    }
}

fn sane(sample: Sample) -> Option<Sample> {
    let finite = sample.input.is_finite()
        && sample.cached.is_finite()
        && sample.output.is_none_or(f32::is_finite);
    finite.then(|| {
        let input = sample.input.max(1.0);
        Sample {
            input,
            cached: sample.cached.clamp(0.0, input),
            output: sample.output.map(|output| output.max(1.0)),
        }
    })
}

fn stratum(rows: &[Sample], typical_output: f32, weight: f64) -> Stratum {
    let mean = |value: &dyn Fn(&Sample) -> f32| {
        (rows.iter().map(|row| f64::from(value(row))).sum::<f64>() / rows.len().max(1) as f64)
            as f32
    };
    Stratum {
        weight,
        input: mean(&|row| row.input),
        cached: mean(&|row| row.cached),
        output: mean(&|row| row.output.unwrap_or(typical_output)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(input: f32, cached: f32, output: Option<f32>) -> Sample {
        Sample {
            input,
            cached,
            output,
        }
    }

    #[test]
    fn strata_keep_the_means_and_order_by_prefill_work() {
        let rows: Vec<Sample> = (1..=100)
            .rev()
            .map(|n| sample(n as f32 * 10.0, n as f32 * 5.0, Some(20.0)))
            .collect();
        let mix = Mix::from_samples(rows);
        assert_eq!(mix.strata().len(), MAX_STRATA);
        assert!(
            (mix.strata()
                .iter()
                .map(|stratum| stratum.weight)
                .sum::<f64>()
                - 1.0)
                .abs()
                < 1e-9
        );
        assert!(
            mix.strata()
                .is_sorted_by(|a, b| a.uncached() <= b.uncached())
        );
        assert!((mix.mean(|stratum| f64::from(stratum.input)) - 505.0).abs() < 0.01);
        assert!((mix.hit_share() - 0.5).abs() < 1e-6);
        assert!((mix.mean_output() - 20.0).abs() < 1e-9);
    }

    #[test]
    fn an_unknown_output_takes_the_mean_of_the_known_ones() {
        let mix = Mix::from_samples([
            sample(10.0, 0.0, Some(100.0)),
            sample(10.0, 0.0, None),
            sample(10.0, 0.0, Some(50.0)),
        ]);
        assert!((mix.mean_output() - 75.0).abs() < 1e-4);
    }

    #[test]
    fn what_is_not_a_number_is_left_out() {
        let mix = Mix::from_samples([
            sample(f32::NAN, 0.0, None),
            sample(1.0, f32::INFINITY, None),
        ]);
        assert!(mix.is_empty());
        assert_eq!(mix.hit_share(), 0.0);
        let mix = Mix::from_samples([sample(8.0, 16.0, Some(0.0))]);
        assert_eq!(
            (
                mix.strata()[0].cached,
                mix.strata()[0].output,
                mix.strata()[0].uncached()
            ),
            (8.0, 1.0, 1.0)
        );
    }
}
