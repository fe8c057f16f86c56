//! From a parsed request to a verdict: flow control, scheduling, prefix index, SLO admission.
//!
//! Sans-IO: every decision is a function of (state, input, `now`). There is no clock, socket, task or
//! Kubernetes client in this crate; a shell feeds it requests, scrapes, a pool and a latency model, and
//! carries out its verdicts. The same code therefore runs behind Envoy, on a virtual clock, and in
//! deterministic tests.
//!
//! One request, file by file: [`Request`] → [`Director::submit`] → queue ([`flow`]) → candidates and
//! predictions ([`schedule`]) → admission ([`admit`]) → filters, scorers, picker ([`schedule`]) →
//! reserved load ([`InFlight`]) → outcome ([`DemandLedger`]).

pub mod admit;
pub mod config;
pub mod decision;
pub mod demand;
pub mod director;
pub mod discovery_file;
pub mod endpoint;
pub mod expression;
pub mod flow;
pub mod health;
pub mod in_flight;
mod load;
pub mod objectives;
pub mod outcome;
pub mod peers;
pub mod pool;
pub mod prefix;
pub mod record;
pub mod replay;
pub mod report;
pub mod request;
mod router;
pub mod schedule;
mod scraped;
pub mod session;
pub mod slo;
pub mod stopwatch;
mod targets;

pub use config::Config;
pub use decision::{Decision, Explanation, Removal, RequestFacts};
pub use demand::{DemandLedger, DemandTotals, MixSample, Totals};
pub use director::{Advice, Director, Dispatch, Revocations, Ticket, Verdict};
pub use discovery_file::DiscoveryFile;
pub use endpoint::{Attributes, Endpoint, Load, LoadSnapshot, Lora, Scraped};
pub use flow::{
    BandDepth, CapacityUse, FlowDepth, FlowTotals, QueueDepth, QueueGauges, StageSaturation,
};
pub use health::{Fault, Health, HealthView, Standing};
pub use in_flight::{Completion, End, InFlight, Unlearned};
pub use objectives::{Objective, Objectives};
pub use outcome::{Outcome, Refusal};
pub use pool::{EndpointSpec, Pool};
pub use prefix::{ContentDigest, HashMark, PrefixHasher, PrefixHashing, content_digest};
pub use report::DemandReport;
pub use request::Request;
pub use slo::Slo;
pub use stopwatch::{Lap, Stopwatch, Work};
