//! Messages as rows.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    sync::Arc,
};

use bytes::Bytes;
use pgqueue_core::{DeadLetter, Error, ErrorKind, Message, MessageId, NewMessage, Position, Result};

use crate::{Row, value::RowExt};

/// Writes the texts of many messages, one after the other in one place.
#[derive(Default)]
pub(crate) struct Texts(String);

impl Texts {
    fn write(&mut self, text: fmt::Arguments<'_>) -> &str {
        self.0.clear();
        self.0.write_fmt(text).ok(); // a String takes everything
        &self.0
    }

    /// The id that a publisher got. Below 0, of a message that was scheduled: it kept the one it waited under.
    pub(crate) fn message_id(&mut self, id: i64) -> MessageId {
        MessageId::new(if id < 0 {
            self.write(format_args!("s{}", id.unsigned_abs()))
        } else {
            self.write(format_args!("{id}"))
        })
    }

    /// The position of a message, from which a subscription may start: [`place`](crate::statement::CLAIM) says how the log stood
    /// when it was handed out. The id is as wide as any, so that positions compare as texts.
    fn position(&mut self, id: i64, place: Option<&str>) -> Position {
        // As `{id:019}`, which would write the zeros one by one.
        let zeros = &"000000000000000000"[..18 - id.checked_ilog10().unwrap_or(0) as usize];
        Position::new(match place {
            None => self.write(format_args!("{zeros}{id}")),
            // In stable total order.
            Some(transaction) if transaction.ends_with('.') => self.write(format_args!("{transaction}{zeros}{id}")),
            Some(place) => self.write(format_args!("{zeros}{id}-{place}")),
        })
    }
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

fn message<R: Row>(
    row: &R,
    topic: &Arc<str>,
    texts: &mut Texts,
    (id, place): (i64, Option<&str>),
    scheduled: usize,
    published_at: usize,
) -> Result<Message> {
    let content = content(row, published_at + 1)?;
    let known_as = texts.message_id(row.read::<i64>(scheduled)?.map_or(id, |scheduled| -scheduled));
    let position = texts.position(id, place);
    Ok(Message::new(known_as, position, Arc::clone(topic), content, row.get(published_at)?))
}

/// Reads a row of [`CLAIM`](crate::statement::CLAIM).
pub(crate) fn of_claim<R: Row>(
    row: &R,
    topic: &Arc<str>,
    texts: &mut Texts,
    id: i64,
    place: Option<&str>,
) -> Result<Message> {
    Ok(message(row, topic, texts, (id, place), 3, 9)?
        .with_attempt(row.get::<i32>(4)?.unsigned_abs())
        .with_last_delivered_at(row.read(7)?)
        .with_last_requeued_at(row.read(8)?))
}

/// Reads a row of [`DEAD_LETTERS`](crate::statement::DEAD_LETTERS), and the message's number.
pub(crate) fn of_dead_letter<R: Row>(row: &R, topic: &Arc<str>) -> Result<(i64, DeadLetter)> {
    let id = row.get(0)?;
    let place = row.read::<String>(13)?;
    let message = message(row, topic, &mut Texts::default(), (id, place.as_deref()), 1, 7)?
        .with_attempt(row.get::<i32>(2)?.unsigned_abs())
        .with_last_delivered_at(row.read(4)?)
        .with_last_requeued_at(row.read(5)?);
    Ok((id, DeadLetter::new(message, row.get::<String>(3)?, row.get(6)?)))
}
