//! Demand from the engines' own metrics pages: the last resort.

mod page;
mod scrape;
mod tally;

pub use page::{Page, parse};
pub use scrape::{Engine, Scraper};
pub use tally::Tally;
