//! [`Line`]: a message as it is printed.

use std::{fmt::Write as _, str, time::UNIX_EPOCH};

use pgqueue_core::{Message, MessageId, Position};
use serde::Serialize;

/// A message as one JSON object.
#[derive(Serialize)]
struct Line<'a> {
    /// For `--after`.
    position: &'a Position,
    id: &'a MessageId,
    key: Option<&'a str>,
    kind: Option<&'a str>,
    tags: &'a [String],
    /// When it was published, in milliseconds since 1970.
    published_ms: u128,
    #[serde(flatten)]
    payload: Payload<'a>,
}

/// The payload, under a name that says how it is written.
#[derive(Serialize)]
enum Payload<'a> {
    #[serde(rename = "payload")]
    Text(&'a str),
    /// What is no UTF-8.
    #[serde(rename = "payload_hex")]
    Hex(String),
}

/// Writes each message as a line of JSON.
pub(crate) fn lines(messages: &[Message]) -> serde_json::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for message in messages {
        let line = Line {
            position: message.position(),
            id: message.id(),
            key: message.key(),
            kind: message.kind(),
            tags: message.tags(),
            published_ms: message.published_at().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis(),
            payload: Payload::of(message.payload()),
        };
        serde_json::to_writer(&mut lines, &line)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

impl<'a> Payload<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        str::from_utf8(bytes).map_or_else(|_| Self::Hex(hex(bytes)), Self::Text)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        write!(hex, "{byte:02x}").ok(); // to a string, which takes anything
        hex
    })
}
