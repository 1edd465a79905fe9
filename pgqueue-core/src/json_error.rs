//! [`JsonError`]: why a payload could not be read, without quoting it.

use std::{error::Error as StdError, fmt};

use serde_json::error::Category;

/// The source of an [`ErrorKind::Decode`](crate::ErrorKind::Decode): where a payload stopped being what was expected.
///
/// Parsers quote what they stumble over, and errors travel into logs. So neither its `Display` nor its `Debug` output shows
/// the parser's own words; [`details`](Self::details) does.
pub struct JsonError(serde_json::Error);

impl JsonError {
    pub(crate) fn new(error: serde_json::Error) -> Self {
        Self(error)
    }

    /// Returns the parser's own words, such as ``missing field `id` ``. They may quote the payload.
    #[must_use]
    pub fn details(&self) -> String {
        self.0.to_string()
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.0.classify() {
            Category::Io => "unreadable",
            Category::Syntax => "malformed JSON",
            Category::Data => "JSON of another shape",
            Category::Eof => "JSON that ends too early",
        };
        write!(f, "{what} at line {} column {}", self.0.line(), self.0.column())
    }
}

impl fmt::Debug for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonError({self})")
    }
}

impl StdError for JsonError {}
