//! The checkpoints of a queue. They are cumulative, as every order of this queue is stable.

use std::collections::BTreeMap;

use async_trait::async_trait;
use pgqueue_core::{Checkpoint, CheckpointStore, Position, Result};

use crate::{
    clock::Now,
    queue::{MemoryQueue, managing, noted},
};

#[derive(Debug, Default)]
pub(crate) struct Checkpoints(BTreeMap<String, Checkpoint>);

impl Checkpoints {
    fn advance(&mut self, name: &str, position: &Position, now: Now) -> Result<bool> {
        if self.0.get(name).is_some_and(|standing| standing.position >= *position) {
            return Ok(false);
        }
        Checkpoint::validate_name(name)?;
        self.put(name, position, now);
        Ok(true)
    }

    fn reset(&mut self, name: &str, from: &Position, to: Option<&Position>, now: Now) -> Result<()> {
        Checkpoint::ensure_reset(name, from, self.0.get(name).map(|standing| &standing.position))?;
        match to {
            Some(position) => self.put(name, position, now),
            None => drop(self.0.remove(name)),
        }
        Ok(())
    }

    fn put(&mut self, name: &str, position: &Position, now: Now) {
        self.0.insert(name.to_owned(), Checkpoint::new(name, position.clone(), now.time));
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
        let advanced = {
            let (mut state, now) = self.store.lock();
            managing(state.checkpoints.advance(name, position, now))?
        };
        if advanced {
            tracing::trace!(messaging.system = "pgqueue", name, "a checkpoint was advanced");
        }
        Ok(advanced)
    }

    async fn reset_checkpoint(&self, name: &str, from: &Position, to: Option<&Position>) -> Result<()> {
        let reset = {
            let (mut state, now) = self.store.lock();
            state.checkpoints.reset(name, from, to, now)
        };
        noted(reset, "a checkpoint was reset", name)
    }
}
