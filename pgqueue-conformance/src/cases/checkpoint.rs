//! Positions that are stored under a name: they move forward, and back only on purpose.

use std::sync::Arc;

use pgqueue_core::{Checkpoint, CheckpointStore, ErrorKind, MAX_NAME_BYTES, Order, Position, Start, Subscription};
use tokio::{sync::Barrier, task::JoinSet};

use super::start::{positions, retain};
use crate::{
    expect::refused,
    failure::{CaseFailure, CaseResult, chain, check, check_eq},
    kit::{Kit, numbered},
};

const NAME: &str = "checkpoint";

fn stable(kit: &Kit) -> Subscription {
    kit.subscription().with_order(Order::StableTotal)
}

/// The positions of so many messages.
async fn places(kit: &Kit, count: usize) -> CaseResult<Vec<Position>> {
    let mut stream = kit.consume(&stable(kit)).await?;
    let texts = numbered(count);
    kit.publish(&texts).await?;
    positions(kit, &mut stream, &texts).await
}

/// Where a checkpoint stands.
async fn standing(store: &dyn CheckpointStore, name: &str) -> CaseResult<Option<Position>> {
    let checkpoint = store.checkpoint(name).await?;
    if let Some(checkpoint) = &checkpoint {
        check_eq!(checkpoint.name, name, "the name of a checkpoint");
    }
    Ok(checkpoint.map(|checkpoint| checkpoint.position))
}

pub(super) async fn unknown_name_is_none(kit: &Kit) -> CaseResult {
    let store = kit.harness().checkpoints().await?;
    check_eq!(store.checkpoint("nobody").await?, None, "a checkpoint that nobody made");
    check_eq!(store.checkpoints().await?, Vec::<Checkpoint>::new(), "the list of no checkpoints");
    Ok(())
}

pub(super) async fn it_moves_forward_only(kit: &Kit) -> CaseResult {
    let (store, places) = (kit.harness().checkpoints().await?, places(kit, 3).await?);
    for (to, moves, stands) in [(1, true, 1), (1, false, 1), (0, false, 1), (2, true, 2), (0, false, 2)] {
        let moved = store.advance_checkpoint(NAME, &places[to]).await?;
        check!(moved == moves, "a checkpoint that {} to place {to}", if moved { "moved" } else { "did not move" });
        check_eq!(standing(&*store, NAME).await?.as_ref(), Some(&places[stands]), "where it stands");
    }
    Ok(())
}

pub(super) async fn it_survives_reopening(kit: &Kit) -> CaseResult {
    let (store, places) = (kit.harness().checkpoints().await?, places(kit, 2).await?);
    store.advance_checkpoint(NAME, &places[1]).await?;
    drop(store);
    kit.harness().reopen().await?;
    let store = kit.harness().checkpoints().await?;
    check_eq!(standing(&*store, NAME).await?.as_ref(), Some(&places[1]), "where it stands after reopening");
    check!(!store.advance_checkpoint(NAME, &places[0]).await?, "a checkpoint moved back after reopening");
    Ok(())
}

pub(super) async fn it_is_reset_from_where_it_stands(kit: &Kit) -> CaseResult {
    let (store, places) = (kit.harness().checkpoints().await?, places(kit, 3).await?);
    let nobody = store.reset_checkpoint("nobody", &places[0], Some(&places[1])).await;
    refused(nobody, ErrorKind::NotFound, "resetting a checkpoint that nobody made")?;
    store.advance_checkpoint(NAME, &places[1]).await?;
    for (from, to) in [(0, Some(0)), (2, Some(2)), (0, None)] {
        let reset = store.reset_checkpoint(NAME, &places[from], to.map(|to| &places[to])).await;
        refused(reset, ErrorKind::Conflict, "resetting a checkpoint from where it does not stand")?;
        check_eq!(standing(&*store, NAME).await?.as_ref(), Some(&places[1]), "where it stands after a refusal");
    }

    store.reset_checkpoint(NAME, &places[1], Some(&places[0])).await?;
    check_eq!(standing(&*store, NAME).await?.as_ref(), Some(&places[0]), "where it stands after a reset");
    let twice = store.reset_checkpoint(NAME, &places[1], Some(&places[0])).await;
    refused(twice, ErrorKind::Conflict, "resetting a checkpoint again")?;
    check!(store.advance_checkpoint(NAME, &places[1]).await?, "a checkpoint that does not move again after a reset");
    Ok(())
}

pub(super) async fn it_is_deleted_by_a_reset_to_nothing(kit: &Kit) -> CaseResult {
    let (store, places) = (kit.harness().checkpoints().await?, places(kit, 2).await?);
    store.advance_checkpoint(NAME, &places[1]).await?;
    store.reset_checkpoint(NAME, &places[1], None).await?;
    check_eq!(store.checkpoint(NAME).await?, None, "a deleted checkpoint");
    let again = store.reset_checkpoint(NAME, &places[1], None).await;
    refused(again, ErrorKind::NotFound, "deleting a checkpoint again")?;
    check!(store.advance_checkpoint(NAME, &places[0]).await?, "a deleted checkpoint that cannot start anew");
    Ok(())
}

pub(super) async fn all_are_listed_by_name(kit: &Kit) -> CaseResult {
    let (store, places) = (kit.harness().checkpoints().await?, places(kit, 2).await?);
    for (name, place) in [("b", 0), ("c", 1), ("a", 1)] {
        store.advance_checkpoint(name, &places[place]).await?;
    }
    let listed = store.checkpoints().await?;
    let listed: Vec<_> = listed.iter().map(|listed| (&*listed.name, &listed.position)).collect();
    check_eq!(listed, [("a", &places[1]), ("b", &places[0]), ("c", &places[1])], "the list of all checkpoints");
    Ok(())
}

pub(super) async fn unusable_names_are_refused(kit: &Kit) -> CaseResult {
    let (store, places) = (kit.harness().checkpoints().await?, places(kit, 1).await?);
    for name in ["", "a\0b", &"x".repeat(MAX_NAME_BYTES + 1)] {
        let advanced = store.advance_checkpoint(name, &places[0]).await;
        refused(advanced, ErrorKind::Invalid, &format!("a checkpoint named {name:?}"))?;
    }
    check_eq!(store.checkpoints().await?, Vec::<Checkpoint>::new(), "the list of checkpoints that were refused");
    for name in ["it's", "naïve ☃", " ", "%", &"x".repeat(MAX_NAME_BYTES)] {
        store.advance_checkpoint(name, &places[0]).await?;
        check_eq!(standing(&*store, name).await?.as_ref(), Some(&places[0]), "where one of an unusual name stands");
    }
    Ok(())
}

pub(super) async fn of_many_at_once_the_furthest_stands(kit: &Kit) -> CaseResult {
    const MOVERS: usize = 4;
    let (store, places) = (kit.harness().checkpoints().await?, places(kit, 12).await?);
    let start = Arc::new(Barrier::new(MOVERS));
    let mut movers = JoinSet::new();
    for mover in 0..MOVERS {
        let (store, places, start) = (Arc::clone(&store), places.clone(), Arc::clone(&start));
        movers.spawn(async move {
            start.wait().await;
            let mut moved = Vec::new();
            for (n, place) in places.iter().enumerate() {
                // Each begins elsewhere, so that some come late with what others have passed.
                if (n + mover) % 3 != 0 && store.advance_checkpoint(NAME, place).await? {
                    moved.push(n);
                }
                tokio::task::yield_now().await;
            }
            Ok::<_, CaseFailure>(moved)
        });
    }
    let mut moved = Vec::new();
    while let Some(ended) = movers.join_next().await {
        moved.extend(ended.map_err(|error| CaseFailure::new(format!("a mover's {}", chain(&error))))??);
    }
    moved.sort_unstable();
    check!(moved.is_sorted_by(|one, next| one < next), "two who moved it to the same place: {moved:?}");
    check_eq!(standing(&*store, NAME).await?.as_ref(), places.last(), "where it stands after all");
    Ok(())
}

pub(super) async fn a_subscription_resumes_right_behind_it(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let store = kit.harness().checkpoints().await?;
    for (n, place) in places(kit, 6).await?.iter().enumerate() {
        check!(store.advance_checkpoint(NAME, place).await?, "a checkpoint that does not follow its subscription");
        let Some(stands) = standing(&*store, NAME).await? else {
            return Err(CaseFailure::new("no checkpoint where one was made"));
        };
        let resumed = kit.subscription_named(&format!("after {n}")).with_start(Start::After(stands));
        let mut stream = kit.consume(&resumed.with_order(Order::StableTotal)).await?;
        kit.handle(&mut stream, &numbered(6)[n + 1..]).await?;
        kit.nothing(&mut stream).await?;
    }
    Ok(())
}
