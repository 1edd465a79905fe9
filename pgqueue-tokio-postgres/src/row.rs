//! [`TokioPostgresRow`]: a row of an answer.

use std::error::Error;

use pgqueue_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

/// A row as tokio-postgres received it.
#[derive(Debug)]
pub struct TokioPostgresRow(tokio_postgres::Row);

impl TokioPostgresRow {
    pub(crate) fn all(rows: Vec<tokio_postgres::Row>) -> Vec<Self> {
        rows.into_iter().map(Self).collect()
    }

    /// Returns tokio-postgres' own row.
    #[must_use]
    pub fn as_row(&self) -> &tokio_postgres::Row {
        &self.0
    }
}

impl Row for TokioPostgresRow {
    fn column(&self, index: usize) -> Option<&[u8]> {
        let Raw(bytes) = self.0.try_get::<_, Option<Raw<'_>>>(index).ok()??;
        Some(bytes)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.0.columns().iter().position(|column| column.name() == name)
    }

    fn type_oid(&self, index: usize) -> Option<u32> {
        Some(self.0.columns().get(index)?.type_().oid())
    }
}

/// The bytes of a column of any type.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, bytes: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(bytes))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
