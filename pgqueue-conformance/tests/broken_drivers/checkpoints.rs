//! Stores that do not keep checkpoints as they should.

use std::time::SystemTime;

use async_trait::async_trait;
use pgqueue_core::{Checkpoint, CheckpointStore, Position, Result};

use crate::{caught, flaw::Flaw};

/// Moves a checkpoint from wherever it stands.
async fn put(store: &dyn CheckpointStore, name: &str, to: Option<&Position>) -> Result<()> {
    match (store.checkpoint(name).await?, to) {
        (Some(standing), to) => store.reset_checkpoint(name, &standing.position, to).await,
        (None, Some(to)) => store.advance_checkpoint(name, to).await.map(drop),
        (None, None) => Ok(()),
    }
}

struct MovesCheckpointsBack;

#[async_trait]
impl Flaw for MovesCheckpointsBack {
    async fn advance_checkpoint(&self, store: &dyn CheckpointStore, name: &str, position: &Position) -> Result<bool> {
        put(store, name, Some(position)).await.map(|()| true)
    }
}

#[test]
fn moves_checkpoints_back() {
    caught(
        || MovesCheckpointsBack,
        &[
            "checkpoint::it_moves_forward_only",
            "checkpoint::it_survives_reopening",
            "checkpoint::of_many_at_once_the_furthest_stands",
        ],
    );
}

struct ForgetsCheckpoints;

#[async_trait]
impl Flaw for ForgetsCheckpoints {
    async fn advance_checkpoint(&self, _: &dyn CheckpointStore, _: &str, _: &Position) -> Result<bool> {
        Ok(true)
    }
}

#[test]
fn forgets_checkpoints() {
    caught(
        || ForgetsCheckpoints,
        &[
            "checkpoint::it_moves_forward_only",
            "checkpoint::it_survives_reopening",
            "checkpoint::it_is_reset_from_where_it_stands",
            "checkpoint::it_is_deleted_by_a_reset_to_nothing",
            "checkpoint::all_are_listed_by_name",
            "checkpoint::unusable_names_are_refused",
            "checkpoint::a_subscription_resumes_right_behind_it",
        ],
    );
}

struct ResetsWhateverStands;

#[async_trait]
impl Flaw for ResetsWhateverStands {
    async fn reset_checkpoint(
        &self,
        store: &dyn CheckpointStore,
        name: &str,
        _: &Position,
        to: Option<&Position>,
    ) -> Result<()> {
        put(store, name, to).await
    }
}

#[test]
fn resets_whatever_stands() {
    caught(
        || ResetsWhateverStands,
        &["checkpoint::it_is_reset_from_where_it_stands", "checkpoint::it_is_deleted_by_a_reset_to_nothing"],
    );
}

struct InventsCheckpoints;

#[async_trait]
impl Flaw for InventsCheckpoints {
    async fn checkpoint(&self, store: &dyn CheckpointStore, name: &str) -> Result<Option<Checkpoint>> {
        let zero = || Checkpoint::new(name, Position::new(""), SystemTime::UNIX_EPOCH);
        Ok(store.checkpoint(name).await?.or_else(|| Some(zero())))
    }
}

#[test]
fn invents_checkpoints() {
    caught(
        || InventsCheckpoints,
        &["checkpoint::unknown_name_is_none", "checkpoint::it_is_deleted_by_a_reset_to_nothing"],
    );
}
