//! System tests and reusable fakes.
