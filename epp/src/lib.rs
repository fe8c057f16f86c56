//! The endpoint picker's adapters: ext_proc, request APIs, discovery, scraping, telemetry.
