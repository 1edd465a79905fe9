//! What a name, a text and a payload may be, the same for every driver.

use std::fmt;

use crate::{Error, ErrorKind, Result};

/// The longest topic or subscription name, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 255;

/// The longest key, kind, tag, dedup id or header name, in bytes of UTF-8.
pub const MAX_TEXT_BYTES: usize = 1024;

/// The longest header value, in bytes of UTF-8.
pub const MAX_HEADER_VALUE_BYTES: usize = 8 * 1024;

/// The most tags, and the most headers, that one message carries.
pub const MAX_LABELS: usize = 64;

/// The largest payload, in bytes: 16 MiB. Larger things belong in a file store, their address in a message.
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;

/// Refuses a name that is empty, too long, or holds a NUL, which PostgreSQL's text cannot.
/// Every other character is taken literally.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    check_text(what, name, 1, MAX_NAME_BYTES)
}

/// Refuses a text whose length lies outside `shortest..=longest` bytes, or that holds a NUL.
pub(crate) fn check_text(what: &str, text: &str, shortest: usize, longest: usize) -> Result<()> {
    check_secret(format_args!("{what} {:?}", excerpt(text)), text, shortest, longest)
}

/// Like [`check_text`], without quoting the text: `what` alone has to tell which it is.
pub(crate) fn check_secret(what: impl fmt::Display, text: &str, shortest: usize, longest: usize) -> Result<()> {
    let problem = if text.len() < shortest {
        "is empty".to_owned()
    } else if text.len() > longest {
        format!("has {} bytes; the limit is {longest}", text.len())
    } else if let Some(at) = text.find('\0') {
        format!("has a NUL at byte {at}")
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Invalid, format!("{what} {problem}")))
}

/// The start of a text, short enough for an error message.
fn excerpt(text: &str) -> &str {
    &text[..text.floor_char_boundary(40)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_literally() {
        for name in ["a", "Order's \"best\"", "naïve ☃", " ", "x; drop table log", &"é".repeat(127)] {
            check_name("topic", name).unwrap();
        }
    }

    #[test]
    fn unusable_names_are_refused_by_name() {
        for (name, says) in
            [("", "is empty"), (&*"x".repeat(256), "has 256 bytes; the limit is 255"), ("a\0b", "has a NUL at byte 1")]
        {
            let error = check_name("topic", name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().starts_with("topic \"") && error.to_string().ends_with(says), "{error}");
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let error = check_name("topic", &"☃".repeat(100)).unwrap_err();
        assert!(error.to_string().contains(&"☃".repeat(13)), "{error}");
    }
}
