//! Reading the payloads of a batch as one sequence.

use std::slice;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, SeqAccess, value::SeqAccessDeserializer};

use crate::{Message, Result};

/// Reads the JSON payloads of several messages, at least one, as the elements of a sequence.
pub(crate) fn decode_batch<T: DeserializeOwned>(messages: &[Message]) -> Result<T> {
    let mut payloads = Payloads { rest: messages.iter(), current: &messages[0] };
    let value =
        T::deserialize(SeqAccessDeserializer::new(&mut payloads)).and_then(|value| match payloads.rest.next() {
            // What was not read would be acked unseen.
            Some(message) => {
                payloads.current = message;
                Err(serde_json::Error::custom("the type takes fewer messages than the batch holds"))
            }
            None => Ok(value),
        });
    value.map_err(|source| payloads.current.decode_error::<T>(source))
}

/// The payloads as serde asks for them, one after the other.
struct Payloads<'a> {
    rest: slice::Iter<'a, Message>,
    /// The message that was read last, which an error is about.
    current: &'a Message,
}

impl<'de> SeqAccess<'de> for &mut Payloads<'de> {
    type Error = serde_json::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Self::Error> {
        let Some(message) = self.rest.next() else { return Ok(None) };
        self.current = message;
        let mut json = serde_json::Deserializer::from_slice(message.payload());
        let value = seed.deserialize(&mut json)?;
        json.end()?;
        Ok(Some(value))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{ErrorKind, MessageId, NewMessage, Position};

    fn messages(payloads: &[&'static str]) -> Vec<Message> {
        let message = |(n, payload): (usize, &&'static str)| {
            let text = n.to_string();
            Message::new(
                MessageId::new(&*text),
                Position::new(&*text),
                "t",
                NewMessage::new(*payload),
                SystemTime::UNIX_EPOCH,
            )
        };
        payloads.iter().enumerate().map(message).collect()
    }

    #[test]
    fn payloads_become_elements() {
        assert_eq!(decode_batch::<Vec<u8>>(&messages(&["1", " 2 ", "3"])).unwrap(), [1, 2, 3]);
        assert_eq!(decode_batch::<(u8, String)>(&messages(&["1", "\"two\""])).unwrap(), (1, "two".into()));
    }

    #[test]
    fn types_that_take_fewer_messages_are_refused() {
        let error = decode_batch::<(u8, u8)>(&messages(&["1", "2", "3"])).unwrap_err();
        assert!(error.to_string().contains("message 2 cannot be read as (u8, u8)"), "{error}");
    }

    #[test]
    fn errors_name_the_message_that_cannot_be_read() {
        for payloads in [["1", "x"], ["1", "2 2"], ["1", ""]] {
            let error = decode_batch::<Vec<u8>>(&messages(&payloads)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Decode);
            assert!(error.to_string().contains("message 1 cannot be read as "), "{error}");
        }
    }
}
