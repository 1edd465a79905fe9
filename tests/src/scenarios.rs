//! What happens in the scenarios.

pub(crate) mod mix;
pub(crate) mod network;
pub(crate) mod processes;
pub(crate) mod publishers;
pub(crate) mod servers;
