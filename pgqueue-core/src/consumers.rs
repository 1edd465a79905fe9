//! [`Consumers`]: who of a subscription's consumers gets its messages.

use std::fmt;

/// Who of the consumers of a subscription, in all processes, gets its messages.
///
/// A consumer that holds a subscription alone loses it when it leaves, or when it is silent for the whole
/// [lease](crate::Subscription::with_lease). From then on its answers are refused, so two never work side by side for longer
/// than it takes the old one to hear that.
///
/// It holds the subscription as long as it lives, also while its handler hangs: give that a
/// [timeout](crate::Worker::with_timeout).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive] // a subscription may come to be shared in other ways
pub enum Consumers {
    /// All of them: each message goes to whoever asks first.
    #[default]
    Competing,
    /// One at a time, the first to come. The others stand by, and one of them takes over when it is gone.
    SingleActive,
    /// One at a time. Whoever else fetches while it lives is told [`Conflict`](crate::ErrorKind::Conflict), which ends the
    /// stream.
    Exclusive,
}

impl fmt::Display for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Competing => "competing",
            Self::SingleActive => "single active",
            Self::Exclusive => "exclusive",
        })
    }
}
