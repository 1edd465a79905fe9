//! [`Order`]: what comes in over HTTP, and goes through the queue.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) customer: String,
    pub(crate) amount: u32,
}
