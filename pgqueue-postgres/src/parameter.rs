//! [`Parameter`]: a value bound to a statement, in PostgreSQL's binary format.

use std::{fmt, time::SystemTime};

use bytes::BytesMut;
use pgqueue_core::{Error, ErrorKind, Result};
use postgres_protocol::{IsNull, types};

use crate::value::Value;

/// A bound value: the OID of its type, and its bytes in PostgreSQL's binary format.
///
/// The queue makes them; a [`Client`](crate::Client) passes both on as they are.
#[derive(Clone)]
pub struct Parameter {
    type_oid: u32,
    value: Option<BytesMut>,
}

impl Parameter {
    /// Returns the OID of the parameter's type, always one that PostgreSQL itself defines.
    #[must_use]
    pub fn type_oid(&self) -> u32 {
        self.type_oid
    }

    /// Returns the value in binary format; `None` for NULL.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    pub(crate) fn new<V: Value>(value: V) -> Self {
        Self::nullable(Some(value))
    }

    pub(crate) fn nullable<V: Value>(value: Option<V>) -> Self {
        let value = value.map(|value| {
            let mut buffer = BytesMut::new();
            value.write(&mut buffer);
            buffer
        });
        Self { type_oid: V::OID, value }
    }

    /// Makes an array, whose elements may be NULL.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it has more bytes or elements than the protocol can carry.
    pub(crate) fn array<V: Value>(elements: impl IntoIterator<Item = Option<V>>) -> Result<Self> {
        let elements: Vec<_> = elements.into_iter().collect();
        let mut buffer = BytesMut::with_capacity(32 * elements.len()); // spares most of its growing
        let too_large = || Error::new(ErrorKind::Invalid, "more than one statement can carry; use smaller batches");
        let dimension =
            types::ArrayDimension { len: elements.len().try_into().map_err(|_| too_large())?, lower_bound: 1 };
        let write = |element: Option<V>, buffer: &mut BytesMut| {
            Ok(match element {
                Some(element) => {
                    element.write(buffer);
                    IsNull::No
                }
                None => IsNull::Yes,
            })
        };
        types::array_to_sql([dimension], V::OID, elements, write, &mut buffer)
            .map_err(|source| too_large().with_source(source))?;
        Ok(Self { type_oid: V::ARRAY_OID, value: Some(buffer) })
    }

    /// Makes an array of values that are in binary format already, of a type that PostgreSQL itself defines; `None` for a
    /// type that is not known here.
    pub(crate) fn array_of(type_oid: u32, elements: &[Vec<u8>]) -> Option<Self> {
        let array_oid = array_type(type_oid)?;
        let len = elements.len().try_into().ok()?;
        let dimension = types::ArrayDimension { len, lower_bound: 1 };
        let mut buffer = BytesMut::new();
        let write = |element: &Vec<u8>, buffer: &mut BytesMut| {
            buffer.extend_from_slice(element);
            Ok(IsNull::No)
        };
        types::array_to_sql([dimension], type_oid, elements, write, &mut buffer).ok()?;
        Some(Self { type_oid: array_oid, value: Some(buffer) })
    }

    /// As [`array`](Self::array), but NULL if every element is.
    pub(crate) fn sparse_array<V: Value>(
        elements: impl IntoIterator<Item = Option<V>, IntoIter: Clone>,
    ) -> Result<Self> {
        let elements = elements.into_iter();
        if elements.clone().all(|element| element.is_none()) {
            return Ok(Self { type_oid: V::ARRAY_OID, value: None });
        }
        Self::array(elements)
    }
}

/// Returns the OID of the array type over a type that may be a key (PostgreSQL's `pg_type.dat`).
fn array_type(type_oid: u32) -> Option<u32> {
    Some(match type_oid {
        17 => 1001,   // bytea
        19 => 1003,   // name
        20 => 1016,   // bigint
        21 => 1005,   // smallint
        23 => 1007,   // integer
        25 => 1009,   // text
        26 => 1028,   // oid
        1042 => 1014, // character
        1043 => 1015, // character varying
        1082 => 1182, // date
        1114 => 1115, // timestamp
        1184 => 1185, // timestamp with time zone
        1700 => 1231, // numeric
        2950 => 2951, // uuid
        _ => return None,
    })
}

macro_rules! parameters_from {
    ($($type:ty),*) => {
        $(impl From<$type> for Parameter {
            fn from(value: $type) -> Self {
                Self::new(value)
            }
        }

        impl From<Option<$type>> for Parameter {
            fn from(value: Option<$type>) -> Self {
                Self::nullable(value)
            }
        })*
    };
}

parameters_from!(bool, i16, i32, i64, f64, &str, String, &[u8], SystemTime);

impl fmt::Debug for Parameter {
    /// Shows everything but the value, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.value.as_ref().map(|value| value.len());
        f.debug_struct("Parameter").field("type_oid", &self.type_oid).field("bytes", &bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_nothing_but_null_are_null() {
        assert!(Parameter::sparse_array([None::<&str>, None]).unwrap().value().is_none());
        assert!(Parameter::sparse_array([None, Some("a")]).unwrap().value().is_some());
        assert!(Parameter::array::<i64>([]).unwrap().value().is_some());
    }

    #[test]
    fn debug_output_shows_no_value() {
        let text = format!("{:?}", Parameter::new("secret"));
        assert_eq!(text, "Parameter { type_oid: 25, bytes: Some(6) }");
    }
}
