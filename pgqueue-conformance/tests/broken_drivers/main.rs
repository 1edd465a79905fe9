//! The kit catches drivers that break one promise each, by the name of the case that states it.

#[path = "../support/mod.rs"]
mod support;

mod checkpoints;
mod consumers;
mod flaw;
mod moves;

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use flaw::{Consumer, Flaw, FlawedStore, Situation, Unclaimed};
use futures::{StreamExt, stream};
use pgqueue_conformance::{Capability, Case, cases};
use pgqueue_core::{
    Ack, Delivery, ErrorKind, Message, MessageId, NewMessage, Order, Position, Result, Subscription, Wakeup, Wakeups,
};
use support::lock;
use tokio::runtime::Builder;

struct NoFlaw;

impl Flaw for NoFlaw {}

#[test]
fn correct_driver_passes_every_case() {
    assert_eq!(failures(|| NoFlaw), Vec::<&str>::new());
}

/// Keeps what it loses, as a leak would.
#[derive(Default)]
struct LosesDroppedDeliveries(Mutex<Vec<Delivery>>);

impl Flaw for LosesDroppedDeliveries {
    fn release(&self, delivery: Delivery) {
        lock(&self.0).push(delivery);
    }
}

#[test]
fn loses_dropped_deliveries() {
    caught(LosesDroppedDeliveries::default, &["requeue::dropped_delivery_is_redelivered"]);
}

struct ForgetsAcks;

#[async_trait]
impl Flaw for ForgetsAcks {
    async fn settle(&self, delivery: Delivery, ack: Ack) -> Result<()> {
        if ack == Ack::Ok { Ok(()) } else { delivery.settle(ack).await }
    }
}

#[test]
fn forgets_acks() {
    caught(
        || ForgetsAcks,
        &["ack::acknowledged_message_is_not_redelivered", "ack::acknowledgement_outlives_its_consumer"],
    );
}

struct LosesRequeues;

#[async_trait]
impl Flaw for LosesRequeues {
    async fn settle(&self, delivery: Delivery, ack: Ack) -> Result<()> {
        delivery.settle(if matches!(ack, Ack::Requeue(_)) { Ack::Ok } else { ack }).await
    }
}

#[test]
fn loses_requeues() {
    caught(|| LosesRequeues, &["requeue::requeued_message_is_redelivered"]);
}

struct DeliversLastInFirstOut;

#[async_trait]
impl Flaw for DeliversLastInFirstOut {
    fn subscription(&self, subscription: Subscription) -> Subscription {
        subscription.with_order(Order::Unordered)
    }

    async fn fetch(&self, consumer: &Consumer) -> Result<Option<Delivery>> {
        while let Some(delivery) = consumer.driver.fetch_pending().await? {
            lock(&consumer.claimed).push(delivery);
        }
        Ok(lock(&consumer.claimed).pop())
    }
}

#[test]
fn delivers_last_in_first_out() {
    caught(
        || DeliversLastInFirstOut,
        &["ordering::messages_arrive_in_publishing_order", "ordering::total_order_holds_over_all_keys"],
    );
}

struct NeverWakes;

#[async_trait]
impl Flaw for NeverWakes {
    async fn listen(&self, consumer: &Consumer) -> Result<Wakeups> {
        Ok(consumer.driver.listen().await?.take(0).chain(stream::pending()).boxed())
    }
}

#[test]
fn never_wakes() {
    caught(
        || NeverWakes,
        &["delivery::message_published_while_idle_is_delivered", "delivery::every_idle_period_ends_with_a_wakeup"],
    );
}

struct WakesOnce;

#[async_trait]
impl Flaw for WakesOnce {
    async fn listen(&self, consumer: &Consumer) -> Result<Wakeups> {
        Ok(consumer.driver.listen().await?.take(1).chain(stream::pending()).boxed())
    }
}

#[test]
fn wakes_once() {
    caught(|| WakesOnce, &["delivery::every_idle_period_ends_with_a_wakeup"]);
}

struct SharesOneQueueBetweenSubscriptions;

impl Flaw for SharesOneQueueBetweenSubscriptions {
    fn subscription(&self, subscription: Subscription) -> Subscription {
        Subscription::new("shared", subscription.topic())
            .with_order(subscription.order())
            .with_batch(subscription.batch())
            .with_lease(subscription.lease())
            .with_backoff(*subscription.backoff())
    }
}

#[test]
fn shares_one_queue_between_subscriptions() {
    caught(
        || SharesOneQueueBetweenSubscriptions,
        &["fan_out::every_subscription_gets_every_message", "ack::acknowledgement_leaves_other_subscriptions_alone"],
    );
}

/// Every consumer also gets what the others have in hand, once.
#[derive(Default)]
struct DoesNotClaim(Mutex<Vec<InHand>>);

struct InHand {
    subscription: String,
    message: Message,
    seen_by: HashSet<u64>,
}

impl DoesNotClaim {
    fn forget(&self, delivery: &Delivery) {
        lock(&self.0).retain(|in_hand| in_hand.message.id() != delivery.message().id());
    }
}

#[async_trait]
impl Flaw for DoesNotClaim {
    async fn fetch(&self, consumer: &Consumer) -> Result<Option<Delivery>> {
        let subscription = consumer.subscription.name().to_owned();
        if let Some(delivery) = consumer.driver.fetch_pending().await? {
            let message = delivery.message().clone();
            lock(&self.0).push(InHand { subscription, message, seen_by: HashSet::from([consumer.id]) });
            return Ok(Some(delivery));
        }
        let mut in_hand = lock(&self.0);
        let mut same = in_hand.iter_mut().filter(|in_hand| in_hand.subscription == subscription);
        let unseen = same.find_map(|in_hand| in_hand.seen_by.insert(consumer.id).then(|| in_hand.message.clone()));
        Ok(unseen.map(|message| Delivery::new(message, Unclaimed)))
    }

    async fn settle(&self, delivery: Delivery, ack: Ack) -> Result<()> {
        self.forget(&delivery);
        delivery.settle(ack).await
    }

    fn release(&self, delivery: Delivery) {
        self.forget(&delivery);
    }
}

#[test]
fn does_not_claim() {
    caught(
        DoesNotClaim::default,
        &[
            "concurrency::two_consumers_share_without_duplicates",
            "concurrency::one_message_goes_to_one_of_many",
            "concurrency::two_claimers_race_on_separate_connections",
        ],
    );
}

#[derive(Default)]
struct ReplaysHistoryToNewSubscribers {
    history: Mutex<Vec<Message>>,
    /// What each subscription is still to get.
    replays: Mutex<HashMap<String, Vec<Message>>>,
}

#[async_trait]
impl Flaw for ReplaysHistoryToNewSubscribers {
    fn publishes(&self, topic: &str, message: &NewMessage, _: Situation) -> bool {
        let (id, position) = (MessageId::new("replayed"), Position::new(""));
        lock(&self.history).push(Message::new(id, position, topic, message.clone(), SystemTime::now()));
        true
    }

    async fn insert(&self, consumer: &Consumer) -> Result<()> {
        let history = lock(&self.history).clone();
        lock(&self.replays).entry(consumer.subscription.name().to_owned()).or_insert(history);
        consumer.driver.insert_subscription().await
    }

    async fn fetch(&self, consumer: &Consumer) -> Result<Option<Delivery>> {
        let replayed = lock(&self.replays).get_mut(consumer.subscription.name()).and_then(Vec::pop);
        match replayed {
            Some(message) => Ok(Some(Delivery::new(message, Unclaimed))),
            None => consumer.driver.fetch_pending().await,
        }
    }
}

#[test]
fn replays_history_to_new_subscribers() {
    caught(
        ReplaysHistoryToNewSubscribers::default,
        &["delivery::message_published_before_subscribing_is_not_delivered"],
    );
}

struct AcceptsStaleAcks;

#[async_trait]
impl Flaw for AcceptsStaleAcks {
    async fn settle(&self, delivery: Delivery, ack: Ack) -> Result<()> {
        match delivery.settle(ack).await {
            Err(error) if error.kind() == ErrorKind::LeaseLost => Ok(()),
            settled => settled,
        }
    }
}

#[test]
fn accepts_stale_acks() {
    caught(
        || AcceptsStaleAcks,
        &[
            "ack::stale_acknowledgement_is_refused_and_changes_nothing",
            "crash::token_of_a_lost_claim_is_never_valid_again",
            "single_active::demoted_consumer_is_refused",
        ],
    );
}

struct CountsNoAttempts;

impl Flaw for CountsNoAttempts {
    fn message(&self, message: Message) -> Message {
        message.with_attempt(1)
    }
}

#[test]
fn counts_no_attempts() {
    caught(|| CountsNoAttempts, &["requeue::redeliveries_are_counted"]);
}

struct IgnoresDelay;

#[async_trait]
impl Flaw for IgnoresDelay {
    async fn settle(&self, delivery: Delivery, ack: Ack) -> Result<()> {
        let ack = match ack {
            Ack::Requeue(requeue) => Ack::Requeue(requeue.with_delay(Duration::ZERO)),
            other => other,
        };
        delivery.settle(ack).await
    }
}

#[test]
fn ignores_delay() {
    caught(|| IgnoresDelay, &["requeue::requeue_with_delay_waits", "requeue::backoff_follows_the_policy"]);
}

struct LetsASecondLaneMessageGo;

impl Flaw for LetsASecondLaneMessageGo {
    fn subscription(&self, subscription: Subscription) -> Subscription {
        subscription.with_order(Order::Unordered)
    }
}

#[test]
fn lets_a_second_lane_message_go_while_the_first_is_in_flight() {
    caught(
        || LetsASecondLaneMessageGo,
        &[
            "ordering::delivery_in_flight_holds_back_its_key",
            "ordering::delivery_in_flight_holds_back_its_key_from_others",
            "ordering::total_order_has_one_delivery_in_flight",
            "single_active::order_holds_over_a_takeover",
        ],
    );
}

struct DropsWhatWasPublishedDuringAReconnect;

impl Flaw for DropsWhatWasPublishedDuringAReconnect {
    fn publishes(&self, _: &str, _: &NewMessage, situation: Situation) -> bool {
        !situation.connections_are_cut
    }
}

#[test]
fn drops_what_was_published_during_a_reconnect() {
    caught(|| DropsWhatWasPublishedDuringAReconnect, &["crash::message_published_while_disconnected_arrives"]);
}

struct DropsWhatNobodyListensTo;

impl Flaw for DropsWhatNobodyListensTo {
    fn publishes(&self, _: &str, _: &NewMessage, situation: Situation) -> bool {
        situation.somebody_listens
    }
}

#[test]
fn drops_what_nobody_listens_to() {
    caught(|| DropsWhatNobodyListensTo, &["delivery::message_published_without_a_consumer_waits"]);
}

/// As a store would that speaks ASCII, and knows no difference between nothing and null.
struct ChangesContent;

impl Flaw for ChangesContent {
    fn message(&self, message: Message) -> Message {
        let ascii: Vec<_> = message.payload().iter().map(|byte| if byte.is_ascii() { *byte } else { b'?' }).collect();
        let content = NewMessage::new(if ascii.is_empty() { b"null".to_vec() } else { ascii });
        let (id, position) = (message.id().clone(), message.position().clone());
        Message::new(id, position, message.topic(), content, message.published_at()).with_attempt(message.attempt())
    }
}

#[test]
fn changes_content() {
    caught(
        || ChangesContent,
        &[
            "payloads::empty_payload",
            "payloads::every_byte_value",
            "payloads::unicode_text_is_unchanged",
            "payloads::headers_come_back",
            "payloads::large_payload",
        ],
    );
}

/// Forgets no dedup id, and not whose it was.
#[derive(Default)]
struct DedupsForEver(Mutex<HashSet<String>>);

impl Flaw for DedupsForEver {
    fn publishes(&self, _: &str, message: &NewMessage, _: Situation) -> bool {
        message.dedup_id().is_none_or(|id| lock(&self.0).insert(id.to_owned()))
    }
}

#[test]
fn dedups_for_ever() {
    caught(
        DedupsForEver::default,
        &["publish::dedup_ids_belong_to_their_topic", "publish::dedup_id_is_forgotten_after_its_window"],
    );
}

struct SwallowsErrors;

#[async_trait]
impl Flaw for SwallowsErrors {
    async fn insert(&self, consumer: &Consumer) -> Result<()> {
        consumer.driver.insert_subscription().await.or(Ok(()))
    }

    async fn listen(&self, consumer: &Consumer) -> Result<Wakeups> {
        consumer.driver.listen().await.or_else(|_| Ok(stream::pending().boxed()))
    }

    async fn fetch(&self, consumer: &Consumer) -> Result<Option<Delivery>> {
        consumer.driver.fetch_pending().await.or(Ok(None))
    }
}

#[test]
fn swallows_errors() {
    caught(
        || SwallowsErrors,
        &[
            "delivery::subscribing_differently_is_an_error",
            "delivery::subscribing_to_an_unknown_topic_is_an_error",
            "delivery::subscribing_with_unusable_options_is_an_error",
            "errors::consuming_without_subscribing_is_an_error",
            "fan_out::unsubscribing_ends_the_streams",
        ],
    );
}

struct RingsAllTheTime;

#[async_trait]
impl Flaw for RingsAllTheTime {
    async fn listen(&self, consumer: &Consumer) -> Result<Wakeups> {
        let ringing = stream::repeat(Wakeup::Tick).then(async |ring| {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(ring)
        });
        Ok(stream::select(consumer.driver.listen().await?, ringing.boxed()).boxed())
    }
}

#[test]
fn rings_all_the_time() {
    caught(|| RingsAllTheTime, &["ordering::held_back_message_makes_no_noise"]);
}

/// Every call leaves a listener behind.
#[derive(Default)]
struct LeaksListeners(Mutex<Vec<Wakeups>>);

#[async_trait]
impl Flaw for LeaksListeners {
    async fn listen(&self, consumer: &Consumer) -> Result<Wakeups> {
        let leaked = consumer.driver.listen().await?;
        lock(&self.0).push(leaked);
        consumer.driver.listen().await
    }
}

#[test]
fn leaks_listeners() {
    caught(LeaksListeners::default, &["stop::dropped_stream_stops_listening"]);
}

/// Runs every case on the flaw, and expects those that are named, and perhaps others, to fail.
#[allow(clippy::print_stdout)] // what else a flaw breaks is worth knowing, and no failure
fn caught<F: Flaw>(flaw: fn() -> F, by: &[&str]) {
    let failures = failures(flaw);
    println!("{} is caught by {} cases: {failures:#?}", std::any::type_name::<F>(), failures.len());
    for name in by {
        assert!(cases().iter().any(|case| case.name() == *name), "there is no case {name}");
        assert!(failures.contains(name), "{name} does not catch it");
    }
}

/// The names of the cases that fail.
fn failures<F: Flaw>(flaw: fn() -> F) -> Vec<&'static str> {
    let fails = |case: &&Case| {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(case.run(Box::new(FlawedStore::new(flaw())))).is_err()
    };
    let capabilities = support::CAPABILITIES.with_paused_clock();
    // Its order is stable where nobody keeps a transaction open.
    let has = |need: &Capability, case: &Case| match need {
        Capability::StableTotalOrder => !case.needs().contains(&Capability::Transactional),
        other => capabilities.claims(*other),
    };
    let claimed = cases().iter().filter(|case| case.needs().iter().all(|need| has(need, case)));
    claimed.filter(fails).map(Case::name).collect()
}
