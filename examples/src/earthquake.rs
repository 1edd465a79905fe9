//! [`Earthquake`]: one event.

use serde::{Deserialize, Serialize};

/// An event that a seismic network reported; now and then it is an explosion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Earthquake {
    /// What its network calls it.
    pub id: String,
    /// When it happened, in milliseconds since 1970.
    pub time: i64,
    /// How strong it was.
    pub mag: f64,
    /// Where it was, in words.
    pub place: String,
    /// The seismic network that reported it.
    pub net: String,
    /// What it was: `earthquake`, `explosion`, `quarry blast`.
    #[serde(rename = "type")]
    pub kind: String,
}
