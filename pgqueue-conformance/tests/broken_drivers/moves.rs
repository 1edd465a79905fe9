//! Stores that do not move subscriptions as they should.

use std::{collections::HashMap, sync::Mutex};

use async_trait::async_trait;
use pgqueue_conformance::Harness;
use pgqueue_core::{Ack, Delivery, Message, Result, Start, Subscription};

use crate::{
    caught,
    flaw::{Consumer, Flaw, Unclaimed},
    support::{SimulatedStore, lock},
};

struct MovesNothing;

#[async_trait]
impl Flaw for MovesNothing {
    async fn seek(&self, _: &SimulatedStore, _: &str, _: &Start) -> Result<()> {
        Ok(())
    }
}

#[test]
fn moves_nothing() {
    caught(
        || MovesNothing,
        &[
            "seek::moved_to_the_beginning_it_gets_all_again",
            "seek::moved_after_a_position_it_gets_what_is_behind",
            "seek::moved_to_now_it_skips_what_waits",
            "seek::it_stays_while_a_consumer_lives",
            "seek::it_stays_while_it_has_dead_letters",
            "seek::unknown_subscription_is_an_error",
            "seek::unknown_positions_move_nothing",
        ],
    );
}

/// Deletes the subscription and inserts it again, whoever uses it and whatever is lost.
#[derive(Default)]
struct MovesByStartingAnew(Mutex<HashMap<String, Subscription>>);

#[async_trait]
impl Flaw for MovesByStartingAnew {
    async fn insert(&self, consumer: &Consumer) -> Result<()> {
        let Consumer { subscription, driver, .. } = consumer;
        lock(&self.0).insert(subscription.name().to_owned(), subscription.clone());
        driver.insert_subscription().await
    }

    async fn seek(&self, store: &SimulatedStore, name: &str, start: &Start) -> Result<()> {
        store.unsubscribe(name).await?;
        let moved = lock(&self.0).get(name).cloned().expect("inserted").with_start(start.clone());
        store.driver(moved).await?.insert_subscription().await
    }
}

#[test]
fn moves_by_starting_anew() {
    caught(
        MovesByStartingAnew::default,
        &[
            "seek::it_stays_while_a_consumer_lives",
            "seek::it_stays_while_it_has_dead_letters",
            "seek::unknown_positions_move_nothing",
        ],
    );
}

#[derive(Default)]
struct HandsOutWhatWasInHand {
    in_hand: Mutex<Vec<Message>>,
    /// What was in hand when its subscription was moved.
    kept: Mutex<Vec<Message>>,
}

impl HandsOutWhatWasInHand {
    fn forget(&self, delivery: &Delivery) {
        lock(&self.in_hand).retain(|message| message.id() != delivery.message().id());
    }
}

#[async_trait]
impl Flaw for HandsOutWhatWasInHand {
    async fn fetch(&self, consumer: &Consumer) -> Result<Option<Delivery>> {
        if let Some(delivery) = consumer.driver.fetch_pending().await? {
            lock(&self.in_hand).push(delivery.message().clone());
            return Ok(Some(delivery));
        }
        Ok(lock(&self.kept).pop().map(|message| Delivery::new(message, Unclaimed)))
    }

    async fn settle(&self, delivery: Delivery, ack: Ack) -> Result<()> {
        self.forget(&delivery);
        delivery.settle(ack).await
    }

    fn release(&self, delivery: Delivery) {
        self.forget(&delivery);
    }

    async fn seek(&self, store: &SimulatedStore, subscription: &str, start: &Start) -> Result<()> {
        store.seek(subscription, start).await?;
        lock(&self.kept).append(&mut lock(&self.in_hand));
        Ok(())
    }
}

#[test]
fn hands_out_what_was_in_hand() {
    caught(HandsOutWhatWasInHand::default, &["seek::what_was_in_hand_is_forgotten"]);
}
