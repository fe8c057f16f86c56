//! The loop behind a store: list, watch, and again.

use super::Selection;
use super::backoff::Backoff;
use super::store::{ObjectKey, Read, Store, TroubleKind};
use super::wire::{self, Change, Page};
use futures::{AsyncBufReadExt, StreamExt};
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, Status};
use kube::{Api, Client, Resource};
use runtime::Clock;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::marker::PhantomData;
use std::pin::pin;
use std::time::Duration;

/// Objects per page of a list.
const PAGE: u32 = 500;
/// A page that has not come by then will not.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// The server is asked to end a watch after this many seconds, and up to half of it more.
const WATCH_SECONDS: u32 = 240;
/// Bookmarks come about once a minute. A watch that is silent for longer may be a connection whose other end is
/// gone; a new one from the same place costs little.
const SILENCE: Duration = Duration::from_secs(90);
/// A watch that ends sooner than this without a word counts as a failure, so that a server that closes every
/// watch at once is not asked in a tight loop.
const SHORT_WATCH: Duration = Duration::from_secs(1);
/// First wait after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest wait while the server is away: everything is to be back soon after it is.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Longest wait while a CRD or a right is missing, which somebody has to add.
const PATIENT_WAIT: Duration = Duration::from_secs(30);

/// Reads one kind of object into a store.
pub(super) struct Reader<K, T, F> {
    client: Client,
    url: String,
    selection: Selection,
    trim: F,
    clock: Clock,
    store: Store<T>,
    jitter: RandomState,
    kind: PhantomData<fn() -> K>,
}

/// Why a list or a watch failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Request(#[from] kube::core::request::Error),
    #[error("{0}")]
    Told(Box<Status>),
    #[error(transparent)]
    Nonsense(#[from] wire::Nonsense),
    #[error("a list is not understood")]
    Page(#[from] serde_json::Error),
    #[error("the connection broke off")]
    Broken(#[from] std::io::Error),
    #[error("no answer within {} seconds", LIST_TIMEOUT.as_secs())]
    Timeout,
    #[error("the watch ended at once")]
    Short,
}

impl Failure {
    fn code(&self) -> u16 {
        match self {
            Self::Api(kube::Error::Api(status)) | Self::Told(status) => status.code,
            _ => 0,
        }
    }

    fn kind(&self) -> TroubleKind {
        match self.code() {
            404 => TroubleKind::Absent,
            401 | 403 => TroubleKind::Forbidden,
            _ => TroubleKind::Unreachable,
        }
    }

    /// Whether what is known of the server's history is of no use any more.
    fn outdated(&self) -> bool {
        self.code() == 410 || matches!(self, Self::Nonsense(_))
    }
}

impl<K, T, F> Reader<K, T, F>
where
    K: Resource + DeserializeOwned,
    T: PartialEq,
    F: Fn(K) -> Option<T>,
{
    pub(super) fn new(
        api: Api<K>,
        selection: Selection,
        trim: F,
        clock: Clock,
        store: Store<T>,
    ) -> Self {
        let url = api.resource_url().to_owned();
        Self {
            client: api.into_client(),
            url,
            selection,
            trim,
            clock,
            store,
            jitter: RandomState::new(),
            kind: PhantomData,
        }
    }

    /// Keeps the store for as long as this is polled.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(FIRST_WAIT, PATIENT_WAIT);
        // Where the watch goes on; `None` = a list is needed.
        let mut version: Option<String> = None;
        loop {
            let failure = match version.take() {
                None => match self.list().await {
                    Ok(listed) => {
                        version = Some(listed);
                        continue;
                    }
                    Err(failure) => failure,
                },
                Some(from) => match self.watch(&from).await {
                    (reached, None) => {
                        backoff.reset();
                        version = Some(reached);
                        continue;
                    }
                    (reached, Some(failure)) => {
                        if reached != from {
                            backoff.reset();
                        }
                        if failure.outdated() {
                            tracing::info!(resource = %self.url, %failure, "watch is too old, listing again");
                        } else {
                            version = Some(reached);
                        }
                        failure
                    }
                },
            };
            let wait = backoff.failed(match failure.kind() {
                TroubleKind::Absent | TroubleKind::Forbidden => PATIENT_WAIT,
                TroubleKind::Unreachable => LONGEST_WAIT,
            });
            self.complain(&failure);
            tokio::time::sleep(wait).await;
        }
    }

    /// Notes a failure; it is logged when trouble begins, not at every attempt.
    fn complain(&self, failure: &Failure) {
        if failure.code() == 410 {
            return;
        }
        let message = chain(failure);
        if self.store.health().trouble.is_none() {
            let what = match failure.kind() {
                TroubleKind::Absent => "this kind is not there: its definition is not installed",
                TroubleKind::Forbidden => "this may not be read: a right is missing",
                _ => "Kubernetes is not heard, the last known state stays",
            };
            tracing::warn!(resource = %self.url, error = %message, "{what}");
        }
        let now = self.clock.now();
        self.store.trouble(now, failure.kind(), message);
    }

    fn heard(&self) {
        self.store.contact(self.clock.now());
    }

    /// Reads the whole list into the store; the resource version to watch from.
    async fn list(&self) -> Result<String, Failure> {
        let mut listed: BTreeMap<ObjectKey, Read<T>> = BTreeMap::new();
        let mut continue_token = None;
        loop {
            let parameters = ListParams {
                label_selector: self.selection.labels.clone(),
                field_selector: self.selection.fields.clone(),
                limit: Some(PAGE),
                continue_token: continue_token.take(),
                ..ListParams::default()
            };
            let request = Request::new(&self.url).list(&parameters)?;
            let text = tokio::time::timeout(LIST_TIMEOUT, self.client.request_text(request))
                .await
                .map_err(|_| Failure::Timeout)??;
            let page: Page = serde_json::from_str(&text)?;
            drop(text);
            self.heard();
            let items = page.items.unwrap_or_default();
            listed.extend(items.iter().filter_map(|item| wire::read(item, &self.trim)));
            continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if continue_token.is_none() {
                self.store.replace(listed);
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }

    /// Applies what a watch from `from` tells until it ends; how far it got, and what went wrong if anything.
    async fn watch(&self, from: &str) -> (String, Option<Failure>) {
        let mut reached = from.to_owned();
        let failure = self.watch_on(&mut reached).await.err();
        (reached, failure)
    }

    async fn watch_on(&self, reached: &mut String) -> Result<(), Failure> {
        let began = self.clock.now();
        let spread = (self.jitter.hash_one(began) % u64::from(WATCH_SECONDS / 2)) as u32;
        let parameters = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: Some(WATCH_SECONDS + spread),
            bookmarks: true,
            send_initial_events: false,
        };
        let request = Request::new(&self.url).watch(&parameters, reached)?;
        let body = tokio::time::timeout(LIST_TIMEOUT, self.client.request_stream(request))
            .await
            .map_err(|_| Failure::Timeout)??;
        self.heard();
        let mut lines = pin!(body.lines());
        let mut silent = true;
        // `Err` = silence, `None` = the server ended the watch: both are the end of this one.
        while let Ok(Some(line)) = tokio::time::timeout(SILENCE, lines.next()).await {
            let line = line?;
            match wire::line(&line, &self.trim)? {
                Change::Applied(key, read, version) => {
                    self.store.apply(key, read);
                    *reached = version;
                }
                Change::Deleted(key, version) => {
                    self.store.delete(&key);
                    *reached = version;
                }
                Change::Bookmark(version) => *reached = version,
                Change::Error(status) => return Err(Failure::Told(status)),
            }
            silent = false;
            self.heard();
        }
        if silent && self.clock.now() < began + SHORT_WATCH {
            return Err(Failure::Short);
        }
        Ok(())
    }
}

/// An error with everything that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
