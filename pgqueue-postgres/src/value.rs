//! [`Value`]: how Rust values are written for PostgreSQL, and read back.

use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use pgqueue_core::{BoxError, Error, ErrorKind, Result};
use postgres_protocol::types;
use uuid::Uuid;

use crate::Row;

/// What can be a parameter, alone or in an array. The OIDs are those of PostgreSQL's `pg_type.dat`.
pub(crate) trait Value {
    const OID: u32;
    const ARRAY_OID: u32;

    fn write(&self, buffer: &mut BytesMut);
}

macro_rules! values {
    ($($type:ty, $oid:literal, $array_oid:literal: $write:expr;)*) => {
        $(impl Value for $type {
            const OID: u32 = $oid;
            const ARRAY_OID: u32 = $array_oid;

            fn write(&self, buffer: &mut BytesMut) {
                let write: fn(&Self, &mut BytesMut) = $write;
                write(self, buffer);
            }
        })*
    };
}

values! {
    bool, 16, 1000: |value, buffer| types::bool_to_sql(*value, buffer);
    &[u8], 17, 1001: |value, buffer| buffer.put_slice(value);
    i16, 21, 1005: |value, buffer| types::int2_to_sql(*value, buffer);
    i32, 23, 1007: |value, buffer| types::int4_to_sql(*value, buffer);
    i64, 20, 1016: |value, buffer| types::int8_to_sql(*value, buffer);
    f64, 701, 1022: |value, buffer| types::float8_to_sql(*value, buffer);
    &str, 25, 1009: |value, buffer| buffer.put_slice(value.as_bytes());
    String, 25, 1009: |value, buffer| buffer.put_slice(value.as_bytes());
    SystemTime, 1184, 1185: |value, buffer| types::timestamp_to_sql(microseconds(*value), buffer);
    Uuid, 2950, 2951: |value, buffer| types::uuid_to_sql(*value.as_bytes(), buffer);
}

/// The longest duration that is told the server, or added to a time: longer ones do not fit PostgreSQL's times everywhere.
pub(crate) const CENTURY: Duration = Duration::from_secs(3_155_760_000);

/// A duration in milliseconds, at most a [`CENTURY`].
pub(crate) fn millis(duration: Duration) -> i64 {
    duration.min(CENTURY).as_millis() as i64 // a century fits
}

/// A text as PostgreSQL can hold it: it knows no NUL.
pub(crate) fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// 2000-01-01, where PostgreSQL's time begins.
const EPOCH: Duration = Duration::from_secs(946_684_800);

/// The microseconds since PostgreSQL's time began; what it cannot hold is its first or last moment.
fn microseconds(time: SystemTime) -> i64 {
    // What PostgreSQL takes for a timestamp: 4713 BC to 294276 AD.
    const FIRST: i128 = -211_813_488_000_000_000;
    const LAST: i128 = 9_223_371_331_199_999_999;
    let micros = |duration: Duration| i128::try_from(duration.as_micros()).unwrap_or(i128::MAX);
    let since_unix =
        time.duration_since(SystemTime::UNIX_EPOCH).map_or_else(|before| -micros(before.duration()), micros);
    let since_epoch = since_unix.saturating_sub(micros(EPOCH)).clamp(FIRST, LAST);
    since_epoch as i64 // between the two
}

/// What can be read from a column.
pub(crate) trait FromColumn: Sized {
    fn read(bytes: &[u8]) -> Result<Self, BoxError>;
}

macro_rules! columns {
    ($($type:ty: $read:expr;)*) => {
        $(impl FromColumn for $type {
            fn read(bytes: &[u8]) -> Result<Self, BoxError> {
                let read: fn(&[u8]) -> Result<Self, BoxError> = $read;
                read(bytes)
            }
        })*
    };
}

columns! {
    bool: types::bool_from_sql;
    i16: types::int2_from_sql;
    i32: types::int4_from_sql;
    i64: types::int8_from_sql;
    f64: types::float8_from_sql;
    String: |bytes| Ok(types::text_from_sql(bytes)?.to_owned());
    Bytes: |bytes| Ok(Bytes::copy_from_slice(bytes));
    SystemTime: |bytes| {
        let micros = types::timestamp_from_sql(bytes)?;
        let epoch = SystemTime::UNIX_EPOCH + EPOCH;
        let offset = Duration::from_micros(micros.unsigned_abs());
        let time = if micros < 0 { epoch.checked_sub(offset) } else { epoch.checked_add(offset) };
        time.ok_or_else(|| "a time out of range".into())
    };
    Uuid: |bytes| Ok(Uuid::from_bytes(types::uuid_from_sql(bytes)?));
    Vec<i64>: |bytes| elements(bytes);
    Vec<String>: |bytes| elements(bytes);
}

/// Reads an array without NULLs.
fn elements<T: FromColumn>(bytes: &[u8]) -> Result<Vec<T>, BoxError> {
    let array = types::array_from_sql(bytes)?;
    array.values().map(|element| T::read(element.ok_or("a NULL in an array")?)).collect()
}

/// Reads columns as values.
pub(crate) trait RowExt: Row {
    /// Reads a column that may be NULL.
    ///
    /// # Errors
    /// [`ErrorKind::Fatal`], naming the column: the schema is not the one this binary knows.
    fn read<T: FromColumn>(&self, index: usize) -> Result<Option<T>> {
        let read = self.column(index).map(T::read).transpose();
        read.map_err(|source| unreadable(index).with_source(source))
    }

    /// Reads a column that is never NULL.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn get<T: FromColumn>(&self, index: usize) -> Result<T> {
        self.read(index)?.ok_or_else(|| unreadable(index))
    }
}

impl<R: Row + ?Sized> RowExt for R {}

fn unreadable(index: usize) -> Error {
    let message =
        format!("column {index} of the server's answer is not what was expected; is the schema newer than this?");
    Error::new(ErrorKind::Fatal, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &impl Value) -> BytesMut {
        let mut buffer = BytesMut::new();
        value.write(&mut buffer);
        buffer
    }

    #[test]
    fn times_survive_the_journey_to_the_microsecond() {
        for time in [
            SystemTime::UNIX_EPOCH,
            SystemTime::UNIX_EPOCH + EPOCH,
            SystemTime::UNIX_EPOCH + Duration::from_micros(1_763_000_000_123_456),
            SystemTime::UNIX_EPOCH - Duration::from_micros(7),
        ] {
            assert_eq!(SystemTime::read(&written(&time)).unwrap(), time);
        }
    }

    #[test]
    fn times_out_of_range_are_the_last_that_postgresql_knows() {
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 45); // a million years
        assert_eq!(i64::from_be_bytes(written(&far)[..].try_into().unwrap()), 9_223_371_331_199_999_999);
    }
}
