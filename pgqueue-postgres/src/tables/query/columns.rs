//! [`Columns`]: which columns of a row are what of a message.

use std::time::SystemTime;

use bytes::Bytes;
use pgqueue_core::{Error, ErrorKind, Message, MessageId, NewMessage, Position, Result};
use uuid::Uuid;

use crate::{
    Row,
    tables::type_oid::{
        BIGINT, BYTEA, CHARACTER, CHARACTER_VARYING, FIRST_OWN, INTEGER, JSON, JSONB, NAME, SMALLINT, TEXT, TIMESTAMP,
        TIMESTAMPTZ, UNKNOWN, UUID, XML,
    },
    value::{FromColumn, RowExt},
};

/// Which columns of a base query become what of its messages, by their names.
///
/// Ids, keys and kinds may be texts, numbers, UUIDs or enums; payloads texts, JSON or bytes. NULL is an empty payload, and no
/// key or kind.
///
/// ```
/// use pgqueue_postgres::Columns;
///
/// let columns = Columns::new().with_payload("body").with_key("customer").with_published_at("created_at");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    payload: String,
    key: Option<String>,
    kind: Option<String>,
    attempt: Option<String>,
    published_at: Option<String>,
}

impl Columns {
    /// Reads the payload from the column `payload`, and nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self { payload: "payload".into(), key: None, kind: None, attempt: None, published_at: None }
    }

    /// Sets the column of the [payload](Message::payload). Default: `payload`.
    #[must_use]
    pub fn with_payload(mut self, column: impl Into<String>) -> Self {
        self.payload = column.into();
        self
    }

    /// Sets the column of the [key](Message::key). Default: none.
    #[must_use]
    pub fn with_key(mut self, column: impl Into<String>) -> Self {
        self.key = Some(column.into());
        self
    }

    /// Sets the column of the [kind](Message::kind). Default: none.
    #[must_use]
    pub fn with_kind(mut self, column: impl Into<String>) -> Self {
        self.kind = Some(column.into());
        self
    }

    /// Sets the column that says how often the row was handed out, this time included. Default: none, and each
    /// [attempt](Message::attempt) is the first, unless the deliveries are [counted](crate::PendingQuery::with_tracking).
    #[must_use]
    pub fn with_attempt(mut self, column: impl Into<String>) -> Self {
        self.attempt = Some(column.into());
        self
    }

    /// Sets the column that says [since when](Message::published_at) there is the message, a `timestamptz`, or a `timestamp`
    /// in UTC. Default: none, and it is when the row was read.
    #[must_use]
    pub fn with_published_at(mut self, column: impl Into<String>) -> Self {
        self.published_at = Some(column.into());
        self
    }

    /// The names of all columns that are read, each with what its type must pass and what that is called.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&str, fn(u32) -> bool, &'static str)> {
        let optional = [
            (&self.key, is_textual as fn(u32) -> bool, TEXTUAL),
            (&self.kind, is_textual, TEXTUAL),
            (&self.attempt, is_number, NUMBER),
            (&self.published_at, is_time, TIME),
        ];
        let optional = optional.into_iter().filter_map(|(column, is, what)| Some((column.as_deref()?, is, what)));
        std::iter::once((&*self.payload, is_payload as fn(u32) -> bool, PAYLOAD)).chain(optional)
    }

    /// Makes a message of a row. Errors do not show values.
    pub(crate) fn read(&self, row: &impl Row, id: &str, topic: &str) -> Result<Message> {
        let mut content = NewMessage::new(payload(row, find(row, &self.payload)?)?);
        if let Some(key) = self.key.as_deref().map(|column| text(row, column)).transpose()?.flatten() {
            content = content.with_key(key);
        }
        if let Some(kind) = self.kind.as_deref().map(|column| text(row, column)).transpose()?.flatten() {
            content = content.with_kind(kind);
        }
        let published_at = self.published_at.as_deref().map(|column| time(row, column)).transpose()?.flatten();
        let published_at = published_at.unwrap_or_else(SystemTime::now);
        let message = Message::new(MessageId::new(id), Position::new(id), topic, content, published_at);
        let attempt = self.attempt.as_deref().map(|column| number(row, column)).transpose()?.flatten();
        Ok(message.with_attempt(attempt.map_or(1, |attempt| u32::try_from(attempt.max(1)).unwrap_or(u32::MAX))))
    }
}

impl Default for Columns {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a column is.
pub(crate) fn find(row: &impl Row, column: &str) -> Result<usize> {
    let missing = || Error::new(ErrorKind::Invalid, format!("the base query has no column {column:?}"));
    row.find(column).ok_or_else(missing)
}

const TEXTUAL: &str = "a text, a number, a UUID or an enum";
const PAYLOAD: &str = "a text, JSON or bytes";
const NUMBER: &str = "a number";
const TIME: &str = "a timestamp";

/// Whether values of a type can be written as a text. Of types that are not PostgreSQL's own, only the values tell.
pub(crate) fn is_textual(type_oid: u32) -> bool {
    is_number(type_oid)
        || matches!(type_oid, UUID | TEXT | NAME | CHARACTER | CHARACTER_VARYING | UNKNOWN | FIRST_OWN..)
}

fn is_payload(type_oid: u32) -> bool {
    matches!(type_oid, TEXT | NAME | CHARACTER | CHARACTER_VARYING | UNKNOWN | JSON | JSONB | XML | BYTEA | FIRST_OWN..)
}

fn is_number(type_oid: u32) -> bool {
    matches!(type_oid, SMALLINT | INTEGER | BIGINT)
}

fn is_time(type_oid: u32) -> bool {
    matches!(type_oid, TIMESTAMP | TIMESTAMPTZ)
}

/// Reads what can be written as a text; `None` for NULL.
pub(crate) fn text(row: &impl Row, column: &str) -> Result<Option<String>> {
    let index = find(row, column)?;
    match row.type_oid(index) {
        Some(type_oid) if is_number(type_oid) => Ok(number(row, column)?.map(|number| number.to_string())),
        Some(UUID) => Ok(read::<Uuid>(row, column, TEXTUAL)?.map(|uuid| uuid.to_string())),
        // Texts, and enums, which are sent as their labels.
        Some(type_oid) if is_textual(type_oid) => read(row, column, TEXTUAL),
        _ => Err(unreadable(column, TEXTUAL)),
    }
}

fn number(row: &impl Row, column: &str) -> Result<Option<i64>> {
    match row.type_oid(find(row, column)?) {
        Some(SMALLINT) => Ok(read::<i16>(row, column, NUMBER)?.map(i64::from)),
        Some(INTEGER) => Ok(read::<i32>(row, column, NUMBER)?.map(i64::from)),
        Some(BIGINT) => read(row, column, NUMBER),
        _ => Err(unreadable(column, NUMBER)),
    }
}

fn time(row: &impl Row, column: &str) -> Result<Option<SystemTime>> {
    let is_time = row.type_oid(find(row, column)?).is_some_and(is_time);
    if is_time { read(row, column, TIME) } else { Err(unreadable(column, TIME)) }
}

fn payload(row: &impl Row, index: usize) -> Result<Bytes> {
    let bytes: Bytes = row.read(index)?.unwrap_or_default();
    let is_jsonb = row.type_oid(index) == Some(JSONB) && !bytes.is_empty();
    Ok(if is_jsonb { bytes.slice(1..) } else { bytes }) // a version goes before the text
}

fn read<T: FromColumn>(row: &impl Row, column: &str, wanted: &str) -> Result<Option<T>> {
    let bytes = row.column(find(row, column)?);
    let value = bytes.map(T::read).transpose();
    value.map_err(|source| unreadable(column, wanted).with_source(source))
}

fn unreadable(column: &str, wanted: &str) -> Error {
    Error::new(ErrorKind::Decode, format!("the column {column:?} of the base query is not {wanted}"))
}
