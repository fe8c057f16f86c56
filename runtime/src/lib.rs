//! Process plumbing: clock, logging, metric registry, admin server, shutdown.
