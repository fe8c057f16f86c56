//! Demand from the engines' own metrics pages: the last resort.

mod page;
mod tally;

pub use page::{Page, parse};
pub use tally::Tally;
