//! Several instances of one service write to a topic and read it at the same time, each over connections of its own.
//!
//! Every instance writes in transactions of several messages, some of which stay open for long, commit out of order, or roll back.
//! Subscriptions that start at the beginning, or strictly after a position, are inserted before, during and after the writes; two
//! instances consume each. What a subscription got is checked against what was committed, and in stable total order against what
//! all others got, by a chain of hashes.

mod audit;
mod backend;
#[path = "../both_clients.rs"]
mod both_clients;
mod chain;
mod ledger;
mod pace;
mod world;
mod writer;

use std::time::Duration;

use pgqueue_core::{Order, Start};

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    chain::Chain,
    world::{World, server},
};

/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// For how long nothing may come once everything has come.
const QUIET: Duration = Duration::from_millis(400);

/// How many instances there are, from one history to the next.
const INSTANCES: [usize; 3] = [2, 5, 10];

/// From how many of its positions the finished history is read once more.
const READ_AGAIN: usize = 4;

on_both_clients!(
    in_stable_total_order_everybody_is_told_the_same_history,
    by_key_nothing_is_lost_and_keys_keep_their_order,
    unordered_nothing_is_lost,
);

async fn in_stable_total_order_everybody_is_told_the_same_history<C: Backend>() {
    let server = server().await;
    for instances in INSTANCES {
        let mut world = World::<C>::start(&server, Order::StableTotal, instances).await;
        let ledger = world.live().await;
        let told = world.audits()[0].messages();
        assert!(told.is_sorted_by_key(|message| message.position()), "positions do not rise");

        let whole = Chain::of(&told);
        let suffix = Chain::of(&told[World::<C>::passed()..]);
        for audit in world.audits() {
            audit.assert_complete(&ledger);
            let expected = if audit.starts_at_the_beginning() { &whole } else { &suffix };
            Chain::of(&audit.messages()).assert_is(expected, audit.name());
        }

        world.rest().await;
        for n in (0..told.len() - 1).step_by(told.len() / READ_AGAIN) {
            let audit = world.follow(0, &format!("behind {n}"), Start::After(told[n].position().clone()), n + 1).await;
            world.wait_for(&audit, told.len() - n - 1).await;
            Chain::of(&audit.messages()).assert_is(&Chain::of(&told[n + 1..]), audit.name());
        }
    }
}

async fn by_key_nothing_is_lost_and_keys_keep_their_order<C: Backend>() {
    let server = server().await;
    for instances in INSTANCES {
        let mut world = World::<C>::start(&server, Order::ByKey, instances).await;
        let ledger = world.live().await;
        for audit in world.audits() {
            audit.assert_complete(&ledger);
            audit.assert_keys_in_order(&ledger);
        }
    }
}

async fn unordered_nothing_is_lost<C: Backend>() {
    let server = server().await;
    for instances in INSTANCES {
        let mut world = World::<C>::start(&server, Order::Unordered, instances).await;
        let ledger = world.live().await;
        for audit in world.audits() {
            audit.assert_complete(&ledger);
        }
    }
}
