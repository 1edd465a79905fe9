//! [`Log`]: what a topic must do with what is published to it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use pgqueue_core::{ErrorKind, MessageId, Position, Topic};

use crate::{
    check::{Verdict, ensure},
    event::{Outcome, Seen},
    step::Draft,
};

pub(crate) struct Log {
    pub(crate) options: Topic,
    messages: BTreeMap<u32, Entry>,
    /// Which message was published first with a dedup id, and when.
    once: HashMap<String, (MessageId, Duration)>,
    /// What is not due yet, in the order in which it will enter.
    scheduled: BTreeSet<(Duration, u32)>,
    /// All that entered, in this order.
    entered: Vec<u32>,
}

/// A message that was published.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) number: u32,
    pub(crate) id: MessageId,
    pub(crate) key: Option<String>,
    pub(crate) published: Duration,
    /// As the consumers saw it.
    position: Option<Position>,
}

impl Log {
    pub(crate) fn new(options: Topic) -> Self {
        Self {
            options,
            messages: BTreeMap::new(),
            once: HashMap::new(),
            scheduled: BTreeSet::new(),
            entered: Vec::new(),
        }
    }

    /// Takes what was published, all or nothing, and returns what enters at once.
    pub(crate) fn publish(
        &mut self,
        at: Duration,
        drafts: &[Draft],
        outcome: &Outcome<Vec<MessageId>>,
    ) -> Verdict<Vec<Entry>> {
        let ids = match outcome {
            Ok(ids) => ids,
            Err(ErrorKind::Invalid) if drafts.iter().any(Draft::is_invalid) => return Ok(Vec::new()),
            Err(error) => return Err(format!("publishing failed: {error:?}")),
        };
        ensure!(!drafts.iter().any(Draft::is_invalid), "an invalid message was published");
        ensure!(ids.len() == drafts.len(), "{} messages got {} ids", drafts.len(), ids.len());
        let mut entering = Vec::new();
        for (draft, id) in drafts.iter().zip(ids) {
            if let Some(first) = self.first_with(draft, id, at) {
                ensure!(first == *id, "message {} repeats {first:?} and got {id:?}", draft.number);
                continue;
            }
            ensure!(self.messages.values().all(|known| known.id != *id), "{id:?} was given twice");
            let entry =
                Entry { number: draft.number, id: id.clone(), key: draft.key.clone(), published: at, position: None };
            self.messages.insert(entry.number, entry.clone());
            match draft.delay.filter(|delay| !delay.is_zero()) {
                Some(delay) => {
                    self.scheduled.insert((at + delay, entry.number));
                }
                None => {
                    self.entered.push(entry.number);
                    entering.push(entry);
                }
            }
        }
        Ok(entering)
    }

    /// The id of the first message with the same dedup id within the window, or else remembers this one as the first.
    fn first_with(&mut self, draft: &Draft, id: &MessageId, at: Duration) -> Option<MessageId> {
        let dedup_id = draft.dedup_id.as_ref()?;
        let known = self.once.get(dedup_id).filter(|(_, first)| at < *first + self.options.dedup_window());
        if let Some((first, _)) = known {
            return Some(first.clone());
        }
        self.once.insert(dedup_id.clone(), (id.clone(), at));
        None
    }

    /// Lets the next scheduled message that is due enter, and says when it did.
    pub(crate) fn enter_next(&mut self, by: Duration) -> Option<(Duration, Entry)> {
        let next = self.scheduled.first().filter(|(due, _)| *due <= by)?;
        let (due, number) = *next;
        self.scheduled.pop_first();
        self.entered.push(number);
        Some((due, self.messages[&number].clone()))
    }

    /// A message has one id and one position, whoever gets it.
    pub(crate) fn recognize(&mut self, seen: &Seen) -> Verdict {
        let number = seen.number;
        let Some(known) = self.messages.get_mut(&number) else {
            return Err(format!("message {number} ({:?}) was never published", seen.id));
        };
        let scheduled = self.scheduled.iter().any(|(_, scheduled)| *scheduled == number);
        ensure!(!scheduled, "message {number} comes before the time for which it is scheduled");
        ensure!(known.id == seen.id, "message {number} was published as {:?} and came as {:?}", known.id, seen.id);
        let position = known.position.get_or_insert_with(|| seen.position.clone());
        ensure!(*position == seen.position, "message {number} was at {position:?} and is at {:?}", seen.position);
        Ok(())
    }

    /// Positions compare as the messages entered.
    pub(crate) fn check_positions(&self) -> Verdict {
        let known = self.entered.iter().filter_map(|number| Some((number, self.messages[number].position.as_ref()?)));
        let known: Vec<_> = known.collect();
        match known.windows(2).find(|pair| pair[0].1 >= pair[1].1) {
            Some(pair) => Err(format!("the positions of messages {} and {} are inverted", pair[0].0, pair[1].0)),
            None => Ok(()),
        }
    }
}
