//! What was learned, kept in a directory over restarts.
//!
//! One file, replaced as a whole: written beside, flushed, then renamed over the old one, so that a process that is
//! killed at any moment leaves the one or the other. A file that cannot be read is moved aside and told of; the
//! picker then learns anew. A directory belongs to one picker.

use predictor::snapshot::SnapshotError;
use predictor::trainer::{SaveError, Trainer};
use predictor::{LearnerConfig, Learners};
use runtime::{Clock, Shutdown};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The file in the directory.
const FILE: &str = "learners.snapshot";
/// Where the next one is written.
const NEXT: &str = "learners.snapshot.next";
/// Where one that cannot be read is left.
const BAD: &str = "learners.snapshot.bad";
/// A larger file is none of ours; it is not read into memory.
const LARGEST: u64 = 130 << 20;
/// Time between two saves: at most so much is lost when the process is killed.
const EVERY: Duration = Duration::from_secs(30);

/// A directory for what was learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDir {
    path: PathBuf,
}

/// Why a save failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// The trainer could not give it.
    #[error(transparent)]
    Trainer(#[from] SaveError),
    /// The file could not be written.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it has {0} bytes, far more than any file of this kind")]
    Large(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl ModelDir {
    /// The directory at `path`, which is made when it is first written to.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What the directory holds, aged by the time since it was written; nothing learned where it holds nothing that
    /// can be read. Never fails: what is wrong is logged, and a file that is to blame is moved aside.
    pub fn load(&self, config: LearnerConfig, clock: Clock) -> Learners {
        let file = self.path.join(FILE);
        match read(&file, config.clone(), clock) {
            Ok(learners) => {
                let classes = learners.names().join(", ");
                tracing::info!(file = %file.display(), classes, "what was learned before is in force");
                return learners;
            }
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                tracing::info!(file = %file.display(), "nothing was learned before");
            }
            Err(error) => {
                let bad = self.path.join(BAD);
                tracing::error!(file = %file.display(), %error, moved_to = %bad.display(),
                    "what was learned before cannot be used: learning begins anew");
                if let Err(error) = fs::rename(&file, &bad) {
                    tracing::error!(file = %file.display(), %error, "it cannot be moved aside either");
                }
            }
        }
        Learners::new(config)
    }

    /// Saves what `trainer` learns every 30 seconds, when draining begins and at the end, where there is news.
    pub(crate) async fn keep(self, trainer: Arc<Trainer>, clock: Clock, shutdown: Shutdown) {
        let mut saved = traits(&trainer);
        while !shutdown.is_stopped() {
            let draining = shutdown.is_draining();
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = shutdown.draining(), if !draining => {}
                () = shutdown.stopped() => {}
            }
            let now = traits(&trainer);
            // Reports lag a moment behind, so that at the end no news is no proof.
            if now == saved && !shutdown.is_stopped() {
                continue;
            }
            let (dir, trainer) = (self.clone(), Arc::clone(&trainer));
            let save = tokio::task::spawn_blocking(move || dir.save(&trainer, clock.unix_ms()));
            match save.await {
                Ok(Ok(bytes)) => {
                    tracing::debug!(bytes, "saved what was learned");
                    saved = now;
                }
                Ok(Err(error)) => {
                    tracing::error!(directory = %self.path.display(), %error, "what was learned cannot be saved (--model-dir)");
                }
                Err(error) => tracing::error!(%error, "saving what was learned broke off"),
            }
        }
    }

    /// Bytes written.
    fn save(&self, trainer: &Trainer, unix_ms: u64) -> Result<usize, Failed> {
        let bytes = trainer.save(unix_ms)?;
        fs::create_dir_all(&self.path)?;
        let next = self.path.join(NEXT);
        let mut file = File::create(&next)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&next, self.path.join(FILE))?;
        // The rename itself is durable once the directory is.
        File::open(&self.path)?.sync_all()?;
        Ok(bytes.len())
    }
}

fn read(file: &PathBuf, config: LearnerConfig, clock: Clock) -> Result<Learners, Unusable> {
    let size = fs::metadata(file)?.len();
    if size > LARGEST {
        return Err(Unusable::Large(size));
    }
    let bytes = fs::read(file)?;
    Ok(Learners::restore(
        config,
        &bytes,
        clock.now(),
        clock.unix_ms(),
    )?)
}

/// What changes when anything was learned: per class version and labels of both targets.
fn traits(trainer: &Trainer) -> Vec<(Arc<str>, u64, u64, u64)> {
    let reports = trainer.reports();
    let traits = reports.iter().map(|of| {
        let (ttft, tpot) = (&of.report.ttft, &of.report.tpot);
        (
            Arc::clone(&of.class),
            of.report.version,
            ttft.labels,
            tpot.labels,
        )
    });
    traits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use predictor::{Features, Observation, State, Target};

    fn trainer(learners: Learners, clock: Clock) -> Arc<Trainer> {
        Arc::new(Trainer::spawn(learners, 1.0, Box::new(move || clock.now())))
    }

    fn teach(trainer: &Trainer, labels: u64, clock: Clock) {
        for number in 0..labels {
            let input_tokens = 50.0 + (number * 37 % 400) as f32;
            trainer.observe(
                "L4",
                Observation {
                    target: Target::Ttft,
                    features: Features::idle(input_tokens),
                    actual_ms: 10.0 + input_tokens * 0.2,
                    at: clock.now(),
                    predicted: None,
                },
            );
        }
    }

    #[test]
    fn a_file_that_is_damaged_is_moved_aside_and_learning_begins_anew() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::start());
        let dir = ModelDir::new(directory.path().join("deep/models"));
        let config = LearnerConfig::default;
        let first = trainer(dir.load(config(), clock), clock);
        teach(&first, 50, clock);
        assert!(dir.save(&first, clock.unix_ms()).unwrap() > 1_000);
        let read = dir.load(config(), clock);
        assert_eq!(
            read.models(clock.now()).of("L4").state(Target::Ttft),
            State::Warming
        );
        assert!(!dir.path.join(NEXT).exists());
        let file = dir.path.join(FILE);
        let mut bytes = fs::read(&file).unwrap();
        bytes[500] ^= 4;
        fs::write(&file, &bytes).unwrap();
        let read = dir.load(config(), clock);
        assert_eq!(
            read.models(clock.now()).of("L4").state(Target::Ttft),
            State::Prior
        );
        assert_eq!(fs::read(dir.path.join(BAD)).unwrap(), bytes);
        assert!(!file.exists());
    }

    #[test]
    fn what_a_killed_process_left_half_written_does_not_count() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::start());
        let dir = ModelDir::new(directory.path().to_owned());
        let first = trainer(Learners::new(LearnerConfig::default()), clock);
        teach(&first, 50, clock);
        dir.save(&first, clock.unix_ms()).unwrap();
        fs::write(dir.path.join(NEXT), b"HDRM").unwrap();
        let read = dir.load(LearnerConfig::default(), clock);
        assert_eq!(read.reports(clock.now(), 0)[0].report.ttft.labels, 50);
        dir.save(&first, clock.unix_ms()).unwrap();
        assert!(
            !dir.path.join(NEXT).exists(),
            "the next save takes its place"
        );
    }

    #[tokio::test]
    async fn the_end_saves_what_the_last_half_minute_taught() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::start());
        let dir = ModelDir::new(directory.path().to_owned());
        let first = trainer(Learners::new(LearnerConfig::default()), clock);
        let shutdown = Shutdown::new();
        let keeping = tokio::spawn(
            dir.clone()
                .keep(Arc::clone(&first), clock, shutdown.clone()),
        );
        // The task takes note of what is learned already when it begins.
        tokio::task::yield_now().await;
        teach(&first, 70, clock);
        let learned = async {
            while first.report().ttft.labels < 70 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), learned)
            .await
            .unwrap();
        shutdown.stop();
        keeping.await.unwrap();
        let read = dir.load(LearnerConfig::default(), clock);
        assert_eq!(read.reports(clock.now(), 0)[0].report.ttft.labels, 70);
    }
}
