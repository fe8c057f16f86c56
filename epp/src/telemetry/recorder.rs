//! A file of decision records: JSON lines, sampled, bounded, never waited for.

use super::decisions::Kept;
use super::options::RecordOptions;
use epp_core::Pool;
use epp_core::record::{Line, PoolRecord};
use prometheus_client::metrics::counter::Counter;
use runtime::{Clock, Shutdown};
use std::collections::VecDeque;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Records that wait to be written; more are dropped.
const MOST_QUEUED: usize = 1024;
/// Pools of the file that are remembered; an older one is written again before it is referred to.
const KNOWN_POOLS: usize = 16;

/// Takes sampled decisions for the file.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// One in so many is recorded, in 2³² parts.
    share: u64,
    drawn: AtomicU64,
    sender: mpsc::Sender<Arc<Kept>>,
    counters: Counters,
}

/// What became of sampled decisions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// Written.
    pub(crate) written: Counter,
    /// Dropped: the file could not be written, or not as fast as they came.
    pub(crate) dropped: Counter,
}

/// Decisions on their way to the file.
#[derive(Debug)]
pub(crate) struct Records {
    options: RecordOptions,
    receiver: mpsc::Receiver<Arc<Kept>>,
    counters: Counters,
}

impl Recorder {
    /// A recorder, and what [`Records::write`] writes.
    pub(crate) fn new(options: RecordOptions) -> (Self, Records) {
        let (sender, receiver) = mpsc::channel(MOST_QUEUED);
        let counters = Counters::default();
        let recorder = Self {
            share: (options.sample.clamp(0.0, 1.0) * (1_u64 << 32) as f64) as u64,
            drawn: AtomicU64::new(0),
            sender,
            counters: counters.clone(),
        };
        let records = Records {
            options,
            receiver,
            counters,
        };
        (recorder, records)
    }

    /// What became of them so far.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether the next request is recorded: exactly the share that was asked for, evenly spread.
    pub(super) fn draw(&self) -> bool {
        let before = self.drawn.fetch_add(self.share, Relaxed);
        (before >> 32) != (before.wrapping_add(self.share) >> 32)
    }

    pub(super) fn take(&self, kept: Arc<Kept>) {
        if self.sender.try_send(kept).is_err() {
            self.counters.dropped.inc();
        }
    }
}

impl Records {
    /// Writes until `shutdown` is stopped, and then what has come by then.
    pub(crate) async fn write(mut self, clock: Clock, shutdown: Shutdown) {
        let mut file = Rotating::new(&self.options, clock.unix_ms(), self.counters.clone());
        loop {
            let next = tokio::select! {
                next = self.receiver.recv() => next,
                () = shutdown.stopped() => self.receiver.try_recv().ok(),
            };
            let Some(kept) = next else {
                file.flush().await;
                return;
            };
            if let Err(error) = file.append(&kept).await
                && self.counters.dropped.inc() == 0
            {
                let path = file.path.display();
                tracing::warn!(%path, %error, "decision records cannot be written (--decision-records)");
            }
            if self.receiver.is_empty() {
                file.flush().await;
            }
        }
    }
}

/// Two files of half the bytes each: the one that grows, and the one before it.
struct Rotating {
    path: PathBuf,
    most_bytes: u64,
    open: Option<(File, u64)>,
    /// Pools that the open file names, by their numbers.
    known: VecDeque<(Arc<Pool>, u64)>,
    /// Larger than any number that an earlier process has given.
    next_number: u64,
    /// Records that may not have reached the file yet.
    unflushed: u64,
    counters: Counters,
}

impl Rotating {
    fn new(options: &RecordOptions, unix_ms: u64, counters: Counters) -> Self {
        Self {
            path: options.path.clone(),
            most_bytes: options.most_bytes / 2,
            open: None,
            known: VecDeque::new(),
            // A thousand a millisecond: readers in other languages have 53 bits.
            next_number: unix_ms * 1000,
            unflushed: 0,
            counters,
        }
    }

    async fn append(&mut self, kept: &Kept) -> io::Result<()> {
        let mut record = kept.record();
        let mut text = Vec::new();
        self.open().await?;
        let known = kept.pool.as_ref().map(|pool| self.number(pool));
        let write = |record, named: Option<Line>, text: &mut Vec<u8>| -> io::Result<()> {
            for line in named.into_iter().chain([Line::Pick(Box::new(record))]) {
                serde_json::to_writer(&mut *text, &line)?;
                text.push(b'\n');
            }
            Ok(())
        };
        let mut named = None;
        if let (Some(picked), Some((number, new)), Some(pool)) =
            (&mut record.picked, known, &kept.pool)
        {
            picked.pool = number;
            named = new.then(|| Line::Pool(PoolRecord::of(pool, number)));
        }
        write(record, named, &mut text)?;
        let full =
            |(_, bytes): &(File, u64)| *bytes > 0 && bytes + text.len() as u64 > self.most_bytes;
        if self.open.as_ref().is_some_and(full) {
            self.rotate().await?;
            // The new file names its pools itself.
            return Box::pin(self.append(kept)).await;
        }
        if let Some((file, bytes)) = &mut self.open {
            let written = file.write_all(&text).await;
            *bytes += text.len() as u64;
            match &written {
                Ok(()) => self.unflushed += 1,
                Err(_) => self.lose(),
            }
            return written;
        }
        Ok(())
    }

    /// The number of `pool` in the open file, and whether it has yet to be named there.
    fn number(&mut self, pool: &Arc<Pool>) -> (u64, bool) {
        let known = self
            .known
            .iter()
            .find(|(known, _)| Arc::ptr_eq(known, pool));
        if let Some((_, number)) = known {
            return (*number, false);
        }
        let number = self.next_number;
        self.next_number += 1;
        if self.known.len() == KNOWN_POOLS {
            self.known.pop_front();
        }
        self.known.push_back((Arc::clone(pool), number));
        (number, true)
    }

    async fn open(&mut self) -> io::Result<()> {
        if self.open.is_none() {
            let mut options = OpenOptions::new();
            options.create(true).append(true);
            // Tenants' names are in it.
            #[cfg(unix)]
            options.mode(0o600);
            let mut file = options.open(&self.path).await?;
            let mut bytes = file.metadata().await?.len();
            if torn(&self.path, bytes).await? {
                // What was cut off stays a line of its own, so that the next one can be read.
                file.write_all(b"\n").await?;
                bytes += 1;
            }
            self.known.clear();
            self.open = Some((file, bytes));
        }
        Ok(())
    }

    async fn rotate(&mut self) -> io::Result<()> {
        self.flush().await;
        self.close();
        let mut before = self.path.clone().into_os_string();
        before.push(".1");
        tokio::fs::rename(&self.path, before).await
    }

    fn close(&mut self) {
        self.open = None;
        self.known.clear();
    }

    /// The file cannot be written: what has not reached it never will.
    fn lose(&mut self) {
        let lost = std::mem::take(&mut self.unflushed);
        self.counters.dropped.inc_by(lost);
        self.close();
    }

    async fn flush(&mut self) {
        let Some((file, _)) = &mut self.open else {
            return;
        };
        if file.flush().await.is_err() {
            return self.lose();
        }
        let written = std::mem::take(&mut self.unflushed);
        self.counters.written.inc_by(written);
    }
}

/// Whether a file of so many bytes ends inside a line.
async fn torn(path: &Path, bytes: u64) -> io::Result<bool> {
    if bytes == 0 {
        return Ok(false);
    }
    let mut file = File::open(path).await?;
    file.seek(SeekFrom::Start(bytes - 1)).await?;
    Ok(file.read_u8().await? != b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::decisions::{Decisions, Wanted};
    use epp_core::EndpointSpec;
    use epp_core::record::{PickRecord, Picked, RequestRecord, SCHEMA};
    use std::collections::BTreeSet;

    fn pool(name: &str) -> Arc<Pool> {
        let spec = EndpointSpec {
            name: name.to_owned(),
            address: "10.0.0.1:80".into(),
            labels: Default::default(),
        };
        Arc::new(Pool::default().updated(vec![spec]))
    }

    fn pick(id: &str) -> PickRecord {
        let picked = Picked {
            pool: 0,
            slot: 0,
            trusted: true,
            expected_miss: false,
            model: None,
            scorers: vec![],
            removals: vec![],
            candidates: vec![],
        };
        PickRecord {
            schema: SCHEMA,
            at_ms: 5,
            id: id.to_owned(),
            config: String::new(),
            request: RequestRecord::default(),
            waited_ms: 0.0,
            picked: Some(picked),
            refused: None,
            ended: None,
        }
    }

    const FILE: Wanted = Wanted {
        kept: false,
        filed: true,
    };

    /// Writes picks in these pools, and reads the files' lines.
    async fn written(
        most_bytes: u64,
        picks: &[(&Arc<Pool>, &str)],
    ) -> (Vec<Line>, Vec<Line>, Counters) {
        let directory = tempfile::tempdir().unwrap();
        let options = RecordOptions {
            path: directory.path().join("records"),
            sample: 1.0,
            most_bytes,
        };
        let path = options.path.clone();
        let (recorder, records) = Recorder::new(options);
        let counters = recorder.counters().clone();
        for (pool, id) in picks {
            let decisions = Decisions::default();
            let kept = decisions.decided(FILE, Some(Arc::clone(pool)), pick(id));
            recorder.take(kept);
        }
        let shutdown = Shutdown::new();
        shutdown.stop();
        records.write(Clock::start(), shutdown).await;
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.lines()
                .map(|line| Line::parse(line).unwrap())
                .collect()
        };
        (read(path.clone()), read(path.with_extension("1")), counters)
    }

    #[tokio::test]
    async fn pools_are_named_once_before_the_picks_in_them() {
        let (a, b) = (pool("a"), pool("b"));
        let picks = [(&a, "1"), (&a, "2"), (&b, "3"), (&a, "4")];
        let (lines, _, counters) = written(1 << 20, &picks).await;
        let mut named = BTreeSet::new();
        let kinds: Vec<_> = lines
            .iter()
            .map(|line| match line {
                Line::Pool(record) => {
                    assert!(named.insert(record.pool), "named twice");
                    record.endpoints[0].name.to_string()
                }
                Line::Pick(record) => {
                    assert!(named.contains(&record.picked.as_ref().unwrap().pool));
                    record.id.clone()
                }
            })
            .collect();
        assert_eq!(kinds, ["a", "1", "2", "b", "3", "4"]);
        assert_eq!((counters.written.get(), counters.dropped.get()), (4, 0));
    }

    #[tokio::test]
    async fn the_files_stay_within_their_bytes_and_stand_each_for_itself() {
        let a = pool("a");
        let ids: Vec<_> = (0..50).map(|number| number.to_string()).collect();
        let picks: Vec<_> = ids.iter().map(|id| (&a, id.as_str())).collect();
        let (now, before, _) = written(4_000, &picks).await;
        for lines in [&now, &before] {
            assert!(matches!(lines[0], Line::Pool(_)), "{lines:?}");
            let bytes: usize = lines
                .iter()
                .map(|line| serde_json::to_string(line).unwrap().len() + 1)
                .sum();
            assert!(bytes <= 2_000, "{bytes}");
        }
        let Some(Line::Pick(last)) = now.last() else {
            panic!("{now:?}")
        };
        assert_eq!(last.id, "49");
    }

    #[tokio::test]
    async fn a_line_that_was_cut_off_takes_no_other_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let options = RecordOptions {
            path: directory.path().join("records"),
            sample: 1.0,
            most_bytes: 1 << 20,
        };
        let path = options.path.clone();
        std::fs::write(&path, "{\"kind\":\"pi").unwrap();
        let (recorder, records) = Recorder::new(options);
        recorder.take(Decisions::default().decided(FILE, Some(pool("a")), pick("1")));
        let shutdown = Shutdown::new();
        shutdown.stop();
        records.write(Clock::start(), shutdown).await;
        let text = std::fs::read_to_string(&path).unwrap();
        let whole: Vec<_> = text.lines().map(|line| Line::parse(line).is_ok()).collect();
        assert_eq!(whole, [false, true, true], "{text}");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_drops_and_counts() {
        let options = RecordOptions {
            path: "/nonexistent/records".into(),
            sample: 1.0,
            most_bytes: 1 << 20,
        };
        let (recorder, records) = Recorder::new(options);
        let counters = recorder.counters().clone();
        recorder.take(Decisions::default().decided(FILE, Some(pool("a")), pick("1")));
        let shutdown = Shutdown::new();
        shutdown.stop();
        records.write(Clock::start(), shutdown).await;
        assert_eq!((counters.written.get(), counters.dropped.get()), (0, 1));
    }

    #[test]
    fn the_share_is_kept_exactly() {
        let of = |sample| {
            let options = RecordOptions {
                path: "unused".into(),
                sample,
                most_bytes: 1,
            };
            let (recorder, _records) = Recorder::new(options);
            (0..10_000).filter(|_| recorder.draw()).count()
        };
        assert_eq!([of(0.0), of(1.0)], [0, 10_000]);
        assert!((99..=100).contains(&of(0.01)));
    }
}
