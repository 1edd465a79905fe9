//! Messages as rows.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use pgqueue_core::{DeadLetter, Error, ErrorKind, Message, MessageId, NewMessage, Position, Result};

use crate::{Row, value::RowExt};

/// The id that a publisher got: a message that was scheduled kept the one it waited under.
fn message_id(id: i64, scheduled: Option<i64>) -> MessageId {
    MessageId::new(scheduled.map_or_else(|| id.to_string(), |scheduled| format!("s{scheduled}")))
}

/// Reads the content, whose columns stand at `first` in the order key, kind, tags, headers, payload.
fn content<R: Row>(row: &R, first: usize) -> Result<NewMessage> {
    let mut content = NewMessage::new(row.get::<Bytes>(first + 4)?);
    if let Some(key) = row.read::<String>(first)? {
        content = content.with_key(key);
    }
    if let Some(kind) = row.read::<String>(first + 1)? {
        content = content.with_kind(kind);
    }
    for tag in row.read::<Vec<String>>(first + 2)?.unwrap_or_default() {
        content = content.with_tag(tag);
    }
    if let Some(headers) = row.read::<String>(first + 3)? {
        let headers: BTreeMap<String, String> = serde_json::from_str(&headers).map_err(|_| {
            Error::new(ErrorKind::Fatal, "the headers of a message are no JSON object of texts; publish them as one")
        })?;
        for (name, value) in headers {
            content = content.with_header(name, value);
        }
    }
    Ok(content)
}

/// The position of a message, from which a subscription may start: [`place`](crate::statement::CLAIM) says how the log stood when
/// it was handed out. The id is as wide as any, so that positions compare as texts.
fn position(id: i64, place: Option<&str>) -> Position {
    Position::new(match place {
        None => format!("{id:019}"),
        Some(transaction) if transaction.ends_with('.') => format!("{transaction}{id:019}"), // in stable total order
        Some(place) => format!("{id:019}-{place}"),
    })
}

fn message<R: Row>(
    row: &R,
    topic: &Arc<str>,
    position: Position,
    id: i64,
    scheduled: usize,
    published_at: usize,
) -> Result<Message> {
    let content = content(row, published_at + 1)?;
    Ok(Message::new(message_id(id, row.read(scheduled)?), position, Arc::clone(topic), content, row.get(published_at)?))
}

/// Reads a row of [`CLAIM`](crate::statement::CLAIM).
pub(crate) fn of_claim<R: Row>(row: &R, topic: &Arc<str>, place: Option<&str>) -> Result<Message> {
    let id = row.get(2)?;
    Ok(message(row, topic, position(id, place), id, 3, 9)?
        .with_attempt(row.get::<i32>(4)?.unsigned_abs())
        .with_last_delivered_at(row.read(7)?)
        .with_last_requeued_at(row.read(8)?))
}

/// Reads a row of [`DEAD_LETTERS`](crate::statement::DEAD_LETTERS), and the message's number.
pub(crate) fn of_dead_letter<R: Row>(row: &R, topic: &Arc<str>) -> Result<(i64, DeadLetter)> {
    let id = row.get(0)?;
    let place = row.read::<String>(13)?;
    let message = message(row, topic, position(id, place.as_deref()), id, 1, 7)?
        .with_attempt(row.get::<i32>(2)?.unsigned_abs())
        .with_last_delivered_at(row.read(4)?)
        .with_last_requeued_at(row.read(5)?);
    Ok((id, DeadLetter::new(message, row.get::<String>(3)?, row.get(6)?)))
}
