//! [`Role`]: what roles of the database may do with the queue.

use pgqueue_core::Result;

use crate::{
    Client, Parameter, PgQueue,
    error::About,
    ident::ensure_name,
    queue::{managing, noted},
    statement,
};

/// What a role of the database may do with the queue. A role that is to do more is granted several.
///
/// Nobody but the owner may touch the tables: roles call functions. Within the queue, what a role may do it may do to every topic and
/// subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // finer ones may come
pub enum Role {
    /// Publishes, also in its own transactions, later, and once; reads a topic's options.
    Publisher,
    /// Inserts subscriptions and consumes them: answers, also in its own transactions; moves checkpoints forward; does the
    /// housekeeping; reads subscriptions' options and statistics, and checkpoints.
    Consumer,
    /// Manages topics, subscriptions, dead letters and checkpoints; does the housekeeping. Neither publishes nor consumes, but
    /// reads the dead letters.
    Admin,
}

impl Role {
    fn statement(self) -> &'static str {
        match self {
            Self::Publisher => statement::GRANT_PUBLISHER,
            Self::Consumer => statement::GRANT_CONSUMER,
            Self::Admin => statement::GRANT_ADMIN,
        }
    }
}

impl<C: Client> PgQueue<C> {
    /// Lets a role of the database, whose name is taken literally, do what a [`Role`] does, besides what it may do already. Only the
    /// schema's owner can grant. The same again changes nothing; do it again after a migration, which may have brought more
    /// functions.
    ///
    /// # Errors
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound) if the database has no such role, [`Invalid`](pgqueue_core::ErrorKind::Invalid) for a name that none can
    /// have, [`Fatal`](pgqueue_core::ErrorKind::Fatal) if this connection's role is not the schema's owner.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn grant_to(&self, role: &str, may: Role) -> Result<()> {
        noted(self.change_privileges(may.statement(), role).await, "a role was granted privileges", role)
    }

    /// Takes back all that a role was granted. It keeps what it has through roles that it is a member of.
    ///
    /// # Errors
    /// As [`grant_to`](Self::grant_to).
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn revoke_from(&self, role: &str) -> Result<()> {
        noted(self.change_privileges(statement::REVOKE_ALL, role).await, "a role was revoked all privileges", role)
    }

    async fn change_privileges(&self, statement: &str, role: &str) -> Result<()> {
        managing(ensure_name("role", role))?;
        self.shared().query(statement, &[Parameter::new(role)], About::Queue).await.map(drop)
    }
}
