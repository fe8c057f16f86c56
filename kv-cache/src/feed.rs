//! Messages of one source, in order and without gaps.
//!
//! An engine numbers its messages from 0 and keeps the last ones to be asked for again. A [`Feed`] is told what comes
//! in and says what to do: it holds back what came after a gap until the missing messages were replayed, gives up
//! what was known where they cannot be had, and tells an engine that began anew from one that lost messages.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh64::xxh64;

/// What a feed may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedSettings {
    /// Whether messages can be asked for again.
    pub replay: bool,
    /// From one asking to the next; a gap before that is a loss.
    pub cooldown: Duration,
    /// How long a replay may take.
    pub timeout: Duration,
    /// Bytes of messages held back at most while a replay runs; beyond, the replay is given up.
    pub held_bytes: usize,
}

impl Default for FeedSettings {
    /// llm-d's times, 64 MiB.
    fn default() -> Self {
        Self {
            replay: true,
            cooldown: Duration::from_secs(30),
            timeout: Duration::from_secs(120),
            held_bytes: 64 << 20,
        }
    }
}

/// What comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A message as it was published.
    Live {
        /// Its number.
        sequence: u64,
        /// Its events.
        payload: Bytes,
    },
    /// A message that was asked for.
    Replayed {
        /// The number of the asking.
        ask: u32,
        /// Its number.
        sequence: u64,
        /// Its events.
        payload: Bytes,
    },
    /// Everything asked for was sent, or cannot be had.
    ReplayOver {
        /// The number of the asking.
        ask: u32,
    },
    /// The connection broke; whoever answers next may be another engine.
    Disconnected,
    /// Time passes.
    Tick,
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forget what is known of the source; `complete` says that it holds nothing at all.
    Restart {
        /// Whether what follows is everything the source did.
        complete: bool,
    },
    /// Until this is taken back, what is known may be wrong.
    Doubt(bool),
    /// Take these events in.
    Apply(Bytes),
    /// Ask for the messages from this one on.
    Ask {
        /// The number of the asking, for its answers.
        ask: u32,
        /// The first message that is missing.
        from: u64,
    },
}

/// What a feed counts. All only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedCounts {
    /// Messages passed on.
    pub applied: u64,
    /// Times that messages were missing.
    pub gaps: u64,
    /// Gaps that a replay filled.
    pub filled: u64,
    /// Times that what was known was given up because messages could not be had.
    pub lost: u64,
    /// Times that the engine began anew.
    pub restarts: u64,
}

/// A replay that runs.
#[derive(Debug)]
struct Replay {
    ask: u32,
    since: Duration,
    held: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// Whether what was known stays known when the replay fills the gap.
    resumes: bool,
    /// The last message that was passed on, which the replay has to begin with: the connection broke, and another
    /// engine may answer.
    proof: Option<Passed>,
}

/// A message by its number and the hash of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Passed {
    sequence: u64,
    hash: u64,
}

impl Passed {
    fn new(sequence: u64, payload: &[u8]) -> Self {
        let hash = xxh64(payload, 0);
        Self { sequence, hash }
    }
}

/// One source: an engine, or one data-parallel rank of it.
#[derive(Debug)]
pub struct Feed {
    settings: FeedSettings,
    /// The next message to be passed on; none before the first one.
    next: Option<u64>,
    /// The next message to be published, as far as was heard.
    heard: u64,
    last: Option<Passed>,
    disconnected: bool,
    replay: Option<Replay>,
    asks: u32,
    last_ask: Option<Duration>,
    counts: FeedCounts,
}

impl Feed {
    /// A source of which nothing was heard.
    pub fn new(settings: FeedSettings) -> Self {
        Self {
            settings,
            next: None,
            heard: 0,
            last: None,
            disconnected: false,
            replay: None,
            asks: 0,
            last_ask: None,
            counts: FeedCounts::default(),
        }
    }

    /// What happened so far.
    pub fn counts(&self) -> FeedCounts {
        self.counts
    }

    /// What `input` at `now` calls for is appended to `out`.
    pub fn handle(&mut self, input: Input, now: Duration, out: &mut Vec<Action>) {
        match input {
            Input::Live { sequence, payload } => self.live(sequence, payload, now, out),
            Input::Replayed {
                ask,
                sequence,
                payload,
            } => {
                if self.replay.as_ref().is_some_and(|replay| replay.ask == ask) {
                    self.replayed(sequence, payload, out);
                }
            }
            Input::ReplayOver { ask } => {
                if self.replay.as_ref().is_some_and(|replay| replay.ask == ask) {
                    self.finish(out);
                }
            }
            Input::Disconnected => self.disconnected = true,
            Input::Tick => {
                let timeout = self.settings.timeout;
                let late = |replay: &Replay| now.saturating_sub(replay.since) >= timeout;
                if self.replay.as_ref().is_some_and(late) {
                    self.finish(out);
                }
            }
        }
    }

    fn live(&mut self, sequence: u64, payload: Bytes, now: Duration, out: &mut Vec<Action>) {
        let Some(next) = self.next else {
            self.heard = sequence.saturating_add(1);
            return self.begin(sequence, payload, now, out);
        };
        let reconnected = std::mem::take(&mut self.disconnected);
        let restarted = sequence < self.heard;
        self.heard = sequence.saturating_add(1);
        if restarted || (reconnected && self.replay.is_some()) {
            self.counts.restarts += u64::from(restarted);
            if self.replay.take().is_some() {
                out.push(Action::Doubt(false));
            }
            return self.begin(sequence, payload, now, out);
        }
        if reconnected {
            return self.prove(next, (sequence, payload), now, out);
        }
        if let Some(replay) = &mut self.replay {
            replay.bytes += payload.len();
            replay.held.push_back((sequence, payload));
            if replay.bytes > self.settings.held_bytes {
                self.finish(out);
            }
        } else if sequence == next {
            self.pass(sequence, payload, out);
        } else if sequence > next {
            self.counts.gaps += 1;
            if self.may_ask(now) {
                out.push(Action::Doubt(true));
                self.ask(next, None, true, (sequence, payload), now, out);
            } else {
                self.lose(out);
                self.pass(sequence, payload, out);
            }
        }
        // Otherwise the message was replayed before it came.
    }

    /// The first message of a source, or of an engine that began anew.
    fn begin(&mut self, sequence: u64, payload: Bytes, now: Duration, out: &mut Vec<Action>) {
        let complete = sequence == 0;
        out.push(Action::Restart { complete });
        self.next = Some(0);
        if complete || !self.may_ask(now) {
            self.pass(sequence, payload, out);
        } else {
            self.ask(0, None, false, (sequence, payload), now, out);
        }
    }

    /// The connection broke, and the next message may be another engine's: the one before it is asked for again.
    fn prove(&mut self, next: u64, held: (u64, Bytes), now: Duration, out: &mut Vec<Action>) {
        match self.last {
            Some(last) if self.may_ask(now) => {
                self.counts.gaps += u64::from(held.0 > next);
                out.push(Action::Doubt(true));
                self.ask(last.sequence, Some(last), true, held, now, out);
            }
            _ => {
                self.lose(out);
                self.pass(held.0, held.1, out);
            }
        }
    }

    fn may_ask(&self, now: Duration) -> bool {
        let cool = |last| now.saturating_sub(last) >= self.settings.cooldown;
        self.settings.replay && self.last_ask.is_none_or(cool)
    }

    fn ask(
        &mut self,
        from: u64,
        proof: Option<Passed>,
        resumes: bool,
        held: (u64, Bytes),
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let ask = self.asks;
        self.asks = self.asks.wrapping_add(1);
        self.last_ask = Some(now);
        self.replay = Some(Replay {
            ask,
            since: now,
            bytes: held.1.len(),
            held: VecDeque::from([held]),
            resumes,
            proof,
        });
        out.push(Action::Ask { ask, from });
    }

    fn replayed(&mut self, sequence: u64, payload: Bytes, out: &mut Vec<Action>) {
        let next = self.next.unwrap_or(0);
        let Some(replay) = &mut self.replay else {
            return;
        };
        if let Some(proof) = replay.proof.take() {
            if proof == Passed::new(sequence, &payload) {
                return;
            }
            // Another engine, or the message is no longer to be had.
            self.counts.lost += 1;
            let complete = sequence == 0;
            out.push(Action::Restart { complete });
            return self.pass(sequence, payload, out);
        }
        if sequence < next {
            return;
        }
        if !replay.resumes {
            // The source's first messages, or the oldest it still has.
            replay.resumes = true;
            if sequence == 0 {
                out.push(Action::Restart { complete: true });
            }
        } else if sequence > next {
            self.lose(out);
        }
        self.pass(sequence, payload, out);
    }

    /// What was held back while the replay ran follows it.
    fn finish(&mut self, out: &mut Vec<Action>) {
        let Some(replay) = self.replay.take() else {
            return;
        };
        let lost = self.counts.lost;
        let mut resumes = replay.resumes;
        if replay.proof.is_some() {
            self.lose(out);
            resumes = false;
        }
        for (sequence, payload) in replay.held {
            let next = self.next.unwrap_or(0);
            if sequence < next {
                continue;
            }
            if sequence > next && resumes {
                self.lose(out);
            }
            resumes = true;
            self.pass(sequence, payload, out);
        }
        self.counts.filled += u64::from(self.counts.lost == lost);
        out.push(Action::Doubt(false));
    }

    /// Messages cannot be had.
    fn lose(&mut self, out: &mut Vec<Action>) {
        self.counts.lost += 1;
        out.push(Action::Restart { complete: false });
    }

    fn pass(&mut self, sequence: u64, payload: Bytes, out: &mut Vec<Action>) {
        self.next = Some(sequence.saturating_add(1));
        self.last = Some(Passed::new(sequence, &payload));
        self.counts.applied += 1;
        out.push(Action::Apply(payload));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn message(sequence: u64) -> Bytes {
        Bytes::from(sequence.to_string())
    }

    fn live(sequence: u64) -> Input {
        Input::Live {
            sequence,
            payload: message(sequence),
        }
    }

    fn replayed(ask: u32, sequence: u64) -> Input {
        Input::Replayed {
            ask,
            sequence,
            payload: message(sequence),
        }
    }

    struct Run {
        feed: Feed,
        now: Duration,
    }

    impl Run {
        fn new(replay: bool) -> Self {
            Self {
                feed: Feed::new(FeedSettings {
                    replay,
                    held_bytes: 8,
                    ..FeedSettings::default()
                }),
                now: SECOND,
            }
        }

        fn after(&mut self, inputs: impl IntoIterator<Item = Input>) -> String {
            let mut out = Vec::new();
            for input in inputs {
                self.feed.handle(input, self.now, &mut out);
            }
            let said = |action: &Action| match action {
                Action::Restart { complete: true } => "all".to_owned(),
                Action::Restart { complete: false } => "some".to_owned(),
                Action::Doubt(true) => "doubt".to_owned(),
                Action::Doubt(false) => "trust".to_owned(),
                Action::Apply(payload) => String::from_utf8_lossy(payload).into_owned(),
                Action::Ask { ask, from } => format!("ask{ask}:{from}"),
            };
            out.iter().map(said).collect::<Vec<_>>().join(" ")
        }
    }

    #[test]
    fn messages_in_order_pass() {
        let mut run = Run::new(true);
        assert_eq!(run.after([live(0), live(1), live(2)]), "all 0 1 2");
    }

    #[test]
    fn who_comes_late_asks_for_the_beginning() {
        let mut run = Run::new(true);
        assert_eq!(run.after([live(3)]), "some ask0:0");
        let answers = [
            replayed(0, 0),
            live(4),
            replayed(0, 1),
            replayed(0, 2),
            replayed(0, 3),
        ];
        assert_eq!(run.after(answers), "all 0 1 2 3");
        assert_eq!(
            run.after([Input::ReplayOver { ask: 0 }, live(5)]),
            "4 trust 5"
        );
        let mut run = Run::new(true);
        let answers = [
            live(9),
            replayed(0, 7),
            replayed(0, 8),
            Input::ReplayOver { ask: 0 },
        ];
        assert_eq!(
            run.after(answers),
            "some ask0:0 7 8 9 trust",
            "the oldest it has"
        );
        let mut run = Run::new(true);
        let nothing = [live(9), live(10), Input::ReplayOver { ask: 0 }];
        assert_eq!(run.after(nothing), "some ask0:0 9 10 trust");
        assert_eq!(Run::new(false).after([live(9), live(10)]), "some 9 10");
    }

    #[test]
    fn a_gap_is_filled_and_what_was_known_stays() {
        let mut run = Run::new(true);
        assert_eq!(run.after([live(0), live(3), live(4)]), "all 0 doubt ask0:1");
        let answers = [
            replayed(0, 1),
            replayed(0, 2),
            replayed(0, 3),
            replayed(0, 4),
            replayed(0, 5),
        ];
        assert_eq!(run.after(answers), "1 2 3 4 5");
        let after = [Input::ReplayOver { ask: 0 }, live(5), live(6)];
        assert_eq!(
            run.after(after),
            "trust 6",
            "5 came by the replay before it came live"
        );
        let counts = run.feed.counts();
        assert_eq!(
            (counts.gaps, counts.filled, counts.lost, counts.restarts),
            (1, 1, 0, 0)
        );
    }

    #[test]
    fn what_cannot_be_had_is_lost() {
        let mut run = Run::new(false);
        assert_eq!(run.after([live(0), live(2)]), "all 0 some 2");
        let mut run = Run::new(true);
        let hole = [
            live(0),
            live(5),
            replayed(0, 3),
            Input::ReplayOver { ask: 0 },
        ];
        assert_eq!(run.after(hole), "all 0 doubt ask0:1 some 3 some 5 trust");
        assert_eq!(run.after([live(8)]), "some 8", "asked a moment ago");
        run.now += 31 * SECOND;
        assert_eq!(run.after([live(10)]), "doubt ask1:9");
        assert_eq!(
            run.after([replayed(0, 9), Input::ReplayOver { ask: 0 }]),
            "",
            "of an older asking"
        );
        run.now += 121 * SECOND;
        assert_eq!(run.after([Input::Tick]), "some 10 trust");
        assert_eq!(run.feed.counts().lost, 4);
    }

    #[test]
    fn more_than_may_be_held_ends_the_replay() {
        let mut run = Run::new(true);
        let many = (10..20).map(live);
        assert_eq!(
            run.after([live(0)].into_iter().chain(many)),
            "all 0 doubt ask0:1 some 10 11 12 13 14 trust 15 16 17 18 19"
        );
    }

    #[test]
    fn an_engine_that_began_anew_holds_nothing() {
        let mut run = Run::new(true);
        assert_eq!(
            run.after([live(0), live(1), live(0), live(1)]),
            "all 0 1 all 0 1"
        );
        assert_eq!(run.after([live(2), live(3), live(1)]), "2 3 some ask0:0");
        assert_eq!(
            run.after([replayed(0, 0), replayed(0, 1), Input::ReplayOver { ask: 0 }]),
            "all 0 1 trust"
        );
        assert_eq!(run.feed.counts().restarts, 2);
    }

    #[test]
    fn an_engine_that_began_anew_while_it_was_asked_is_asked_again_later() {
        let mut run = Run::new(true);
        assert_eq!(
            run.after([live(0), live(5), live(0)]),
            "all 0 doubt ask0:1 trust all 0"
        );
        assert_eq!(
            run.after([replayed(0, 1), Input::ReplayOver { ask: 0 }, live(1)]),
            "1"
        );
    }

    #[test]
    fn after_the_connection_broke_the_last_message_proves_that_it_is_the_same_engine() {
        let mut run = Run::new(true);
        assert_eq!(
            run.after([live(0), live(1), Input::Disconnected, live(2)]),
            "all 0 1 doubt ask0:1"
        );
        let same = [
            replayed(0, 1),
            replayed(0, 2),
            Input::ReplayOver { ask: 0 },
            live(3),
        ];
        assert_eq!(run.after(same), "2 trust 3");
        run.now += 31 * SECOND;
        assert_eq!(run.after([Input::Disconnected, live(7)]), "doubt ask1:3");
        let other = Input::Replayed {
            ask: 1,
            sequence: 3,
            payload: message(99),
        };
        let rest = [other, replayed(1, 4), Input::ReplayOver { ask: 1 }];
        assert_eq!(run.after(rest), "some 99 4 some 7 trust");
        run.now += 31 * SECOND;
        let nothing = [Input::Disconnected, live(8), Input::ReplayOver { ask: 2 }];
        assert_eq!(run.after(nothing), "doubt ask2:7 some 8 trust");
        assert_eq!(
            run.after([Input::Disconnected, live(9)]),
            "some 9",
            "asked a moment ago"
        );
        let mut run = Run::new(false);
        assert_eq!(
            run.after([live(0), Input::Disconnected, live(1)]),
            "all 0 some 1"
        );
    }

    #[test]
    fn a_connection_that_breaks_during_a_replay_begins_anew() {
        let mut run = Run::new(true);
        assert_eq!(
            run.after([live(0), live(4), Input::Disconnected, live(5)]),
            "all 0 doubt ask0:1 trust some 5"
        );
    }
}
