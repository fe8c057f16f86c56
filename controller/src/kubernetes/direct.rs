//! Mode direct: the decided counts are written to the scale subresource, and somebody else's edits are respected.
//!
//! The subresource is read first and written with the version that was read, only when the count differs. A count that
//! neither was there before nor came from us is somebody's edit: it is left alone for a while, and told of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use controller_core::model::ModelKey;
use futures::StreamExt as _;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec};
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use parking_lot::Mutex;
use runtime::{Clock, Shutdown, Tasks};
use tokio::sync::watch;

use super::kinds::{KindState, Kinds};
use super::models::{Finding, Source, Topic};
use super::status::Report;
use super::targets::TargetKey;
use crate::published::Mode;

/// Somebody else's count is left alone for this long.
pub const BACK_OFF: Duration = Duration::from_secs(600);
/// A target is written at most this often.
const EVERY: Duration = Duration::from_secs(2);
/// A read and a write that have not been answered by then are given up.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Targets at a time.
const CONCURRENCY: usize = 8;

/// What is remembered of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hand {
    /// The count that was written, or found to be right, last.
    held: Option<u32>,
    /// When something was written last.
    written: Option<Duration>,
    /// What a write asked for of which no answer came: it may have been carried out.
    attempted: Option<u32>,
    /// Somebody else's count, and until when it is left alone.
    edited: Option<(u32, Duration)>,
}

/// What to do about one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is right, or its time has not come.
    Nothing,
    /// Write this count.
    Write(u32),
}

impl Hand {
    /// Whether the subresource need be looked at, when a watch last showed `seen` and `wanted` is decided.
    pub fn looks(&mut self, now: Duration, seen: Option<u32>, wanted: u32) -> bool {
        if seen == Some(wanted) {
            (self.held, self.edited) = (Some(wanted), None);
            return false;
        }
        let waits = self
            .written
            .is_some_and(|at| now.saturating_sub(at) < EVERY);
        let left_alone = self
            .edited
            .is_some_and(|(count, until)| now < until && seen == Some(count));
        !waits && !left_alone
    }

    /// What to do, now that the subresource was read and asks for `found` replicas.
    pub fn step(&mut self, now: Duration, found: u32, wanted: u32) -> Step {
        if found == wanted {
            (self.held, self.edited) = (Some(wanted), None);
            return Step::Nothing;
        }
        if let Some((_, until)) = self.edited {
            if now < until {
                self.edited = Some((found, until));
                return Step::Nothing;
            }
            (self.edited, self.held) = (None, None);
        }
        let ours = self.held.is_none_or(|held| held == found) || self.attempted == Some(found);
        if !ours {
            self.edited = Some((found, now + BACK_OFF));
            return Step::Nothing;
        }
        Step::Write(wanted)
    }

    /// The count is about to be written: whether it was may never be told.
    pub fn writes(&mut self, count: u32) {
        self.attempted = Some(count);
    }

    /// The count was written.
    pub fn wrote(&mut self, now: Duration, count: u32) {
        (self.held, self.written, self.attempted) = (Some(count), Some(now), None);
    }

    /// Somebody else's count that is left alone, and for how long yet.
    pub fn edited(&self, now: Duration) -> Option<(u32, Duration)> {
        let (count, until) = self.edited?;
        (now < until).then(|| (count, until - now))
    }
}

/// One count to carry out.
#[derive(Clone, Debug, PartialEq)]
struct Order {
    model: ModelKey,
    variant: String,
    source: Source,
    target: TargetKey,
    /// What a watch shows.
    seen: Option<u32>,
    wanted: u32,
}

/// Carries decisions out in the background.
#[derive(Clone, Debug)]
pub struct Direct {
    orders: watch::Sender<Arc<Vec<Order>>>,
    edits: Arc<Mutex<BTreeMap<ModelKey, Vec<Finding>>>>,
}

impl Direct {
    /// Starts as one of `tasks`, until `shutdown` begins to drain: a process that ends resizes nothing.
    pub fn start(
        client: Client,
        kinds: Kinds,
        clock: Clock,
        shutdown: Shutdown,
        tasks: &Tasks,
    ) -> Self {
        let direct = Self {
            orders: watch::Sender::new(Arc::default()),
            edits: Arc::default(),
        };
        let hands = Hands {
            client,
            kinds,
            clock,
            hands: BTreeMap::new(),
            edits: Arc::clone(&direct.edits),
        };
        let orders = direct.orders.subscribe();
        tasks.spawn(async move {
            tokio::select! {
                () = hands.run(orders) => {}
                () = shutdown.draining() => {}
            }
        });
        direct
    }

    /// Takes the newest decisions. Those of models in another mode, those that do not rest on fresh data, and those of
    /// a target that another variant has, are left out. An empty list ends all writing: a process that no longer leads
    /// hands one over.
    pub fn carry_out(&self, reports: &[Report]) {
        self.orders.send_replace(Arc::new(orders(reports)));
    }

    /// Edits of others that are respected just now.
    pub fn findings(&self, model: &ModelKey) -> Vec<Finding> {
        self.edits.lock().get(model).cloned().unwrap_or_default()
    }
}

fn orders(reports: &[Report]) -> Vec<Order> {
    let mut orders = Vec::new();
    let direct = reports
        .iter()
        .filter(|report| report.spec.mode == Mode::Direct);
    for report in direct {
        let Some(decision) = &report.decision else {
            continue;
        };
        if !decision.evidence.is_fresh() {
            continue;
        }
        for (place, view) in report.spec.variants.iter().zip(&report.views) {
            let Some(variant) = decision.variant(&place.name) else {
                continue;
            };
            if !place.contested {
                orders.push(Order {
                    model: report.spec.key.clone(),
                    variant: place.name.clone(),
                    source: place.source.clone(),
                    target: TargetKey::new(&report.spec.key.namespace, &place.target),
                    seen: view.asked,
                    wanted: variant.replicas,
                });
            }
        }
    }
    orders
}

struct Hands {
    client: Client,
    kinds: Kinds,
    clock: Clock,
    hands: BTreeMap<TargetKey, Hand>,
    edits: Arc<Mutex<BTreeMap<ModelKey, Vec<Finding>>>>,
}

impl Hands {
    async fn run(mut self, mut orders: watch::Receiver<Arc<Vec<Order>>>) {
        while orders.changed().await.is_ok() {
            orders.mark_unchanged();
            self.carry_out(&orders).await;
        }
    }

    async fn carry_out(&mut self, newest: &watch::Receiver<Arc<Vec<Order>>>) {
        let orders = Arc::clone(&newest.borrow());
        let mut before = std::mem::take(&mut self.hands);
        let now = self.clock.now();
        let api = Scales {
            client: &self.client,
            kinds: &self.kinds,
            newest,
        };
        let each = orders.iter().map(|order| {
            let mut hand = before.remove(&order.target).unwrap_or_default();
            async move {
                api.handle(now, order, &mut hand).await;
                (order, hand)
            }
        });
        let each: Vec<_> = each.collect();
        let handled: Vec<(&Order, Hand)> = futures::stream::iter(each)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut edits: BTreeMap<ModelKey, Vec<Finding>> = BTreeMap::new();
        for (order, hand) in handled {
            if let Some(edited) = hand.edited(now) {
                let told = edit(order, edited);
                edits.entry(order.model.clone()).or_default().push(told);
            }
            self.hands.insert(order.target.clone(), hand);
        }
        *self.edits.lock() = edits;
    }
}

/// The scale subresources, and the orders that hold by now.
#[derive(Clone, Copy)]
struct Scales<'a> {
    client: &'a Client,
    kinds: &'a Kinds,
    newest: &'a watch::Receiver<Arc<Vec<Order>>>,
}

impl Scales<'_> {
    async fn handle(self, now: Duration, order: &Order, hand: &mut Hand) {
        if !hand.looks(now, order.seen, order.wanted) {
            return;
        }
        let target = &order.target;
        let KindState::Known { resource, .. } = self.kinds.state(target.group(), target.kind())
        else {
            return;
        };
        let done = tokio::time::timeout(TIMEOUT, self.resize(&resource, now, order, hand));
        match done.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                if let kube::Error::Api(status) = &error {
                    // Refused is not written. By a conflict somebody was quicker: what they did is seen next time.
                    hand.attempted = None;
                    if status.code == 409 {
                        return;
                    }
                }
                let target = target.name();
                tracing::warn!(%error, target, wanted = order.wanted, "the count could not be written");
            }
            Err(_) => {
                tracing::warn!(
                    target = target.name(),
                    "the API server did not answer in time"
                );
            }
        }
    }

    async fn resize(
        self,
        resource: &ApiResource,
        now: Duration,
        order: &Order,
        hand: &mut Hand,
    ) -> Result<(), kube::Error> {
        let name = order.target.name();
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), order.target.namespace(), resource);
        let mut scale: Scale = api.get_scale(name).await?;
        let found = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        let found = super::hpas::count(found);
        let Step::Write(count) = hand.step(now, found, order.wanted) else {
            return Ok(());
        };
        // Reading may have taken as long as another replica needs to begin to lead.
        let holds = |newest: &Order| newest.target == order.target && newest.wanted == count;
        if !self.newest.borrow().iter().any(holds) {
            return Ok(());
        }
        scale.spec = Some(ScaleSpec {
            replicas: Some(i32::try_from(count).unwrap_or(i32::MAX)),
        });
        scale.status = None;
        let ours = PostParams {
            field_manager: Some(names::kubernetes::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        hand.writes(count);
        api.replace_scale(name, &ours, &scale).await?;
        tracing::info!(target = name, from = found, to = count, "scaled");
        hand.wrote(now, count);
        Ok(())
    }
}

fn edit(order: &Order, (count, left): (u32, Duration)) -> Finding {
    let target = &order.target;
    let message = format!(
        "{} {} was set to {count} replicas by somebody else while {} are decided for variant {}: it is left alone for {} min yet; set mode publish or advise to keep the count for good",
        target.kind(),
        target.name(),
        order.wanted,
        order.variant,
        left.as_secs().div_ceil(60),
    );
    Finding::new(Topic::Conflict, "ManualEdit", &order.source, message)
}

#[cfg(test)]
mod tests;
