//! The live part.
mod client;
pub(crate) mod preflight;
mod progress;
mod proxy;
mod record;
mod sse;

use runtime::Shutdown;
use crate::story::Trouble;
use super::outcome::Live;
use super::LivePlan;

pub(crate) struct Stack;
impl Stack {
    pub(crate) async fn stop(self) {}
    pub(crate) fn examples(&self) -> String { String::new() }
}
pub(crate) async fn run(_plan: LivePlan, _seed: u64, _shutdown: &Shutdown) -> Result<(Live, Stack), Trouble> { Err(Trouble::failed("x")) }
