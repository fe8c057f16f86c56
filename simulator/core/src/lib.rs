//! A model server's engine that behaves like one: continuous batching, KV cache, profiles, traces.
