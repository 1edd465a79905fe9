//! [`Chain`]: a history as a chain of hashes, in which every message depends on all before it.

use pgqueue_core::Message;
use sha2::{Digest, Sha256};

/// A link for each message, the hash of it and of the link before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chain(Vec<[u8; 32]>);

impl Chain {
    pub(crate) fn of(messages: &[Message]) -> Self {
        let mut last = [0; 32];
        let mut links = Vec::with_capacity(messages.len());
        for message in messages {
            let mut hash = Sha256::new_with_prefix(last);
            for part in [message.id().as_str().as_bytes(), message.position().as_str().as_bytes(), message.payload()] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            last = hash.finalize().into();
            links.push(last);
        }
        Self(links)
    }

    /// Checks that this is the chain that everybody has.
    pub(crate) fn assert_is(&self, expected: &Self, name: &str) {
        let same = self.0.iter().zip(&expected.0).take_while(|(one, other)| one == other).count();
        let (length, wanted) = (self.0.len(), expected.0.len());
        assert!(
            self == expected,
            "{name:?} was told another history: {length} messages, the same up to {same} of {wanted}"
        );
    }
}
