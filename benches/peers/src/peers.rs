//! The peers.

pub(crate) mod apalis;
pub(crate) mod by_hand;
pub(crate) mod fang;
pub(crate) mod graphile;
pub(crate) mod pgmq;
pub(crate) mod sqlxmq;
pub(crate) mod underway;

/// How many connections a peer's pool has at most: as many as the queue's.
const CONNECTIONS: usize = 16;
