//! [`Audit`]: what one subscription got, and whether that is what it should have got.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pgqueue_core::{Message, MessageId};
use tokio::sync::watch;

use crate::ledger::{Ledger, Written};

pub(crate) struct Audit {
    name: String,
    /// How many of the first messages are before its start.
    passed: usize,
    /// What its consumers got, in that order.
    seen: watch::Sender<Vec<Message>>,
}

impl Audit {
    pub(crate) fn new(name: &str, passed: usize) -> Self {
        Self { name: name.to_owned(), passed, seen: watch::Sender::default() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn starts_at_the_beginning(&self) -> bool {
        self.passed == 0
    }

    pub(crate) fn passed(&self) -> usize {
        self.passed
    }

    pub(crate) fn see(&self, messages: &[Message]) {
        self.seen.send_modify(|seen| seen.extend_from_slice(messages));
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.seen.borrow().clone()
    }

    /// Waits until it got so many.
    pub(crate) async fn got(&self, messages: usize) {
        self.seen.subscribe().wait_for(|seen| seen.len() >= messages).await.unwrap();
    }

    /// Checks that it got what was committed behind its start, as it was published, each once, and nothing else.
    pub(crate) fn assert_complete(&self, ledger: &Ledger) {
        let committed = ledger.committed();
        let expected: BTreeSet<_> =
            committed[self.passed..].iter().map(|written| (written.id.as_str(), written.payload.as_bytes())).collect();
        let messages = self.messages();
        let seen: BTreeSet<_> =
            messages.iter().map(|message| (message.id().as_str(), &message.payload()[..])).collect();
        let text = |(id, payload): &(&str, &[u8])| format!("{id}: {}", String::from_utf8_lossy(payload));
        let lost: Vec<_> = expected.difference(&seen).map(text).collect();
        let strange: Vec<_> = seen.difference(&expected).map(text).collect();
        assert!(lost.is_empty() && strange.is_empty(), "{:?} lost {lost:?} and got {strange:?}", self.name);
        let doubled = messages.len() - seen.len();
        assert_eq!(doubled, 0, "{:?} got some twice, though nobody failed", self.name);
    }

    /// Checks that no message came before another of its key that precedes it.
    pub(crate) fn assert_keys_in_order(&self, ledger: &Ledger) {
        let committed = ledger.committed();
        let written: HashMap<&MessageId, &Written> = committed.iter().map(|written| (&written.id, written)).collect();
        let mut by_key = BTreeMap::<&str, Vec<&Written>>::new();
        for message in &self.messages() {
            let written = written[message.id()];
            if let Some(key) = &written.key {
                let earlier = by_key.entry(key).or_default();
                let inversion = earlier.iter().find(|earlier| written.precedes(earlier));
                assert!(inversion.is_none(), "{:?} got {written:?} after {inversion:?}", self.name);
                earlier.push(written);
            }
        }
    }
}
