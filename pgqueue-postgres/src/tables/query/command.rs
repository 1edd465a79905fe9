//! [`Command`]: a statement of the user's, with its arguments.

use crate::Parameter;

/// A statement of yours, and what is bound to it after the arguments that the driver gives it.
///
/// ```
/// use pgqueue_postgres::Command;
///
/// let ok = Command::new("delete from messages where serial = any($1) and subscription = $2").with_argument("invoices");
/// ```
#[derive(Clone, Debug)]
pub struct Command {
    sql: String,
    arguments: Vec<Parameter>,
}

impl Command {
    /// Makes a command without arguments of its own.
    pub fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), arguments: Vec::new() }
    }

    /// Binds a value to the next parameter.
    #[must_use]
    pub fn with_argument(mut self, argument: impl Into<Parameter>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn sql(&self) -> &str {
        &self.sql
    }

    /// The statement with what it is for, and by keys of which type. Clients know prepared statements by their texts, and two
    /// that are written alike may get other arguments, or, after the table was made anew, keys of another type.
    pub(crate) fn labelled(&self, purpose: &str, keys: &Parameter) -> String {
        format!("{}\n-- {purpose}, by type {}", self.sql, keys.type_oid())
    }

    /// What is bound, with what the driver gives first.
    pub(crate) fn bound(&self, given: impl IntoIterator<Item = Parameter>) -> Vec<Parameter> {
        given.into_iter().chain(self.arguments.iter().cloned()).collect()
    }
}

impl From<&str> for Command {
    fn from(sql: &str) -> Self {
        Self::new(sql)
    }
}

impl From<String> for Command {
    fn from(sql: String) -> Self {
        Self::new(sql)
    }
}
