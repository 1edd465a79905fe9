//! [`Job`]: the payload of a message, for peers that want a type.

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What [`payload`](pgqueue_bench::payload) makes, parsed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Job {
    pub(crate) n: usize,
    pad: String,
}

impl Job {
    pub(crate) fn parse(payload: &[u8]) -> Result<Self> {
        Ok(serde_json::from_slice(payload)?)
    }

    pub(crate) fn parse_all(payloads: &[Vec<u8>]) -> Result<Vec<Self>> {
        payloads.iter().map(|payload| Self::parse(payload)).collect()
    }
}
