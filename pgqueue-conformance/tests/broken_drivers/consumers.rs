//! Drivers that do not know which consumer has its subscription alone.

use std::{collections::HashMap, sync::Mutex};

use async_trait::async_trait;
use pgqueue_core::{Consumers, Delivery, Error, Result, Subscription};

use crate::{
    caught,
    flaw::{Consumer, Flaw},
    support::lock,
};

struct LetsAllCompete;

impl Flaw for LetsAllCompete {
    fn subscription(&self, subscription: Subscription) -> Subscription {
        subscription.with_consumers(Consumers::Competing)
    }
}

#[test]
fn lets_all_compete() {
    caught(
        || LetsAllCompete,
        &[
            "single_active::one_of_three_gets_all",
            "single_active::standby_takes_over_when_the_active_one_leaves",
            "single_active::standby_waits_for_what_is_in_hand",
            "single_active::demoted_consumer_is_refused",
            "single_active::exclusive_subscription_has_one_consumer",
        ],
    );
}

/// Whoever comes first has its subscription for ever.
#[derive(Default)]
struct NeverHandsOver(Mutex<HashMap<String, u64>>);

#[async_trait]
impl Flaw for NeverHandsOver {
    async fn fetch(&self, consumer: &Consumer) -> Result<Option<Delivery>> {
        let Consumer { id, subscription, driver, .. } = consumer;
        let first = *lock(&self.0).entry(subscription.name().to_owned()).or_insert(*id);
        match subscription.consumers() {
            Consumers::SingleActive if first != *id => Ok(None),
            Consumers::Exclusive if first != *id => Err(Error::in_use(subscription.name())),
            _ => driver.fetch_pending().await,
        }
    }
}

#[test]
fn never_hands_over() {
    caught(
        NeverHandsOver::default,
        &[
            "single_active::standby_takes_over_when_the_active_one_leaves",
            "single_active::standby_takes_over_when_the_active_one_dies",
            "single_active::exclusive_subscription_has_one_consumer",
            "single_active::exclusive_subscription_of_a_dead_consumer_is_reclaimed",
        ],
    );
}
