//! Where subscriptions start.

use pgqueue_core::{ConsumeStream, ErrorKind, NewMessage, Order, Position, Retention, Start, Subscription, Topic};

use crate::{
    expect::refused,
    failure::{CaseResult, check, check_eq},
    kit::{Kit, TOPIC, numbered, text_of},
};

/// Texts that are positions of no store.
pub(super) const UNKNOWN_POSITIONS: [&str; 9] =
    ["", "nowhere", "-1", "9999999999999999999", "1-1", "1-1-1", "1-2-3:2:", "' or true", "1-2-2:2:2-"];

/// Lets the topic keep what it gets.
pub(super) async fn retain(kit: &Kit) -> CaseResult {
    Ok(kit.harness().create_topic(Topic::new(TOPIC).with_retention(Retention::everything())).await?)
}

fn starting(kit: &Kit, name: &str, start: Start) -> Subscription {
    kit.subscription_named(name).with_order(Order::Total).with_start(start)
}

/// Takes so many, and returns their positions.
pub(super) async fn positions(kit: &Kit, stream: &mut ConsumeStream, texts: &[String]) -> CaseResult<Vec<Position>> {
    let mut positions = Vec::new();
    for text in texts {
        let delivery = kit.receive(stream, text).await?;
        positions.push(delivery.message().position().clone());
        delivery.ok().await?;
    }
    Ok(positions)
}

pub(super) async fn the_beginning_is_what_the_topic_retains(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let texts = numbered(30);
    kit.publish(&texts[..20]).await?;
    let mut first = kit.consume(&starting(kit, "first", Start::Beginning)).await?;
    kit.handle(&mut first, &texts[..20]).await?;
    kit.publish(&texts[20..]).await?;
    kit.handle(&mut first, &texts[20..]).await?;
    kit.handle(&mut kit.consume(&starting(kit, "second", Start::Beginning)).await?, &texts).await
}

pub(super) async fn now_is_what_comes_later(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    kit.publish(["early"]).await?;
    let mut stream = kit.consume(&starting(kit, "late", Start::Now)).await?;
    kit.publish(["late"]).await?;
    kit.handle(&mut stream, ["late"]).await?;
    kit.nothing(&mut stream).await
}

pub(super) async fn after_a_position_comes_what_is_behind_it(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let texts = numbered(12);
    kit.publish(&texts[..10]).await?;
    let mut stream = kit.consume(&starting(kit, "all", Start::Beginning)).await?;
    let positions = positions(kit, &mut stream, &texts[..10]).await?;
    check!(positions.is_sorted(), "positions are {positions:?}");
    for (n, position) in positions.iter().enumerate() {
        let subscription = starting(kit, &format!("after {n}"), Start::After(position.clone()));
        kit.handle(&mut kit.consume(&subscription).await?, &texts[n + 1..10]).await?;
    }
    kit.publish(&texts[10..]).await?;
    let last = starting(kit, "after 9", Start::Now);
    kit.handle(&mut kit.consume(&last).await?, &texts[10..]).await
}

pub(super) async fn positions_stay_with_their_messages(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let texts = numbered(3);
    kit.publish(&texts).await?;
    let mut stream = kit.consume(&starting(kit, "all", Start::Beginning)).await?;
    let delivery = kit.receive(&mut stream, &texts[0]).await?;
    let position = delivery.message().position().clone();
    delivery.requeue().await?;
    let again = kit.receive(&mut stream, &texts[0]).await?;
    check_eq!(again.message().position(), &position, "the position of a message that comes again");
    again.ok().await?;
    let stored = position.as_str().to_owned();
    let start = Start::After(Position::new(stored));
    kit.handle(&mut kit.consume(&starting(kit, "after", start)).await?, &texts[1..]).await
}

pub(super) async fn the_start_counts_once(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let texts = numbered(5);
    kit.publish(&texts).await?;
    let subscription = starting(kit, "subscription", Start::Beginning);
    kit.handle(&mut kit.consume(&subscription).await?, &texts).await?;
    kit.nothing(&mut kit.consume(&subscription).await?).await
}

pub(super) async fn unknown_positions_are_refused(kit: &Kit) -> CaseResult {
    for text in UNKNOWN_POSITIONS {
        let start = Start::After(Position::new(text));
        let driver = kit.harness().driver(starting(kit, "nowhere", start)).await?;
        refused(driver.insert_subscription().await, ErrorKind::Invalid, &format!("starting after {text:?}"))?;
    }
    // Nothing was made of it.
    let mut stream = kit.consume(&starting(kit, "nowhere", Start::Now)).await?;
    kit.publish(["a"]).await?;
    kit.handle(&mut stream, ["a"]).await
}

/// What was in progress when a message was handed out comes behind it, whenever somebody starts there.
pub(super) async fn late_commits_come_after_every_position_before(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let mut stream = kit.consume(&starting(kit, "all", Start::Now)).await?;
    let late = kit.harness().publish_uncommitted(TOPIC, vec![NewMessage::new("late")]).await?;
    let texts = numbered(4);
    kit.publish(&texts[..2]).await?;
    let mut places = positions(kit, &mut stream, &texts[..2]).await?;
    late.commit().await?;
    kit.publish(&texts[2..]).await?;
    places.extend(positions(kit, &mut stream, &["late".to_owned(), texts[2].clone()]).await?);

    let behind: [&[_]; 4] =
        [&["0001", "0002", "0003", "late"], &["0002", "0003", "late"], &["0002", "0003"], &["0003"]];
    for (n, (position, wanted)) in places.into_iter().zip(behind).enumerate() {
        let mut stream = kit.consume(&starting(kit, &format!("after {n}"), Start::After(position))).await?;
        check_eq!(kit.drain(&mut stream, wanted.len()).await?, wanted, "what comes after a position");
        kit.nothing(&mut stream).await?;
    }
    Ok(())
}

/// Whoever starts, whenever and wherever, gets the same in the same order, also what was committed late.
pub(super) async fn stable_total_order_is_the_same_for_everyone(kit: &Kit) -> CaseResult {
    retain(kit).await?;
    let stable = |name: &str, start: Start| starting(kit, name, start).with_order(Order::StableTotal);
    kit.publish(["before"]).await?;
    let mut stream = kit.consume(&stable("from now", Start::Now)).await?;
    let late = kit.harness().publish_uncommitted(TOPIC, vec![NewMessage::new("late")]).await?;
    let texts = numbered(8);
    kit.publish(&texts[..5]).await?;
    kit.nothing(&mut stream).await?; // as the late one may come before
    late.commit().await?;
    kit.publish(&texts[5..]).await?;

    let mut seen = Vec::new();
    for _ in 0..9 {
        let delivery = kit.next(&mut stream).await?;
        seen.push((text_of(delivery.message()), delivery.message().position().clone()));
        delivery.ok().await?;
    }
    kit.nothing(&mut stream).await?;
    check!(seen.is_sorted_by_key(|(_, position)| position), "positions do not rise: {seen:?}");
    let all: Vec<_> = seen.iter().map(|(text, _)| text.clone()).collect();
    let mut from_the_beginning = kit.consume(&stable("from the beginning", Start::Beginning)).await?;
    kit.handle(&mut from_the_beginning, ["before"]).await?;
    kit.handle(&mut from_the_beginning, &all).await?;
    for (n, (_, position)) in seen.iter().enumerate() {
        let mut stream = kit.consume(&stable(&format!("after {n}"), Start::After(position.clone()))).await?;
        kit.handle(&mut stream, &all[n + 1..]).await?;
    }
    Ok(())
}

/// Nobody has to publish again for what waited to come.
pub(super) async fn stable_total_order_goes_on_when_the_last_writer_ends(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription().with_order(Order::StableTotal)).await?;
    for commits in [false, true] {
        let late = kit.harness().publish_uncommitted(TOPIC, vec![NewMessage::new("late")]).await?;
        kit.publish(["waits"]).await?;
        kit.nothing(&mut stream).await?;
        if commits {
            late.commit().await?;
            kit.handle(&mut stream, ["late"]).await?;
        } else {
            late.rollback().await?;
        }
        kit.handle(&mut stream, ["waits"]).await?;
    }
    kit.nothing(&mut stream).await
}
