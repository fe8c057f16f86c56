//! Events about objects: what a person sees in `kubectl describe`.

mod ledger;

#[cfg(test)]
mod tests;

use self::ledger::{Ledger, Verdict};
use crate::conditions::{shortened, timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use runtime::{Clock, Shutdown, Tasks};
use std::time::Duration;
use tokio::sync::mpsc;

/// Remarks that wait to be written; further ones are dropped, which loses no state.
const MAX_WAITING: usize = 256;
/// A write that has not been answered by then is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// What the API server takes of a note, bytes.
const LONGEST_NOTE: usize = 1_024;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For information.
    Normal,
    /// Somebody should do something.
    Warning,
}

/// One thing to say about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// How bad it is.
    pub kind: Kind,
    /// Why, one CamelCase word.
    pub reason: String,
    /// What was being done, one CamelCase word.
    pub action: String,
    /// The sentence; names the field, the value and what would be right. Cut at 1,024 bytes.
    pub message: String,
}

impl Remark {
    /// A warning that came up while `action` was done.
    pub fn warning(reason: &str, action: &str, message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Warning,
            reason: reason.into(),
            action: action.into(),
            message: message.into(),
        }
    }

    /// Good to know.
    pub fn normal(reason: &str, action: &str, message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Normal,
            ..Self::warning(reason, action, message)
        }
    }
}

/// Writes Events in the background. Clones share one memory of what was said: the same remark about the same
/// object is one Event with a count, and one object gets one new Event per reason in ten seconds at most.
#[derive(Clone, Debug)]
pub struct Recorder {
    remarks: mpsc::Sender<(ObjectReference, Remark)>,
}

impl Recorder {
    /// A recorder for `component` (as in `headroom-epp`) running as `instance`, as one of `tasks`.
    pub fn start(
        client: Client,
        component: &str,
        instance: &str,
        clock: Clock,
        shutdown: Shutdown,
        tasks: &Tasks,
    ) -> Self {
        let (remarks, waiting) = mpsc::channel(MAX_WAITING);
        let writer = Writer {
            client,
            component: component.to_owned(),
            instance: shortened(instance, 128).to_owned(),
            clock,
            ledger: Ledger::default(),
            complained: false,
        };
        tasks.spawn(async move {
            tokio::select! {
                () = writer.run(waiting) => {}
                () = shutdown.stopped() => {}
            }
        });
        Self { remarks }
    }

    /// Says something about `object`. Never waits; what cannot be kept is dropped.
    pub fn remark(&self, object: ObjectReference, remark: Remark) {
        if self.remarks.try_send((object, remark)).is_err() {
            tracing::debug!("an Event is dropped: too many wait, or the recorder has ended");
        }
    }
}

struct Writer {
    client: Client,
    component: String,
    instance: String,
    clock: Clock,
    ledger: Ledger,
    complained: bool,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<(ObjectReference, Remark)>) {
        while let Some((object, remark)) = waiting.recv().await {
            let about = key(&object);
            let now = self.clock.now();
            let message = shortened(&remark.message, LONGEST_NOTE).to_owned();
            let verdict = self.ledger.remark(now, &about, &remark.reason, &message);
            let written = match verdict {
                Verdict::Silent => continue,
                Verdict::Create => {
                    let event = self.event(&object, &remark, message);
                    let name = event.metadata.name.clone().unwrap_or_default();
                    let created = self.create(&object, &event).await;
                    match &created {
                        Ok(()) => self.ledger.written(&about, &remark.reason, name),
                        Err(_) => self.ledger.failed(&about, &remark.reason),
                    }
                    created
                }
                Verdict::Recount(name, times) => self.recount(&object, &name, times).await,
            };
            self.complain(written.err());
        }
    }

    fn complain(&mut self, error: Option<String>) {
        match error {
            None => self.complained = false,
            Some(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(%error, "Events cannot be written");
            }
            Some(_) => {}
        }
    }

    fn events(&self, object: &ObjectReference) -> Api<Event> {
        let namespace = object
            .namespace
            .as_deref()
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or(crate::client::DEFAULT_NAMESPACE);
        Api::namespaced(self.client.clone(), namespace)
    }

    fn event(&self, object: &ObjectReference, remark: &Remark, note: String) -> Event {
        let now = timestamp(self.clock.unix_ms());
        let name = object.name.as_deref().unwrap_or(&self.component);
        // Unique: no two Events of one object are created within the same nanosecond of this process's life.
        let unique = format!(
            "{}.{:x}{:x}",
            shortened(name, 200),
            self.clock.unix_ms(),
            self.clock.now().subsec_nanos()
        );
        Event {
            action: Some(remark.action.clone()),
            event_time: Some(MicroTime(now)),
            metadata: ObjectMeta {
                name: Some(unique),
                namespace: object.namespace.clone(),
                ..ObjectMeta::default()
            },
            note: Some(note),
            reason: Some(remark.reason.clone()),
            regarding: Some(object.clone()),
            reporting_controller: Some(self.component.clone()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(
                match remark.kind {
                    Kind::Normal => "Normal",
                    Kind::Warning => "Warning",
                }
                .into(),
            ),
            ..Event::default()
        }
    }

    async fn create(&self, object: &ObjectReference, event: &Event) -> Result<(), String> {
        let events = self.events(object);
        let parameters = PostParams::default();
        let create = events.create(&parameters, event);
        within(create).await
    }

    async fn recount(
        &self,
        object: &ObjectReference,
        name: &str,
        times: i32,
    ) -> Result<(), String> {
        let series = EventSeries {
            count: times,
            last_observed_time: MicroTime(timestamp(self.clock.unix_ms())),
        };
        let patch = Patch::Merge(serde_json::json!({ "series": series }));
        let events = self.events(object);
        let parameters = PatchParams::default();
        within(events.patch(name, &parameters, &patch)).await
    }
}

/// What came of a write, within the time for one.
async fn within<T>(write: impl Future<Output = kube::Result<T>>) -> Result<(), String> {
    match tokio::time::timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the API server did not answer in time".into()),
    }
}

/// What tells one object from another, a recreated one included.
fn key(object: &ObjectReference) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!(
        "{}/{}/{}/{}",
        part(&object.kind),
        part(&object.namespace),
        part(&object.name),
        part(&object.uid)
    )
}
