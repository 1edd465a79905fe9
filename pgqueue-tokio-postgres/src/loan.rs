//! [`Loan`]: a connection that goes back to its pool only when nothing is outstanding on it.

use deadpool_postgres::{ClientWrapper, Object};
use pgqueue_postgres::ClientError;
use tokio_postgres::Error;

use crate::error;

/// A connection of the pool during one call. Dropped before it is settled, as when the call's future is dropped, it takes
/// the connection out of the pool and closes it.
pub(crate) struct Loan(Option<Object>);

impl Loan {
    pub(crate) fn new(object: Object) -> Self {
        Self(Some(object))
    }

    pub(crate) fn client(&self) -> Result<&ClientWrapper, ClientError> {
        let client = self.0.as_deref();
        client.ok_or_else(|| ClientError::Unusable("the connection was given back".into()))
    }

    /// Ends the call: a connection whose server answered goes back, even if it refused.
    pub(crate) fn settle<T>(mut self, result: Result<T, Error>) -> Result<T, ClientError> {
        if result.as_ref().map_or_else(|error| error.as_db_error().is_some(), |_| true) {
            self.0 = None;
        }
        result.map_err(error::calling)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.0.take().map(Object::take);
    }
}
