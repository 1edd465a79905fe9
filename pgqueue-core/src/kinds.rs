//! [`Kinds`]: one kind of message or several.

use std::vec;

/// The kinds of messages that something is for: made of one text, or of an array or a `Vec` of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds(Vec<String>);

impl From<&str> for Kinds {
    fn from(kind: &str) -> Self {
        Self(vec![kind.to_owned()])
    }
}

impl From<String> for Kinds {
    fn from(kind: String) -> Self {
        Self(vec![kind])
    }
}

impl<K: Into<String>, const N: usize> From<[K; N]> for Kinds {
    fn from(kinds: [K; N]) -> Self {
        Self(kinds.into_iter().map(Into::into).collect())
    }
}

impl<K: Into<String>> From<Vec<K>> for Kinds {
    fn from(kinds: Vec<K>) -> Self {
        Self(kinds.into_iter().map(Into::into).collect())
    }
}

impl IntoIterator for Kinds {
    type Item = String;
    type IntoIter = vec::IntoIter<String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
