//! Subscriptions that are moved to another start.

use pgqueue_core::{Ack, ErrorKind, Order, Position, Start, Subscription};

use super::start::{UNKNOWN_POSITIONS, positions, retain};
use crate::{
    expect::refused,
    failure::{CaseResult, check_eq},
    kit::{Kit, LEASE, numbered},
};

fn total(kit: &Kit) -> Subscription {
    kit.subscription().with_order(Order::Total)
}

pub(super) async fn moved_to_the_beginning_it_gets_all_again(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let texts = numbered(8);
    let mut stream = kit.consume(&total(kit)).await?;
    kit.publish(&texts[..6]).await?;
    kit.handle(&mut stream, &texts[..6]).await?;
    drop(stream);
    kit.seek(&total(kit), Start::Beginning).await??;

    let mut stream = kit.consume(&total(kit)).await?;
    kit.handle(&mut stream, &texts[..6]).await?;
    kit.publish(&texts[6..]).await?;
    kit.handle(&mut stream, &texts[6..]).await?;
    kit.nothing(&mut stream).await
}

pub(super) async fn moved_after_a_position_it_gets_what_is_behind(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let texts = numbered(5);
    let mut stream = kit.consume(&total(kit)).await?;
    kit.publish(&texts).await?;
    let places = positions(kit, &mut stream, &texts).await?;
    drop(stream);
    for (n, place) in places.into_iter().enumerate().rev() {
        kit.seek(&total(kit), Start::After(place)).await??;
        let mut stream = kit.consume(&total(kit)).await?;
        kit.handle(&mut stream, &texts[n + 1..]).await?;
        kit.nothing(&mut stream).await?;
    }
    Ok(())
}

pub(super) async fn moved_to_now_it_skips_what_waits(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let texts = numbered(6);
    let mut stream = kit.consume(&total(kit)).await?;
    kit.publish(&texts[..5]).await?;
    kit.handle(&mut stream, &texts[..2]).await?;
    kit.receive(&mut stream, &texts[2]).await?.requeue().await?;
    drop(stream);
    kit.seek(&total(kit), Start::Now).await??;

    let mut stream = kit.consume(&total(kit)).await?;
    kit.nothing(&mut stream).await?;
    kit.publish(&texts[5..]).await?;
    kit.handle(&mut stream, &texts[5..]).await?;
    kit.nothing(&mut stream).await
}

/// Or it would come twice.
pub(super) async fn what_was_in_hand_is_forgotten(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let subscription = total(kit).with_lease(LEASE);
    let mut stream = kit.consume(&subscription).await?;
    kit.publish(["a", "b"]).await?;
    let _abandoned = kit.receive(&mut stream, "a").await?;
    kit.harness().crash_consumers().await?;
    kit.seek(&subscription, Start::Beginning).await??;

    let mut stream = kit.consume(&subscription).await?;
    kit.handle(&mut stream, ["a", "b"]).await?;
    kit.nothing_for(&mut stream, 2 * LEASE).await
}

pub(super) async fn it_stays_while_a_consumer_lives(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let mut stream = kit.consume(&total(kit)).await?;
    kit.publish(["a", "b"]).await?;
    kit.handle(&mut stream, ["a"]).await?;
    for start in [Start::Beginning, Start::Now] {
        let moved = kit.harness().seek(total(kit).name(), &start).await;
        refused(moved, ErrorKind::Conflict, "moving a subscription while a consumer lives")?;
    }
    kit.handle(&mut stream, ["b"]).await?;
    kit.nothing(&mut stream).await
}

pub(super) async fn it_stays_while_it_has_dead_letters(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let mut stream = kit.consume(&total(kit)).await?;
    kit.publish(["a", "b"]).await?;
    kit.receive(&mut stream, "a").await?.settle(Ack::reject("bad")).await?;
    kit.handle(&mut stream, ["b"]).await?;
    kit.dead_letters(&total(kit), 1).await?;
    drop(stream);
    kit.harness().pass(kit.harness().quiet()).await; // so that the consumer is not to blame
    let moved = kit.harness().seek(total(kit).name(), &Start::Beginning).await;
    refused(moved, ErrorKind::Conflict, "moving a subscription that has dead letters")?;
    kit.dead_letters(&total(kit), 1).await?;

    check_eq!(kit.harness().redrive(total(kit).name()).await?, 1, "the number of redriven dead letters");
    kit.seek(&total(kit), Start::Beginning).await??;
    let mut stream = kit.consume(&total(kit)).await?;
    kit.handle(&mut stream, ["a", "b"]).await?;
    kit.nothing(&mut stream).await
}

pub(super) async fn unknown_subscription_is_an_error(kit: &Kit) -> CaseResult {
    let moved = kit.harness().seek("nobody", &Start::Now).await;
    refused(moved, ErrorKind::NotFound, "moving a subscription that does not exist")
}

pub(super) async fn unknown_positions_move_nothing(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let texts = numbered(4);
    let mut stream = kit.consume(&total(kit)).await?;
    kit.publish(&texts).await?;
    kit.handle(&mut stream, &texts[..2]).await?;
    drop(stream);
    for text in UNKNOWN_POSITIONS {
        let moved = kit.seek(&total(kit), Start::After(Position::new(text))).await?;
        refused(moved, ErrorKind::Invalid, &format!("moving a subscription after {text:?}"))?;
    }
    let mut stream = kit.consume(&total(kit)).await?;
    kit.handle(&mut stream, &texts[2..]).await?;
    kit.nothing(&mut stream).await
}
