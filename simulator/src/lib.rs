//! HTTP front of the simulated model server.
