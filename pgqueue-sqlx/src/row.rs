//! [`SqlxRow`]: a row of a result.

use std::fmt;

use pgqueue_postgres::Row;
use sqlx::{Row as _, postgres::PgRow};

/// A row as sqlx gives it; the queue reads its columns.
pub struct SqlxRow(pub(crate) PgRow);

impl Row for SqlxRow {
    fn column(&self, index: usize) -> Option<&[u8]> {
        self.0.try_get_raw(index).ok()?.as_bytes().ok()
    }
}

impl fmt::Debug for SqlxRow {
    /// Shows everything but the values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlxRow").field("columns", &self.0.len()).finish()
    }
}
