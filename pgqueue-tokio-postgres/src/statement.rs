//! [`Bound`]: the queue's parameters, as tokio-postgres takes them.

use bytes::{BufMut, BytesMut};
use pgqueue_postgres::Parameter;
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A parameter whose bytes are passed on as they are, whatever its type.
#[derive(Debug)]
pub(crate) struct Bound<'a>(&'a Parameter);

impl<'a> Bound<'a> {
    pub(crate) fn all(parameters: &'a [Parameter]) -> Vec<Self> {
        parameters.iter().map(Self).collect()
    }

    /// Adds the types, which spares the round trip that would ask for them.
    pub(crate) fn typed(bound: &[Self]) -> Vec<(&(dyn ToSql + Sync), Type)> {
        bound.iter().map(|parameter| (parameter as &(dyn ToSql + Sync), parameter.type_())).collect()
    }

    pub(crate) fn untyped(bound: &[Self]) -> Vec<&(dyn ToSql + Sync)> {
        bound.iter().map(|parameter| parameter as &(dyn ToSql + Sync)).collect()
    }

    pub(crate) fn types(bound: &[Self]) -> Vec<Type> {
        bound.iter().map(Self::type_).collect()
    }

    fn type_(&self) -> Type {
        let oid = self.0.type_oid();
        // Only the number is sent.
        Type::from_oid(oid).unwrap_or_else(|| Type::new(String::new(), oid, Kind::Simple, String::new()))
    }
}

impl ToSql for Bound<'_> {
    fn to_sql(&self, _: &Type, buffer: &mut BytesMut) -> Result<IsNull, BoxError> {
        Ok(self.0.value().map_or(IsNull::Yes, |value| {
            buffer.put_slice(value);
            IsNull::No
        }))
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
