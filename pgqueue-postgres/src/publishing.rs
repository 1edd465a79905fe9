//! Publishing: messages as the arrays of one statement.

use std::time::SystemTime;

use pgqueue_core::{Due, Error, ErrorKind, MAX_PAYLOAD_BYTES, MessageId, NewMessage, Result};

use crate::{
    Parameter, Row,
    message::Texts,
    value::{RowExt, millis},
};

/// The most bytes of payload in one statement: PostgreSQL builds no value of a gigabyte.
const MAX_BATCH_BYTES: usize = 16 * MAX_PAYLOAD_BYTES;

/// How many bytes of payload the messages have together.
pub(crate) fn payload_bytes(messages: &[NewMessage]) -> usize {
    messages.iter().map(|message| message.payload().len()).sum()
}

/// Refuses what cannot be published, before anything is sent.
pub(crate) fn validate(messages: &[NewMessage]) -> Result<()> {
    messages.iter().try_for_each(NewMessage::validate)?;
    let bytes = payload_bytes(messages);
    if bytes > MAX_BATCH_BYTES {
        let message = format!(
            "the {} messages have {bytes} bytes of payload; one call takes {MAX_BATCH_BYTES}: publish them in several",
            messages.len()
        );
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

/// The parameters of [`PUBLISH`](crate::statement::PUBLISH); `is_alone` says that its transaction does nothing else.
pub(crate) fn write(topic: &str, messages: &[NewMessage], ring: bool, is_alone: bool) -> Result<[Parameter; 12]> {
    let tags = |message: &NewMessage| (!message.tags().is_empty()).then(|| array_literal(message.tags()));
    let headers = |message: &NewMessage| {
        let headers = message.headers();
        (!headers.is_empty()).then(|| serde_json::to_string(headers)).transpose().map_err(|source| {
            Error::new(ErrorKind::Invalid, "the headers cannot be written as JSON").with_source(source)
        })
    };
    let headers: Vec<_> = messages.iter().map(headers).collect::<Result<_>>()?;
    let at = |message: &NewMessage| match message.due()? {
        Due::At(time) => Some(time),
        _ => None,
    };
    let delay = |message: &NewMessage| match message.due()? {
        Due::After(delay) => Some(millis(delay)),
        _ => None,
    };
    let hash = |message: &NewMessage| message.key().map(|key| i64::from(pgqueue_core::key_hash(key)));
    Ok([
        Parameter::new(topic),
        Parameter::array(messages.iter().map(|message| Some(&message.payload()[..])))?,
        Parameter::sparse_array(messages.iter().map(NewMessage::key))?,
        Parameter::sparse_array(messages.iter().map(NewMessage::kind))?,
        Parameter::sparse_array(messages.iter().map(tags))?,
        Parameter::sparse_array(headers.iter().map(Option::as_deref))?,
        Parameter::sparse_array(messages.iter().map(NewMessage::dedup_id))?,
        Parameter::sparse_array::<SystemTime>(messages.iter().map(at))?,
        Parameter::sparse_array(messages.iter().map(delay))?,
        Parameter::sparse_array(messages.iter().map(hash))?,
        Parameter::new(ring),
        Parameter::new(is_alone),
    ])
}

/// An array of texts as PostgreSQL reads it (documentation, section 8.15.6).
fn array_literal(texts: &[String]) -> String {
    let quoted = texts.iter().map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")));
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

/// Reads the answer of [`PUBLISH`](crate::statement::PUBLISH).
pub(crate) fn read<R: Row>(rows: &[R]) -> Result<Vec<MessageId>> {
    let ids = rows.first().map_or(Ok(Vec::new()), |row| row.get::<Vec<i64>>(0))?;
    let mut texts = Texts::default();
    Ok(ids.into_iter().map(|id| texts.message_id(id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_quoted() {
        let tags = ["a,b", "\"q\"", "back\\slash", "{}", "NULL", ""].map(str::to_owned);
        assert_eq!(array_literal(&tags), r#"{"a,b","\"q\"","back\\slash","{}","NULL",""}"#);
    }

    #[test]
    fn batches_that_no_statement_can_carry_are_refused() {
        let large = NewMessage::new(vec![0; MAX_PAYLOAD_BYTES]);
        validate(&vec![large.clone(); 16]).unwrap();
        let error = validate(&vec![large; 17]).unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("17 messages"), "{error}");
    }
}
