//! What rows of messages say.

use std::{
    collections::BTreeMap,
    str::from_utf8,
    time::{Duration, SystemTime},
};

use pgqueue_core::{BoxError, DeadLetter, Message, MessageId, NewMessage, Position};
use pgqueue_postgres::Row;
use serde_json::from_slice;

/// Reads a message that is handed out. The driver knows which delivery it is.
pub(super) fn message(row: &impl Row) -> Result<Message, BoxError> {
    let mut content = NewMessage::new(bytes(row, "payload")?.to_vec());
    if let Some(key) = text(row, "key")? {
        content = content.with_key(key);
    }
    if let Some(kind) = text(row, "kind")? {
        content = content.with_kind(kind);
    }
    for tag in from_slice::<Vec<String>>(jsonb(row, "tags")?)? {
        content = content.with_tag(tag);
    }
    for (name, value) in from_slice::<BTreeMap<String, String>>(jsonb(row, "headers")?)? {
        content = content.with_header(name, value);
    }
    let id = i64::from_be_bytes(bytes(row, "id")?.try_into()?);
    let position = Position::new(format!("{id:019}"));
    let topic = text(row, "topic")?.ok_or("a NULL")?;
    let published_at = time(row, "published_at")?.ok_or("a NULL")?;
    let message = Message::new(MessageId::new(id.to_string()), position, topic, content, published_at);
    // What was answered and is still there was requeued.
    Ok(message.with_last_requeued_at(time(row, "last_ack_at")?))
}

pub(super) fn dead_letter(row: &impl Row) -> Result<DeadLetter, BoxError> {
    let deliveries = u32::from_be_bytes(bytes(row, "deliveries")?.try_into()?);
    let died_at = time(row, "died_at")?.ok_or("a NULL")?;
    Ok(DeadLetter::new(message(row)?.with_attempt(deliveries), text(row, "reason")?.unwrap_or_default(), died_at))
}

/// Reads an id that is the only column.
pub(super) fn id(row: &impl Row) -> Result<i64, BoxError> {
    Ok(i64::from_be_bytes(row.column(0).ok_or("a NULL")?.try_into()?))
}

fn nullable<'a>(row: &'a impl Row, column: &str) -> Result<Option<&'a [u8]>, BoxError> {
    Ok(row.column(row.find(column).ok_or_else(|| format!("no column {column}"))?))
}

fn bytes<'a>(row: &'a impl Row, column: &str) -> Result<&'a [u8], BoxError> {
    nullable(row, column)?.ok_or_else(|| format!("{column} is NULL").into())
}

fn text(row: &impl Row, column: &str) -> Result<Option<String>, BoxError> {
    Ok(nullable(row, column)?.map(from_utf8).transpose()?.map(str::to_owned))
}

/// The text of a `jsonb`, before which its binary format has a version.
fn jsonb<'a>(row: &'a impl Row, column: &str) -> Result<&'a [u8], BoxError> {
    bytes(row, column)?.get(1..).ok_or_else(|| format!("{column} is no JSON").into())
}

/// A `timestamptz` in binary format: microseconds since 2000.
fn time(row: &impl Row, column: &str) -> Result<Option<SystemTime>, BoxError> {
    const EPOCH: Duration = Duration::from_secs(946_684_800);
    let Some(bytes) = nullable(row, column)? else { return Ok(None) };
    let micros = u64::try_from(i64::from_be_bytes(bytes.try_into()?))?;
    Ok(Some(SystemTime::UNIX_EPOCH + EPOCH + Duration::from_micros(micros)))
}
