use std::io;

/// What can go wrong with a test server; the message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive] // a new kind of trouble is no break
pub enum Error {
    /// No usable PostgreSQL is installed.
    #[error(
        "found no {wanted}; looked in {}; `scripts/install-postgres` installs one, or set PGQUEUE_POSTGRES_BIN to the \
         folder that holds `postgres` and `initdb`",
        .looked_in.join(", ")
    )]
    NoPostgres {
        /// The version that was looked for.
        wanted: String,
        /// The places that were tried, with the reason where something was there.
        looked_in: Vec<String>,
    },

    /// No usable PgBouncer is installed.
    #[error(
        "found no `pgbouncer`; looked in {}; `scripts/install-pgbouncer` installs one, or set PGQUEUE_PGBOUNCER to the \
         program",
        .looked_in.join(", ")
    )]
    NoPgBouncer {
        /// The places that were tried, with the reason where something was there.
        looked_in: Vec<String>,
    },

    /// `PGQUEUE_POSTGRES_VERSION` holds something else than a major version.
    #[error("PGQUEUE_POSTGRES_VERSION is {value:?}; set it to a major version such as 17, or unset it")]
    BadVersion {
        /// Its value.
        value: String,
    },

    /// The process runs as root and there is no other user to run the server as.
    #[error(
        "PostgreSQL refuses to run as root and /etc/passwd has neither `postgres` nor `nobody`; add one of them, or run \
         the tests as an ordinary user"
    )]
    NoAccount,

    /// The server, or the pooler, did not do what it was asked to.
    #[error("could not {doing} of the server: {answer}; its log ends with:\n{log}")]
    Server {
        /// What was being done.
        doing: &'static str,
        /// What became of it.
        answer: String,
        /// The last lines of the log.
        log: String,
    },

    /// The server refused a statement or a connection.
    #[error("the server refuses the statement in database {database:?}: {message} (SQLSTATE {code})")]
    Sql {
        /// The database that was connected to.
        database: String,
        /// The SQLSTATE.
        code: String,
        /// The server's message.
        message: String,
    },

    /// The operating system refused something.
    #[error("could not {doing}")]
    Io {
        /// What was being done, and to what.
        doing: String,
        /// Why not.
        source: io::Error,
    },

    /// The runtime was shut down half-way.
    #[error("the runtime shut down before the test server had answered")]
    Interrupted,
}

impl Error {
    /// Makes an [`io::Error`] say what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// A result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
