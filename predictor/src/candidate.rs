//! A refit that is not yet in force.

/// What a fit produced; put in force by [`crate::Learner::install`].
#[derive(Clone, Debug)]
pub struct Candidate {}
