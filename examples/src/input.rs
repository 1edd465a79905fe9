//! Reading events, one JSON object a line, as messages to publish.

use std::{fmt, io, str};

use anyhow::anyhow;
use futures::{Stream, TryStreamExt, stream};
use pgqueue_core::{MAX_PAYLOAD_BYTES, NewMessage};
use serde_json::error::Category;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use crate::Earthquake;

/// A week of real events.
pub const BUNDLED: &[u8] = include_bytes!("../data/earthquakes.jsonl");

/// A line that holds no event. Neither this nor its reason quotes the line, which may be secret.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The line's number, counted from 1.
    pub number: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.number, self.reason)
    }
}

/// Reads events as messages: the payload is the line as it came, the key its network, the kind its type.
///
/// Blank lines are passed over. The stream ends after the first `Err`.
pub fn read_messages(
    input: impl AsyncBufRead + Unpin + Send,
) -> impl Stream<Item = io::Result<Result<NewMessage, BadLine>>> + Send {
    stream::try_unfold((input, 0), |(mut input, mut number)| async move {
        while let Some(line) = read_line(&mut input).await? {
            number += 1;
            if line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty()) {
                continue;
            }
            let message = line.and_then(parse).map_err(|reason| BadLine { number, reason });
            return Ok(Some((message, (input, number))));
        }
        Ok(None)
    })
}

/// Reads the [bundled](BUNDLED) events as messages.
///
/// # Errors
/// None, as long as nobody breaks the file.
pub async fn bundled_messages() -> anyhow::Result<Vec<NewMessage>> {
    let lines: Vec<_> = read_messages(BUNDLED).try_collect().await?;
    lines.into_iter().map(|line| line.map_err(|bad| anyhow!("the bundled events are broken: {bad}"))).collect()
}

/// Reads a line without its end; of one that is too long to be a payload, only that it is.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin + Send)) -> io::Result<Option<Result<Vec<u8>, String>>> {
    let mut line = Vec::new();
    if input.take(MAX_PAYLOAD_BYTES as u64 + 1).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_none() && line.len() > MAX_PAYLOAD_BYTES {
        skip_line(input).await?;
        return Ok(Some(Err(format!("longer than {MAX_PAYLOAD_BYTES} bytes"))));
    }
    Ok(Some(Ok(line)))
}

async fn skip_line(input: &mut (impl AsyncBufRead + Unpin + Send)) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf().await?;
        let (end, length) = (buffer.iter().position(|byte| *byte == b'\n'), buffer.len());
        input.consume(end.map_or(length, |end| end + 1));
        if end.is_some() || length == 0 {
            return Ok(());
        }
    }
}

fn parse(line: Vec<u8>) -> Result<NewMessage, String> {
    let text = str::from_utf8(&line).map_err(|error| format!("not UTF-8 from byte {}", error.valid_up_to() + 1))?;
    let event: Earthquake = serde_json::from_str(text).map_err(|error| describe(&error))?;
    let message = NewMessage::new(line).with_key(event.net).with_kind(event.kind);
    message.validate().map_err(|_| "the event is too large, or its `net` or `type` cannot be used")?;
    Ok(message)
}

/// Says what is wrong with a line without the parser's own words, which quote it, except where they name a field of ours.
fn describe(error: &serde_json::Error) -> String {
    let said = error.to_string();
    match error.classify() {
        Category::Data if said.starts_with("missing field") => {
            said.split(" at line").next().unwrap_or_default().to_owned()
        }
        Category::Data => format!("a value of the wrong type near column {}", error.column()),
        _ => format!("broken JSON at column {}", error.column()),
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn read(input: &[u8]) -> Vec<Result<NewMessage, BadLine>> {
        read_messages(input).map(io::Result::unwrap).collect().now_or_never().expect("bytes are always ready")
    }

    #[test]
    fn bundled_events_are_all_good() {
        let messages = bundled_messages().now_or_never().expect("bytes are always ready");
        assert_eq!(messages.unwrap().len(), 1707);
    }

    #[test]
    fn messages_carry_their_line() {
        let line = r#"{"id": "a", "time": 1, "mag": 2, "place": "b", "net": "uw", "type": "explosion", "more": []}"#;
        let expected = || Ok(NewMessage::new(line).with_key("uw").with_kind("explosion"));
        assert_eq!(read(format!("\n{line}\n \r\n{line}").as_bytes()), [expected(), expected()]);
    }

    #[test]
    fn endless_lines_are_skipped_without_keeping_them() {
        let endless = vec![0; 3 * MAX_PAYLOAD_BYTES];
        let [first, last] = read(&[&endless[..], b"\n{}\n"].concat()).try_into().expect("two lines");
        assert_eq!(first, Err(BadLine { number: 1, reason: "longer than 16777216 bytes".to_owned() }));
        assert_eq!(last.map_err(|bad| bad.number), Err(2));
    }

    #[test]
    fn bad_lines_are_numbered_and_not_quoted() {
        for (line, reason) in [
            (&b"secret"[..], "broken JSON at column 1"),
            (b"{\"id\": \"secret", "broken JSON at column 14"),
            (b"{} secret", "missing field `id`"),
            (b"{\"id\": {\"secret\": 1}}", "a value of the wrong type near column 7"),
            (b"{\"id\": \"secret\", \"time\": 1, \"mag\": null}", "a value of the wrong type near column 39"),
            (b"{\"id\": \"\xff\"}", "not UTF-8 from byte 9"),
            (
                br#"{"id": "a", "time": 1, "mag": 2, "place": "b", "net": "", "type": "secret"}"#,
                "the event is too large, or its `net` or `type` cannot be used",
            ),
        ] {
            let input = [b"\n", line, b"\n"].concat();
            assert_eq!(read(&input), [Err(BadLine { number: 2, reason: reason.to_owned() })]);
        }
    }
}
