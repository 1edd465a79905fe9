//! Payloads: JSON of a given size that says which message it is.

use anyhow::{Context, Result};

/// Makes the payload of a message: a JSON object of so many bytes with its number as `n`.
#[must_use]
pub fn payload(n: usize, size: usize) -> Vec<u8> {
    let mut payload = format!("{{\"n\":{n},\"pad\":\"").into_bytes();
    payload.resize(payload.len().max(size.saturating_sub(2)), b'x');
    payload.extend_from_slice(b"\"}");
    payload
}

/// Reads which message it is.
///
/// # Errors
///
/// When it is not as [`payload`] makes it.
pub fn number(payload: &[u8]) -> Result<usize> {
    let digits = payload.iter().skip(5).take_while(|byte| byte.is_ascii_digit());
    let count = digits.count();
    let digits = std::str::from_utf8(payload.get(5..5 + count).unwrap_or_default())?;
    digits.parse().context("a payload that nobody published")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_json_of_its_size_and_has_its_number() {
        let made = payload(1234, 100);
        assert_eq!((made.len(), number(&made).unwrap()), (100, 1234));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&made).unwrap()["n"], 1234);
    }
}
