//! The endpoint picker's adapters: ext_proc, request APIs, discovery, scraping, telemetry.

pub mod api;
pub mod usage;
