//! The exchange that pickers have in production, carried by hand.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use epp_core::peers::{BandUse, Delta, Exchange as Books};
use epp_core::{BandDepth, Director, Pool};

use super::exchange::Exchange;

/// Every picker tells every other what changed, as [`epp_core::peers`] has it. What it tells arrives at once.
#[derive(Debug, Default)]
pub struct Deltas {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    books: Vec<(Books, Arc<Pool>)>,
    /// Connections that are open, from one picker to another.
    open: BTreeSet<(usize, usize)>,
}

impl Exchange for Deltas {
    fn exchange(
        &self,
        now: Duration,
        pickers: &mut [&mut Director],
        reachable: &dyn Fn(usize, usize) -> bool,
    ) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.begin(pickers);
        let deltas: Vec<Option<Delta>> = pickers
            .iter_mut()
            .zip(&mut state.books)
            .map(|(director, (books, pool))| tell(now, director, books, pool))
            .collect();
        for (from, told) in deltas.iter().enumerate() {
            for to in (0..pickers.len()).filter(|&to| to != from) {
                if !reachable(from, to) {
                    state.open.remove(&(from, to));
                    continue;
                }
                // A connection begins with everything, and what was told in this very tick is part of that; but for
                // the prefixes, of which a delta carries only the new ones.
                let opens = state.open.insert((from, to));
                let whole = opens.then(|| state.books[from].0.whole());
                for delta in whole.iter().chain(told) {
                    hear(now, &mut state.books[to].0, delta, pickers[to]);
                }
            }
        }
        for (director, (books, _)) in pickers.iter_mut().zip(&state.books) {
            director.set_queued_elsewhere(books.queued());
        }
    }
}

impl State {
    fn begin(&mut self, pickers: &mut [&mut Director]) {
        for (at, director) in pickers.iter_mut().enumerate().skip(self.books.len()) {
            director.share_prefixes();
            let books = Books::new(format!("picker-{at}").into(), at as u64);
            self.books.push((books, Arc::default()));
        }
    }
}

fn tell(
    now: Duration,
    director: &mut Director,
    books: &mut Books,
    pool: &mut Arc<Pool>,
) -> Option<Delta> {
    if !Arc::ptr_eq(director.pool(), pool) {
        *pool = Arc::clone(director.pool());
        books.set_pool(Arc::clone(pool));
    }
    let band = |band: BandDepth| BandUse {
        priority: band.priority,
        requests: band.requests,
        bytes: band.bytes,
    };
    let queued = director.queued().bands.into_iter();
    let bands = queued.filter(|band| band.requests > 0).map(band).collect();
    let told = books.tick(now, now, bands, director.take_sent());
    if books.lost_peer() {
        director.learn_elsewhere(now, &[]);
    }
    told
}

fn hear(now: Duration, books: &mut Books, delta: &Delta, director: &mut Director) {
    // Every connection opens with a whole delta, so that none is refused.
    if let Ok(applied) = books.apply(now, delta) {
        director.learn_elsewhere(now, &applied.learned);
    }
}
