//! [`SqlxRow`]: a row of a result.

use std::fmt;

use pgqueue_postgres::Row;
use sqlx::{Column as _, Row as _, postgres::PgRow};

/// A row as sqlx gives it; the queue reads its columns.
pub struct SqlxRow(pub(crate) PgRow);

impl SqlxRow {
    /// Returns sqlx's own row.
    #[must_use]
    pub fn as_pg_row(&self) -> &PgRow {
        &self.0
    }
}

impl Row for SqlxRow {
    fn column(&self, index: usize) -> Option<&[u8]> {
        self.0.try_get_raw(index).ok()?.as_bytes().ok()
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.0.columns().iter().position(|column| column.name() == name)
    }

    fn type_oid(&self, index: usize) -> Option<u32> {
        Some(self.0.columns().get(index)?.type_info().oid()?.0)
    }
}

impl fmt::Debug for SqlxRow {
    /// Shows everything but the values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlxRow").field("columns", &self.0.len()).finish()
    }
}
