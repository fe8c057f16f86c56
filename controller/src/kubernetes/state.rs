//! What decisions remember, kept in a ConfigMap for the next leader.
//!
//! [`chunk`] and [`read`] are pure: a ConfigMap holds a mebibyte, so states are compressed in chunks of whole models
//! and what does not fit is left out and told. [`Keeper`] writes when something changed, at most every ten seconds.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use controller_core::model::{ModelKey, SavedState};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use kubernetes::lease::Leadership;
use names::kubernetes::{FIELD_MANAGER, STATE};
use runtime::Shutdown;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::demand::Handover;

/// Between two writes.
pub const PERIOD: Duration = Duration::from_secs(10);
/// Models in one chunk.
const MODELS_PER_CHUNK: usize = 64;
/// Bytes of all chunks together, well under what a ConfigMap may hold once encoded.
const MAX_BYTES: usize = 700_000;
/// Bytes that one chunk may unfold to.
const MAX_UNFOLDED: u64 = 64 << 20;
/// An attempt to read or write takes no longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// What is kept of one model: what its decisions remember, and the counts that they were made on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// What the decisions remember.
    pub decisions: SavedState,
    /// The counts; absent where nobody had told any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Handover>,
}

/// By model.
pub type States = BTreeMap<ModelKey, Kept>;

/// Why a state cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The API server refused.
    #[error("ConfigMap {STATE}: {0}")]
    Api(#[from] kube::Error),
    /// No answer.
    #[error("ConfigMap {STATE}: no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// The process ends.
    #[error("ConfigMap {STATE}: the process ends")]
    Ended,
    /// A chunk is none.
    #[error("ConfigMap {STATE}: chunk {chunk:?} cannot be read: {reason}")]
    Chunk {
        /// Its key.
        chunk: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    model: std::borrow::Cow<'a, ModelKey>,
    state: std::borrow::Cow<'a, Kept>,
}

/// The chunks of a ConfigMap that holds `states`, and how many models did not fit.
///
/// # Errors
/// When a state cannot be written at all.
pub fn chunk(states: &States) -> Result<(Chunks, usize), StateError> {
    chunk_within(states, MAX_BYTES)
}

/// The data of a ConfigMap.
pub type Chunks = BTreeMap<String, ByteString>;

fn chunk_within(states: &States, most: usize) -> Result<(Chunks, usize), StateError> {
    let (mut chunks, mut bytes, mut left_out) = (BTreeMap::new(), 0, 0);
    let all: Vec<_> = states.iter().collect();
    for (number, models) in all.chunks(MODELS_PER_CHUNK).enumerate() {
        let key = format!("{number:03}.json.gz");
        let packed = pack(models).map_err(|error| StateError::Chunk {
            chunk: key.clone(),
            reason: error.to_string(),
        })?;
        if bytes + packed.len() > most {
            left_out += models.len();
            continue;
        }
        bytes += packed.len();
        chunks.insert(key, ByteString(packed));
    }
    Ok((chunks, left_out))
}

fn pack(models: &[(&ModelKey, &Kept)]) -> std::io::Result<Vec<u8>> {
    use std::borrow::Cow::Borrowed;
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    let entries: Vec<Entry<'_>> = models
        .iter()
        .map(|(model, state)| Entry {
            model: Borrowed(*model),
            state: Borrowed(*state),
        })
        .collect();
    packer.write_all(&serde_json::to_vec(&entries)?)?;
    packer.finish()
}

/// The states that chunks hold. A chunk that cannot be read costs its own models only.
pub fn read(chunks: &Chunks) -> (States, Vec<StateError>) {
    let (mut states, mut errors) = (States::new(), Vec::new());
    for (key, ByteString(packed)) in chunks {
        let mut text = Vec::new();
        let entries = GzDecoder::new(packed.as_slice())
            .take(MAX_UNFOLDED)
            .read_to_end(&mut text)
            .map_err(|error| error.to_string())
            .and_then(|_| {
                serde_json::from_slice::<Vec<Entry<'static>>>(&text)
                    .map_err(|error| error.to_string())
            });
        match entries {
            Ok(entries) => states.extend(
                entries
                    .into_iter()
                    .map(|entry| (entry.model.into_owned(), entry.state.into_owned())),
            ),
            Err(reason) => errors.push(StateError::Chunk {
                chunk: key.clone(),
                reason,
            }),
        }
    }
    (states, errors)
}

/// Keeps states in the ConfigMap.
#[derive(Debug)]
pub struct Keeper {
    maps: Api<ConfigMap>,
    namespace: String,
    written: Option<States>,
}

impl Keeper {
    /// In the controller's own namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            maps: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            written: None,
        }
    }

    /// What was kept last, by whichever leader; none when there is no ConfigMap. Chunks that cannot be read are told.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn load(&self) -> Result<(States, Vec<StateError>), StateError> {
        let map = tokio::time::timeout(DEADLINE, self.maps.get_opt(STATE))
            .await
            .map_err(|_| StateError::Deadline)??;
        let chunks = map.and_then(|map| map.binary_data).unwrap_or_default();
        Ok(read(&chunks))
    }

    /// Keeps `states`, unless they are the ones that are kept. The number of models that did not fit.
    ///
    /// # Errors
    /// When the API server does not take them; then they are written the next time.
    pub async fn keep(&mut self, states: States) -> Result<usize, StateError> {
        if self.written.as_ref() == Some(&states) {
            return Ok(0);
        }
        // Compressing takes milliseconds: not on a thread that carries requests.
        let packed = tokio::task::spawn_blocking(move || chunk(&states).map(|done| (done, states)));
        let ((chunks, left_out), states) = packed.await.map_err(|_| StateError::Ended)??;
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(STATE.to_owned()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            binary_data: Some(chunks),
            ..ConfigMap::default()
        };
        // Applied as the only owner of the chunks: those of models that are gone go, too.
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        tokio::time::timeout(
            DEADLINE,
            self.maps.patch(STATE, &parameters, &Patch::Apply(&map)),
        )
        .await
        .map_err(|_| StateError::Deadline)??;
        self.written = Some(states);
        Ok(left_out)
    }
}

/// Keeps what is handed over while this replica leads, every ten seconds and once more when draining begins; tells
/// `written` of every attempt.
pub async fn keep(
    mut keeper: Keeper,
    mut states: watch::Receiver<Arc<States>>,
    mut leadership: watch::Receiver<Leadership>,
    written: impl Fn(bool),
    shutdown: Shutdown,
) {
    let mut leads = leadership.borrow_and_update().leader;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shutdown.is_draining() {
        tokio::select! {
            biased;
            () = shutdown.draining() => {}
            changed = leadership.changed() => {
                // Draining gives the Lease back: who led until then has decided last.
                if changed.is_ok() && !shutdown.is_draining() {
                    leads = leadership.borrow_and_update().leader;
                    continue;
                }
            }
            _ = ticks.tick() => {}
        }
        if !leads || !states.has_changed().unwrap_or(false) {
            continue;
        }
        let newest = States::clone(&states.borrow_and_update());
        let kept = keeper.keep(newest).await;
        written(kept.is_ok());
        match kept {
            Ok(0) => {}
            Ok(left_out) => {
                tracing::warn!(
                    left_out,
                    "what is remembered of some models does not fit into ConfigMap {STATE}: after a restart they begin anew"
                );
            }
            Err(error) => {
                states.mark_changed();
                tracing::warn!(%error, "what decisions remember could not be kept");
            }
        }
    }
}

#[cfg(test)]
mod tests;
