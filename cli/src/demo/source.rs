//! What is replayed: a trace from a file, or one made from the seed; cut and scaled for each part.

use std::path::Path;
use std::time::Duration;

use controller_core::fleet::client::{KindMix, Offer, offers};
use simulator_core::trace::{MOONCAKE_BATCH, Trace};
use simulator_core::workload::{WorkloadSpec, generate};

use super::args::{LiveSettings, ReplaySettings};
use super::arrivals::poisson;
use super::outcome::TraceFacts;
use crate::story::Trouble;

/// A trace, whole and unscaled.
pub(crate) struct Source {
    trace: Trace,
    /// Its description.
    pub(crate) facts: TraceFacts,
}

/// The part of a trace that one part of the demo replays.
pub(crate) struct Part {
    /// Row `i` is what `offers[i]` asks.
    pub(crate) trace: Trace,
    /// When, who and how much, in order of arrival.
    pub(crate) offers: Vec<Offer>,
    /// Cached share of the prompt blocks that one infinite cache would reach.
    pub(crate) hit_bound: f64,
}

impl Source {
    /// Reads the file, or makes a trace from the seed.
    ///
    /// # Errors
    /// When the file is not a trace; the cause names the line, the field and what would be right.
    pub(crate) fn open(file: Option<&Path>, seed: u64) -> Result<Self, Trouble> {
        let trace = match file {
            None => generate(&WorkloadSpec::mooncake_conversation(), seed),
            Some(file) => Trace::read(file).map_err(|error| {
                Trouble::failed(format!("{} cannot be replayed", file.display()))
                    .because(error)
                    .advice("give --trace a Mooncake (JSON lines) or Azure (CSV) trace, or leave it out to have one generated")
            })?,
        };
        // The folder is this machine's affair: a report shows the same wherever the file lay.
        let name = match file {
            None => trace.name.clone(),
            Some(file) => file
                .file_name()
                .unwrap_or(file.as_os_str())
                .to_string_lossy()
                .into_owned(),
        };
        let facts = TraceFacts {
            name,
            stats: trace.stats(),
        };
        Ok(Self { trace, facts })
    }

    /// The live part: the first rows in the trace's order, shortened, at Poisson instants.
    ///
    /// # Errors
    /// When the trace has fewer rows than clients will ask for, or its lengths cannot be divided.
    pub(crate) fn live(
        &self,
        settings: &LiveSettings,
        kinds: KindMix,
        seed: u64,
    ) -> Result<Part, Trouble> {
        let arrivals = poisson(&settings.rates, seed);
        let rows = self.trace.requests.len();
        if rows < arrivals.len() {
            let what = format!(
                "the trace has {rows} requests, but --rates {} asks for {}",
                settings.rates,
                arrivals.len()
            );
            return Err(
                Trouble::failed(what).advice("give a longer trace, lower rates or shorter phases")
            );
        }
        let mut trace = self.trace.clone();
        trace.requests.truncate(arrivals.len());
        for (request, at) in trace.requests.iter_mut().zip(arrivals) {
            request.arrival = at;
        }
        let trace = trace.scaled_lengths(settings.shorten).map_err(|error| {
            Trouble::usage(format!(
                "--shorten {} does not fit the trace",
                settings.shorten
            ))
            .because(error)
        })?;
        Ok(Part::of(trace, kinds, seed))
    }

    /// The replay: the trace as recorded, its batches spread evenly.
    pub(crate) fn replay(&self, settings: &ReplaySettings, kinds: KindMix, seed: u64) -> Part {
        let mut trace = self.trace.clone().spread_batches(MOONCAKE_BATCH);
        if let Some(minutes) = settings.minutes {
            trace = trace.slice(Duration::from_secs(60) * minutes);
        }
        Part::of(trace, kinds, seed)
    }
}

impl Part {
    fn of(trace: Trace, kinds: KindMix, seed: u64) -> Self {
        Self {
            offers: offers(&trace, kinds, seed),
            hit_bound: trace.stats().prefix_hit_share,
            trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::rates::Rates;
    use controller_core::fleet::Slo;

    fn settings(rates: &str) -> LiveSettings {
        LiveSettings {
            profile: "p".into(),
            model: "m".into(),
            rates: rates.parse::<Rates>().unwrap(),
            shorten: std::num::NonZeroU32::new(8).unwrap(),
            min: 1,
            max: 2,
            startup: Duration::from_secs(1),
            scale_down_guard: Duration::from_secs(1),
            concurrency: 16,
            slo: Slo {
                ttft_ms: 2000.0,
                tpot_ms: 150.0,
            },
        }
    }

    #[test]
    fn live_rows_are_the_traces_first_with_sharing_kept() {
        let source = Source::open(None, 5).unwrap();
        let part = source
            .live(&settings("8:25s"), KindMix::default(), 5)
            .unwrap();
        assert_eq!(part.trace.block_tokens, 64);
        let (whole, live) = (&source.trace.requests, &part.trace.requests);
        assert!(
            live.len() > 100
                && live
                    .iter()
                    .zip(whole)
                    .all(|(live, whole)| whole.blocks.starts_with(&live.blocks))
        );
        assert!(
            part.offers
                .iter()
                .zip(live)
                .all(|(offer, row)| offer.row == row.row && offer.at == row.arrival)
        );
    }

    #[test]
    fn equal_block_ids_are_equal_256_bytes_of_prompt() {
        let source = Source::open(None, 5).unwrap();
        let part = source
            .live(&settings("24:30s"), KindMix::default(), 5)
            .unwrap();
        let texts: Vec<String> = part
            .trace
            .requests
            .iter()
            .map(|row| part.trace.prompt_text(row))
            .collect();
        let mut of_id = std::collections::BTreeMap::new();
        for (row, text) in part.trace.requests.iter().zip(&texts) {
            assert_eq!(text.len(), row.input_tokens as usize * 4);
            for (id, block) in row.blocks.iter().zip(text.as_bytes().chunks_exact(256)) {
                assert_eq!(*of_id.entry(*id).or_insert(block), block, "block {id}");
            }
        }
        let distinct: std::collections::BTreeSet<_> = of_id.values().collect();
        assert_eq!(
            distinct.len(),
            of_id.len(),
            "different ids have different text"
        );
    }

    #[test]
    fn a_trace_that_is_too_short_says_so() {
        let source = Source::open(None, 5).unwrap();
        let error = source
            .live(&settings("1000:60s"), KindMix::default(), 5)
            .err()
            .unwrap();
        assert!(error.to_string().contains("12031 requests"), "{error}");
    }

    #[test]
    fn a_bad_trace_is_refused_by_name() {
        let error = Source::open(Some(Path::new("/nowhere/trace.jsonl")), 1)
            .err()
            .unwrap();
        let story = crate::story::tell(&error.into());
        assert!(
            story.contains("/nowhere/trace.jsonl cannot be replayed")
                && story.contains("what to do: give --trace"),
            "{story}"
        );
    }
}
