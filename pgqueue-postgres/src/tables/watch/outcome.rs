//! [`Watched`]: what became of installing the triggers of a watch.

use std::fmt;

/// What became of installing the triggers of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // there may be other ways
pub enum Watched {
    /// Something was missing or disabled, and now all is there.
    Installed,
    /// All was there, or somebody else has installed it meanwhile.
    AlreadyThere,
    /// Something is missing still. Whoever waits for the table's rows finds them by polling; asking again may install the rest.
    Polling {
        /// What is in the way.
        why: WhyPolling,
    },
}

/// Why the triggers of a watch are not all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // there may be other reasons
pub enum WhyPolling {
    /// The role may not create or enable them: see [`TableWatch`](crate::TableWatch), "What it needs".
    MissingPrivilege,
    /// Others hold the table's lock: they write in open transactions, vacuum it, or change it.
    Locked,
    /// Another session installs them at this moment.
    Installing,
    /// Something else has the name of a trigger or of the function, or somebody changed it: see
    /// [`triggers_healthy`](crate::PgTables::triggers_healthy). It was left alone; drop it, and it is created as it should be.
    Foreign,
}

impl fmt::Display for WhyPolling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingPrivilege => "a privilege is missing",
            Self::Locked => "the table is locked by others",
            Self::Installing => "another session installs them",
            Self::Foreign => "a trigger or a function of that name is not what it should be; drop it",
        })
    }
}
