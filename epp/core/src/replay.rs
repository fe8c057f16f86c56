//! Recorded decisions run again under another configuration: what it would change.
//!
//! Pure: records in, a report out. Every pick is weighed by itself, on the readings and predictions of its record: what
//! another pick would have changed for the requests after it is not in a record, and not in the report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::config::Config;
use crate::pool::{EndpointSpec, Pool};
use crate::record::{CandidateRecord, Line, PickRecord, Picked, PoolRecord};
use crate::request::Request;
use crate::router::{Again, Router};

/// Version of [`Report`].
pub const REPORT_SCHEMA: u32 = 1;
/// Pools remembered at once; a file names one again before it refers to it.
const MOST_POOLS: usize = 64;
/// Endpoints in a report at most: those whose share changes most.
const MOST_ENDPOINTS: usize = 100;
/// Blocks of a prompt at most, whatever a record says.
const MOST_BLOCKS: u32 = 1 << 16;

/// A replay under way.
#[derive(Debug)]
pub struct Replay {
    /// The same configuration twice, so that what chance does can be told from what the configuration does.
    routers: [Router; 2],
    pools: FxHashMap<u64, Arc<Pool>>,
    /// Number of the pool in force.
    current: Option<u64>,
    prefix: Arc<[u64]>,
    report: Report,
    shares: BTreeMap<Arc<str>, [u64; 2]>,
    predicted: [Change; 2],
    reads_headers: bool,
    predicts: bool,
}

/// What another configuration would change.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`REPORT_SCHEMA`].
    pub schema: u32,
    /// Picks that were weighed again.
    pub picks: u64,
    /// Of those, sent to the same endpoint.
    pub same: u64,
    /// Sent to another.
    pub moved: u64,
    /// Sent to different endpoints by two runs of the new configuration that differ in nothing but chance.
    pub moved_by_chance: u64,
    /// Refused now: no endpoint is for them, or an admitter bars them.
    pub barred: u64,
    /// Refused now: their SLO cannot be met.
    pub hopeless: u64,
    /// Not sent at once: every endpoint that they may go to is full.
    pub no_room: u64,
    /// Refused when they were recorded.
    pub refused_before: u64,
    /// Predicted times to first token, over the picks that are sent both times and have predictions both times.
    pub predicted_ttft: Option<Shift>,
    /// Predicted times per output token, likewise.
    pub predicted_tpot: Option<Shift>,
    /// Picks by endpoint, those first whose share changes most.
    pub endpoints: Vec<EndpointShift>,
    /// Picks whose pool is not in the file.
    pub unusable: u64,
    /// What these records cannot tell.
    pub cannot_tell: Vec<String>,
}

/// A latency before and after, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shift {
    /// Picks compared.
    pub picks: u64,
    /// Mean of the predicted medians, as recorded.
    pub before_ms: f64,
    /// The same of the endpoints that would be picked.
    pub after_ms: f64,
    /// Picks that get slower.
    pub slower: u64,
    /// Picks that get faster.
    pub faster: u64,
}

/// An endpoint's picks before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointShift {
    /// Its name.
    pub name: Arc<str>,
    /// Picks as recorded.
    pub before: u64,
    /// Picks under the new configuration.
    pub after: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Change {
    picks: u64,
    before_ms: f64,
    after_ms: f64,
    slower: u64,
    faster: u64,
}

impl Change {
    fn add(&mut self, before: f32, after: f32) {
        self.picks += 1;
        self.before_ms += f64::from(before);
        self.after_ms += f64::from(after);
        self.slower += u64::from(after > before);
        self.faster += u64::from(after < before);
    }

    fn shift(self) -> Option<Shift> {
        let mean = |sum: f64| sum / self.picks as f64;
        (self.picks > 0).then(|| Shift {
            picks: self.picks,
            before_ms: mean(self.before_ms),
            after_ms: mean(self.after_ms),
            slower: self.slower,
            faster: self.faster,
        })
    }
}

impl Replay {
    /// A replay under `config`; `seed` decides all ties.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            reads_headers: !config.headers_in_use().is_empty(),
            predicts: config.predicted_latency.is_some(),
            routers: [
                Router::new(config.clone(), seed),
                Router::new(config, seed.wrapping_add(1)),
            ],
            pools: FxHashMap::default(),
            current: None,
            prefix: vec![0; MOST_BLOCKS as usize].into(),
            report: Report {
                schema: REPORT_SCHEMA,
                ..Report::default()
            },
            shares: BTreeMap::new(),
            predicted: Default::default(),
        }
    }

    /// Takes the next line of a file of records.
    pub fn line(&mut self, line: &Line) {
        match line {
            Line::Pool(record) => self.pool(record),
            Line::Pick(record) => match &record.picked {
                Some(picked) => self.pick(record, picked),
                None => self.report.refused_before += 1,
            },
        }
    }

    fn pool(&mut self, record: &PoolRecord) {
        if self.pools.len() >= MOST_POOLS {
            self.pools.clear();
        }
        let specs = record.endpoints.iter().map(|endpoint| EndpointSpec {
            name: endpoint.name.to_string(),
            address: endpoint.address.to_string(),
            labels: endpoint.labels.clone(),
        });
        let pool = Pool::default().updated(specs.collect());
        self.pools.insert(record.pool, Arc::new(pool));
        self.current = None;
    }

    fn pick(&mut self, record: &PickRecord, picked: &Picked) {
        let pool = self.pools.get(&picked.pool).map(Arc::clone);
        let inside = |pool: &Arc<Pool>| {
            let slots = picked.candidates.iter().map(|candidate| candidate.slot);
            let mut slots = slots.chain(std::iter::once(picked.slot));
            slots.all(|slot| (slot as usize) < pool.endpoints.len())
        };
        let Some(pool) = pool.filter(inside) else {
            self.report.unusable += 1;
            return;
        };
        tell(&pool, &picked.candidates);
        if self.current != Some(picked.pool) {
            self.current = Some(picked.pool);
            for router in &mut self.routers {
                router.set_pool(Arc::clone(&pool));
            }
        }
        let now = Duration::from_millis(record.at_ms);
        let waited = Duration::try_from_secs_f64(record.waited_ms / 1e3).unwrap_or_default();
        let request = self.request(record);
        // Health is made of what happened before, which a single record does not have: who was out stays out.
        let there = |candidate: &&CandidateRecord| candidate.standing.as_deref() != Some("ejected");
        let ttft_state = picked.model.map(|model| model.ttft);
        let mut again = |run: usize| {
            let candidates = picked.candidates.iter().filter(there);
            let candidates = candidates.map(|candidate| candidate.candidate(now));
            self.routers[run].again(now, &request, waited, ttft_state, candidates)
        };
        let (verdict, other) = (again(0), again(1));
        self.count(picked, &pool, verdict, other);
    }

    fn request(&self, record: &PickRecord) -> Request {
        let asked = &record.request;
        let blocks = asked.blocks.min(MOST_BLOCKS) as usize;
        Request {
            id: record.id.clone(),
            model: asked.model.clone(),
            target_model: asked.target_model.clone(),
            prompt_tokens: asked.prompt_tokens,
            // Which blocks they are shows in what the candidates have seen of them.
            prefix: if blocks == self.prefix.len() {
                Arc::clone(&self.prefix)
            } else {
                self.prefix[..blocks].into()
            },
            prefix_block_tokens: asked.block_tokens,
            slo: asked.slo,
            priority: asked.priority,
            shed: asked.sheddable,
            flow: Arc::clone(&asked.flow),
            max_output_tokens: asked.max_output_tokens,
            bytes: asked.bytes,
            session: asked.session.as_deref().map(Arc::from),
            recorded: false,
            ..Request::default()
        }
    }

    fn count(&mut self, picked: &Picked, pool: &Pool, verdict: Again, other: Again) {
        let report = &mut self.report;
        report.picks += 1;
        if let (Again::Picked(one), Again::Picked(another)) = (verdict, other) {
            report.moved_by_chance += u64::from(one != another);
        }
        let name = |slot: u32| {
            pool.endpoints
                .get(slot as usize)
                .map(|one| Arc::clone(&one.name))
        };
        let mut share = |slot: u32, at: usize| {
            if let Some(name) = name(slot) {
                self.shares.entry(name).or_default()[at] += 1;
            }
        };
        share(picked.slot, 0);
        let slot = match verdict {
            Again::Barred(_) => return report.barred += 1,
            Again::Hopeless => return report.hopeless += 1,
            Again::NoRoom => return report.no_room += 1,
            Again::Picked(slot) => slot,
        };
        share(slot, 1);
        if slot == picked.slot {
            report.same += 1;
        } else {
            report.moved += 1;
        }
        let predicted = |slot: u32| {
            let mut candidates = picked.candidates.iter();
            candidates.find(|one| one.slot == slot)?.prediction
        };
        if let (Some(before), Some(after)) = (predicted(picked.slot), predicted(slot)) {
            self.predicted[0].add(before.ttft_ms[0], after.ttft_ms[0]);
            self.predicted[1].add(before.tpot_ms[0], after.tpot_ms[0]);
        }
    }

    /// What would change.
    pub fn report(mut self) -> Report {
        let [ttft, tpot] = self.predicted;
        let report = &mut self.report;
        (report.predicted_ttft, report.predicted_tpot) = (ttft.shift(), tpot.shift());
        let shift = |(name, [before, after]): (Arc<str>, [u64; 2])| EndpointShift {
            name,
            before,
            after,
        };
        let mut endpoints: Vec<_> = self.shares.into_iter().map(shift).collect();
        // Stable: endpoints that change alike stay in the order of their names.
        endpoints.sort_by_key(|one| std::cmp::Reverse(one.before.abs_diff(one.after)));
        endpoints.truncate(MOST_ENDPOINTS);
        report.endpoints = endpoints;
        let mut notes = vec![
            "what another pick would have changed for the requests after it: each is weighed on its own readings".to_owned(),
        ];
        if report.refused_before > 0 {
            notes.push(format!(
                "whether the {} requests that were refused would be let in: nothing of the endpoints is recorded for them",
                report.refused_before
            ));
        }
        let sent = report.same + report.moved;
        if self.predicts && ttft.picks < sent {
            notes.push(format!(
                "latencies of {} picks: nothing predicted them when they were recorded, or a filter had taken the endpoint away",
                sent - ttft.picks
            ));
        }
        if self.reads_headers {
            notes.push(
                "what the configuration reads in headers: their values are not recorded".to_owned(),
            );
        }
        notes.push(
            "what filters and scorers remember of requests that were not recorded".to_owned(),
        );
        report.cannot_tell = notes;
        self.report
    }
}

/// Gives the endpoints what the record says was told of them beside their load.
fn tell(pool: &Pool, candidates: &[CandidateRecord]) {
    for candidate in candidates {
        let Some(endpoint) = pool.endpoints.get(candidate.slot as usize) else {
            continue;
        };
        if let Some(lora) = &candidate.lora {
            endpoint.set_lora(Arc::new(lora.into()));
        }
        if !candidate.attributes.is_empty() {
            endpoint.set_attributes(Arc::new(candidate.attributes.clone()));
        }
    }
}
