//! [`Statements`]: the SQL around a base query.

use super::{Locking, PendingQuery};
use crate::ident::quoted;

/// All statements of one query, written once.
///
/// The base query becomes a subquery with its own locking clause. A `LIMIT` above it takes locked rows one by one, so that no
/// plan can lock more than it returns; and a condition on the key goes below the locking, for the same reason.
#[derive(Debug)]
pub(crate) struct Statements {
    /// Lock the next rows, at most as many as the last parameter says.
    pub(crate) lock: String,
    /// Lock those of the rows whose keys are bound last but one.
    pub(crate) relock: String,
    /// Counts the deliveries of the next rows, but of those that had as many as the last parameter says.
    pub(crate) count: Option<String>,
    pub(crate) date_ack: Option<String>,
    /// Whether something is pending, and in how many milliseconds the next will be.
    pub(crate) outlook: String,
    /// Whether the subscription exists.
    pub(crate) exists: Option<String>,
    /// One row with the columns of the base query.
    pub(crate) describe: String,
}

impl Statements {
    pub(crate) fn of<R>(query: &PendingQuery<R>) -> Self {
        let arguments = query.base.bound([]);
        // Clients know prepared statements by their texts, and another query may be written alike, with arguments of other types.
        let types: Vec<_> = arguments.iter().map(|argument| argument.type_oid().to_string()).collect();
        let typed = |sql: &str| format!("{sql}\n-- of types {}", types.join(", "));
        let (base, key) = (typed(query.base.sql()), quoted(&query.key));
        let (next, after) = (arguments.len() + 1, arguments.len() + 2);
        let when_held = match query.locking {
            Locking::Ordered => "nowait",
            Locking::Unordered => "skip locked",
        };
        let locked = format!("select * from (\n{base}\nfor update {when_held}) pending");
        let lock = format!("{locked} limit ${next}");
        let due = query.next_due.as_deref().map_or_else(
            || "null".to_owned(),
            // What is due at infinity is never due.
            |due| {
                let millis = "ceil(extract(epoch from at - clock_timestamp()) * 1000)";
                format!("select case when isfinite(at) then {millis} end from (select (\n{due}\n) as at) due")
            },
        );
        Self {
            relock: format!("{locked} where pending.{key} = any(${next}) limit ${after}"),
            count: query.tracking.as_ref().map(|tracking| tracking.count(&lock, &query.key, after)),
            date_ack: query.tracking.as_ref().and_then(|tracking| tracking.date_ack(&query.key)),
            outlook: format!("select exists(select from (\n{base}\n) pending), ({due})::bigint"),
            exists: query.exists.as_deref().map(|exists| format!("select coalesce((\n{}\n), false)", typed(exists))),
            describe: format!("select pending.* from (values (1)) one left join (\n{base}\n) pending on false"),
            lock,
        }
    }
}
