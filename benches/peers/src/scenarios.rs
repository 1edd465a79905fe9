//! The scenarios.

pub(crate) mod drain;
pub(crate) mod latency;
pub(crate) mod publish;
