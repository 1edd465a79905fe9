//! [`Deed`]: what a session was asked to do, and what the model needs to know of it afterwards.

use std::ops::Range;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Deed {
    /// Publishes these in the open transaction of a publisher.
    Publish {
        publisher: usize,
        messages: Range<usize>,
    },
    /// Commits or rolls back what a publisher has open.
    End {
        publisher: usize,
        commit: bool,
    },
    /// Commits or rolls back what is prepared.
    EndPrepared {
        number: usize,
        commit: bool,
    },
    Claim(usize),
    Settle(usize),
    /// Takes messages away from who holds them.
    Depose,
    /// Hands dead letters out again, once that is committed.
    Redrive {
        subscription: usize,
    },
    EndRedrive {
        subscription: usize,
        commit: bool,
    },
    /// What changes nothing that anybody promised.
    Chore,
}

impl Deed {
    /// Of what ended at the same time, what others build upon comes first.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Claim(_) => 2,
            Self::Settle(_) => 1,
            _ => 0,
        }
    }
}
