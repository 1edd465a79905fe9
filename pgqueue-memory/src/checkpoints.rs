//! The checkpoints of a queue. They are cumulative, as every order of this queue is stable.

use std::collections::BTreeMap;

use async_trait::async_trait;
use pgqueue_core::{Checkpoint, CheckpointStore, Error, ErrorKind, Position, Result};

use crate::{
    clock::Now,
    queue::{MemoryQueue, managing},
};

#[derive(Debug, Default)]
pub(crate) struct Checkpoints(BTreeMap<String, Checkpoint>);

impl Checkpoints {
    fn advance(&mut self, name: &str, position: &Position, now: Now) -> Result<bool> {
        if self.0.get(name).is_some_and(|standing| standing.position >= *position) {
            return Ok(false);
        }
        self.put(name, position, now)?;
        Ok(true)
    }

    fn reset(&mut self, name: &str, from: &Position, to: Option<&Position>, now: Now) -> Result<()> {
        let Some(standing) = self.0.get(name) else {
            return Err(Error::new(ErrorKind::NotFound, format!("checkpoint {name:?} does not exist")));
        };
        if standing.position != *from {
            let stands = &standing.position;
            let message =
                format!("checkpoint {name:?} stands at {stands} and not at {from}; look again before moving it");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        if let Some(position) = to {
            return self.put(name, position, now);
        }
        self.0.remove(name);
        Ok(())
    }

    fn put(&mut self, name: &str, position: &Position, now: Now) -> Result<()> {
        let checkpoint = Checkpoint::new(name, position.clone(), now.time);
        checkpoint.validate()?;
        self.0.insert(name.to_owned(), checkpoint);
        Ok(())
    }
}

#[async_trait]
impl CheckpointStore for MemoryQueue {
    async fn checkpoint(&self, name: &str) -> Result<Option<Checkpoint>> {
        Ok(self.store.lock().0.checkpoints.0.get(name).cloned())
    }

    async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        Ok(self.store.lock().0.checkpoints.0.values().cloned().collect())
    }

    async fn advance_checkpoint(&self, name: &str, position: &Position) -> Result<bool> {
        let (mut state, now) = self.store.lock();
        managing(state.checkpoints.advance(name, position, now))
    }

    async fn reset_checkpoint(&self, name: &str, from: &Position, to: Option<&Position>) -> Result<()> {
        let (mut state, now) = self.store.lock();
        managing(state.checkpoints.reset(name, from, to, now))
    }
}
