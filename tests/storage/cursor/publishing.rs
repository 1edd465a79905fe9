//! Publishers: what they have open, and what they do next.

use std::ops::Range;

use crate::{deed::Deed, model::Message, world::World};

/// How many keys there are.
const KEYS: u8 = 6;
/// More than the largest claim takes at once.
const GIANT: usize = 260;

#[derive(Default)]
pub(crate) struct Publisher {
    pub(crate) is_open: bool,
    /// What the open transaction has published.
    pub(crate) messages: Vec<usize>,
    /// How many messages there were at each savepoint.
    savepoints: Vec<usize>,
}

impl World<'_> {
    /// Lets a publisher that waits for nothing go on.
    pub(crate) async fn publish_on(&mut self, number: usize) -> Result<(), String> {
        if !self.publishers[number].is_open {
            return match self.open_prepared() {
                Some(prepared) if self.rng.u8(0..3) == 0 => {
                    let commit = self.rng.u8(0..4) > 0;
                    self.end_prepared(number, prepared, commit).await
                }
                _ if self.rng.u8(0..20) == 0 => self.pause(number).await,
                _ => self.begin(number).await,
            };
        }
        let savepoints = self.publishers[number].savepoints.len();
        match self.rng.u32(0..20) {
            0..10 => self.publish(number).await,
            10..12 => {
                let messages = self.publishers[number].messages.len();
                self.publishers[number].savepoints.push(messages);
                self.chore(number, format!("savepoint s{savepoints}")).await
            }
            12 if savepoints > 0 => {
                let to = self.rng.usize(..savepoints);
                let publisher = &mut self.publishers[number];
                publisher.messages.truncate(publisher.savepoints[to]);
                publisher.savepoints.truncate(to + 1);
                self.chore(number, format!("rollback to s{to}")).await
            }
            13 if savepoints > 0 => {
                let to = self.rng.usize(..savepoints);
                self.publishers[number].savepoints.truncate(to);
                self.chore(number, format!("release s{to}")).await
            }
            14 => self.end(number, false).await,
            15 => self.prepare(number).await,
            _ => self.end(number, true).await,
        }
    }

    /// Begins a transaction, sometimes with its number long before it publishes.
    async fn begin(&mut self, number: usize) -> Result<(), String> {
        let early = self.rng.bool();
        self.begin_with(number, early).await
    }

    pub(crate) async fn begin_with(&mut self, number: usize, early: bool) -> Result<(), String> {
        self.publishers[number].is_open = true;
        let early = if early { "; select pg_current_xact_id()" } else { "" };
        self.chore(number, format!("begin{early}")).await
    }

    async fn publish(&mut self, number: usize) -> Result<(), String> {
        let count = match self.rng.u32(0..40) {
            0 => self.rng.usize(GIANT / 2..GIANT),
            1..8 => self.rng.usize(2..30),
            _ => 1,
        };
        let topic = self.rng.usize(..self.topics.len());
        self.publish_in(number, topic, count).await
    }

    pub(crate) async fn publish_in(&mut self, number: usize, topic: usize, count: usize) -> Result<(), String> {
        let keyed = self.rng.u8(0..4) > 0;
        let keys: Vec<_> = (0..count).map(|_| keyed.then(|| self.rng.u8(..KEYS))).collect();
        let messages = self.plan(topic, &keys);
        let payloads: Vec<_> = messages.clone().map(|payload| format!("'{payload}'::bytea")).collect();
        let texts: Vec<_> =
            keys.iter().map(|key| key.map_or("null".to_owned(), |key| format!("'key {key}'"))).collect();
        let kinds: Vec<_> =
            messages.clone().map(|payload| if payload.is_multiple_of(2) { "'even'" } else { "'odd'" }).collect();
        let sql = format!(
            "select unnest(pgqueue.publish_batch('{}', array[{}], array[{}]::text[], array[{}]::text[]))",
            self.topics[topic],
            payloads.join(", "),
            texts.join(", "),
            kinds.join(", ")
        );
        self.start(number, Deed::Publish { publisher: number, messages }, sql).await
    }

    pub(crate) async fn end(&mut self, number: usize, commit: bool) -> Result<(), String> {
        self.publishers[number].savepoints.clear();
        self.publishers[number].is_open = false;
        let sql = if commit { "commit" } else { "rollback" };
        self.start(number, Deed::End { publisher: number, commit }, sql.to_owned()).await
    }

    /// Prepares the transaction, which stays in progress though its session goes on.
    async fn prepare(&mut self, number: usize) -> Result<(), String> {
        self.publishers[number].savepoints.clear();
        self.publishers[number].is_open = false;
        let messages = std::mem::take(&mut self.publishers[number].messages);
        self.prepared.push(Some(messages));
        let gid = self.gid(self.prepared.len() - 1);
        self.chore(number, format!("prepare transaction '{gid}'")).await
    }

    /// One of those that are prepared.
    pub(crate) fn open_prepared(&mut self) -> Option<usize> {
        let open = self.prepared.iter().enumerate().filter(|(_, messages)| messages.is_some());
        let open: Vec<_> = open.map(|(number, _)| number).collect();
        self.rng.choice(open)
    }

    /// Ends what is prepared, in whatever session.
    pub(crate) async fn end_prepared(&mut self, session: usize, number: usize, commit: bool) -> Result<(), String> {
        let (verb, gid) = (if commit { "commit" } else { "rollback" }, self.gid(number));
        self.start(session, Deed::EndPrepared { number, commit }, format!("{verb} prepared '{gid}'")).await
    }

    pub(crate) fn ended_prepared(&mut self, number: usize, commit: bool) {
        for message in self.prepared[number].take().unwrap_or_default() {
            self.model.messages[message].committed = commit.then_some(self.step);
        }
    }

    fn gid(&self, number: usize) -> String {
        format!("{} {number}", self.topics[0])
    }

    /// Nobody consumes for a while, and others draw many transaction ids and message ids meanwhile.
    async fn pause(&mut self, number: usize) -> Result<(), String> {
        let topic = self.rng.usize(..self.topics.len());
        for _ in 0..self.rng.u8(5..30) {
            let early = self.rng.bool();
            self.step += 1;
            self.begin_with(number, early).await?;
            self.publish_in(number, topic, 1).await?;
            let commit = self.rng.u8(0..4) > 0;
            self.end(number, commit).await?;
        }
        Ok(())
    }

    fn plan(&mut self, topic: usize, keys: &[Option<u8>]) -> Range<usize> {
        let (first, began) = (self.model.messages.len(), self.step);
        let planned = keys.iter().map(|key| Message { topic, key: *key, began, ..Message::default() });
        self.model.messages.extend(planned);
        first..first + keys.len()
    }

    pub(crate) fn published(&mut self, number: usize, messages: Range<usize>, ids: &[i64]) -> Result<(), String> {
        if ids.len() != messages.len() || !ids.is_sorted() {
            return Err(format!("{} messages get the ids {ids:?}", messages.len()));
        }
        for (message, id) in messages.clone().zip(ids) {
            self.model.messages[message].id = *id;
            self.model.by_id.insert(*id, message);
        }
        self.publishers[number].messages.extend(messages);
        Ok(())
    }

    pub(crate) fn ended(&mut self, number: usize, commit: bool) {
        for message in std::mem::take(&mut self.publishers[number].messages) {
            self.model.messages[message].committed = commit.then_some(self.step);
        }
    }
}
