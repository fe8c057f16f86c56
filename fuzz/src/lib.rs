//! Hostile input for every parser of the endpoint picker.
//!
//! A [`target::Target`] is a parser with what must hold of it whatever comes in. A [`campaign`] changes inputs of a
//! corpus at random ([`mutate`]) and keeps those on which the target behaves in a way not seen before, so that later
//! inputs are made from them. Everything random comes from one seed: the same seed, corpus and count of inputs give
//! the same inputs.

#![expect(clippy::expect_used, reason = "a target fails by panicking")]

pub mod campaign;
pub mod corpus;
pub mod mutate;
pub mod target;
