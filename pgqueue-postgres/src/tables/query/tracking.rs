//! [`Tracking`]: the columns in which the deliveries of a row are counted and dated.

use crate::{
    TableName,
    ident::{ensure_name, quoted},
};
use pgqueue_core::Result;

/// The columns of a table that say how often and when its rows were handed out and answered.
///
/// A delivery is counted by a statement of its own, which commits before it is handed out, so that the count survives the crash
/// of whoever handles it. Consumers look one after the other then, under an advisory lock of the table, and each look takes
/// one more connection and some more round trips.
///
/// ```
/// use pgqueue_postgres::Tracking;
///
/// let tracking = Tracking::new("messages").with_last_delivered_at("last_delivered_at").with_last_ack_at("last_ack_at");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracking {
    pub(crate) table: TableName,
    pub(crate) deliveries: String,
    pub(crate) last_delivered_at: Option<String>,
    pub(crate) last_ack_at: Option<String>,
}

impl Tracking {
    /// Counts in the column `deliveries`, an `integer` or a `bigint`, of a table whose rows the base query selects.
    pub fn new(table: impl Into<TableName>) -> Self {
        Self { table: table.into(), deliveries: "deliveries".into(), last_delivered_at: None, last_ack_at: None }
    }

    /// Sets the column of the count. Default: `deliveries`.
    #[must_use]
    pub fn with_deliveries(mut self, column: impl Into<String>) -> Self {
        self.deliveries = column.into();
        self
    }

    /// Sets the column that says when a row was last handed out, which becomes
    /// [`last_delivered_at`](pgqueue_core::Message::last_delivered_at) of the next delivery. Default: none.
    #[must_use]
    pub fn with_last_delivered_at(mut self, column: impl Into<String>) -> Self {
        self.last_delivered_at = Some(column.into());
        self
    }

    /// Sets the column that says when a row was last answered, whatever the answer. Default: none.
    #[must_use]
    pub fn with_last_ack_at(mut self, column: impl Into<String>) -> Self {
        self.last_ack_at = Some(column.into());
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.table.validate()?;
        let columns = [Some(&self.deliveries), self.last_delivered_at.as_ref(), self.last_ack_at.as_ref()];
        columns.into_iter().flatten().try_for_each(|column| ensure_name("column", column))
    }

    /// Counts what `picked` selects, and returns the keys with their counts, and when they were last handed out before. What had
    /// the last attempt, which is a parameter, is not counted, and has no count. Last, whether the table has the row at all.
    pub(crate) fn count(&self, picked: &str, key: &str, last_attempt: usize) -> String {
        let (table, deliveries, key) = (&self.table, quoted(&self.deliveries), quoted(key));
        let last = self.last_delivered_at.as_deref().map(quoted);
        let dated = last.as_ref().map(|last| format!(", {last} = clock_timestamp()")).unwrap_or_default();
        let last = last.map_or_else(|| "null".to_owned(), |last| format!("earlier.{last}"));
        // What is joined is as it was before this statement.
        format!(
            "with picked as materialized (select pending.{key} as key from ({picked}) pending), \
             counted as ( \
               update {table} counted set {deliveries} = counted.{deliveries} + 1{dated} \
               from picked where counted.{key} = picked.key and counted.{deliveries} < ${last_attempt} \
               returning counted.{key} as key, counted.{deliveries}::bigint as deliveries) \
             select picked.key, counted.deliveries, {last}::timestamptz, earlier.{key} is not null \
             from picked left join {table} earlier on earlier.{key} = picked.key \
             left join counted on counted.key = picked.key"
        )
    }

    /// Dates the answer to the rows whose keys are bound.
    pub(crate) fn date_ack(&self, key: &str) -> Option<String> {
        let (table, key) = (&self.table, quoted(key));
        let column = quoted(self.last_ack_at.as_deref()?);
        Some(format!("update {table} set {column} = clock_timestamp() where {key} = any($1)"))
    }
}
