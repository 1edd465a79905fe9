//! [`Repair`]: what a registry did about a finding.

use std::fmt;

/// What [`Registry::repair`](crate::Registry::repair) did.
///
/// Its `Display` output is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // more may come to be repaired
pub enum Repair {
    /// Started a pool of a subscription that had none.
    Started {
        /// The subscription's name.
        subscription: String,
    },
    /// Asked the pool of a subscription to stop that is not stored any more. What it has in flight it finishes.
    Stopped {
        /// The subscription's name.
        subscription: String,
    },
    /// Forgot the failed pool of a subscription that is not stored any more.
    Forgotten {
        /// The subscription's name.
        subscription: String,
    },
    /// Gave a pool the size that is stored with its subscription.
    Resized {
        /// The subscription's name.
        subscription: String,
        /// How many workers it had.
        from: usize,
        /// How many it has now.
        to: usize,
    },
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { subscription } => write!(f, "started the pool of subscription {subscription:?}"),
            Self::Stopped { subscription } => {
                write!(f, "stopped the pool of subscription {subscription:?}, which is not stored any more")
            }
            Self::Forgotten { subscription } => {
                write!(f, "forgot the failed pool of subscription {subscription:?}, which is not stored any more")
            }
            Self::Resized { subscription, from, to } => {
                write!(f, "resized the pool of subscription {subscription:?} from {from} to {to} workers")
            }
        }
    }
}
