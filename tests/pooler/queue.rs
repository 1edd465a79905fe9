//! The queue through a pooler.

use futures::StreamExt;
use pgqueue_core::{Publisher, Topic};
use pgqueue_postgres::{Client, Options, OwnedTransaction, PgQueue, Transaction};
use pgqueue_testserver::{Database, PgBouncer};

use crate::{
    common::{chain, consume, invoices, next, number, patiently, publish_number, publish_numbers},
    place,
    small::Small,
};

/// A queue that is migrated through the pooler, with the topic "orders".
pub(crate) async fn queue_of<C: Client>(client: C) -> PgQueue<C> {
    let often = Options::new().with_poll_interval(std::time::Duration::from_millis(50));
    let queue = PgQueue::new(client).with_options(often).unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    queue
}

pub(super) async fn publishing_and_answering_are_part_of_the_callers_transaction<C: Small>()
where
    C::Transaction: Transaction<C>,
{
    let database = Database::create().await.unwrap();
    database.sql("create table work (done int)").await.unwrap();
    let queue = queue_of(C::behind_pooler(&place::url(&database), 8)).await;
    let mut stream = consume(&queue, invoices()).await;
    let theirs = C::behind_pooler(&place::url(&database), 2);
    for (n, is_committed) in [(1, false), (2, true)] {
        let mut transaction = theirs.begin().await.unwrap();
        let message = pgqueue_core::NewMessage::json(&n).unwrap();
        queue.publish_in(&mut transaction, "orders", vec![message]).await.unwrap();
        if is_committed { transaction.commit().await.unwrap() } else { transaction.rollback().await.unwrap() }
    }
    let delivery = next(&mut stream).await;
    assert_eq!(number(&delivery), 2);
    let mut transaction = theirs.begin().await.unwrap();
    OwnedTransaction::execute(&mut transaction, "insert into work values (2)", &[]).await.unwrap();
    queue.ok_in(delivery, &mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    publish_number(&queue, 3).await;
    let delivery = next(&mut stream).await;
    assert_eq!(number(&delivery), 3, "2 is answered");
    delivery.ok().await.unwrap();
    assert_eq!(database.sql("select * from work").await.unwrap(), "2");
}

/// Without this, the other trials would prove less.
pub(super) async fn prepared_statements_are_refused_and_the_error_says_what_to_do<C: Small>() {
    let database = Database::create().await.unwrap();
    let others = C::behind_pooler(&place::url(&database), 4);
    let _migrated = queue_of(C::behind_pooler(&place::url(&database), 2)).await;
    // So that there are several sessions to be handed around.
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(others.begin().await.unwrap());
    }
    for transaction in open {
        transaction.commit().await.unwrap();
    }
    let queue: PgQueue<C> = PgQueue::new(C::of(&place::url(&database), 1));
    let publish = async {
        loop {
            if let Err(error) = queue.publish("orders", vec![pgqueue_core::NewMessage::new("one")]).await {
                return error;
            }
        }
    };
    let error = patiently("a refusal", publish).await;
    assert!(chain(&error).contains("let the client send unnamed statements"), "{}", chain(&error));
}

pub(super) async fn crashed_pooler_loses_nothing<C: Small>() {
    const MESSAGES: u64 = 200;
    let database = Database::create().await.unwrap();
    let pooler = PgBouncer::start(database.server().port()).await.unwrap();
    let queue = queue_of(C::behind_pooler(&database.url_at(pooler.port()), 8)).await;
    let mut stream = pgqueue_core::subscribe(queue.subscription(invoices())).await.unwrap();
    publish_numbers(&queue, 0..MESSAGES).await;
    let mut answered = std::collections::BTreeSet::new();
    let mut crashed = false;
    while answered.len() < usize::try_from(MESSAGES).unwrap() {
        let delivery = patiently("a delivery", stream.next()).await.unwrap().unwrap();
        let number = number(&delivery);
        // An answer that is not known to be taken brings the message again.
        if delivery.ok().await.is_ok() {
            answered.insert(number);
        }
        if answered.len() == 20 && !std::mem::replace(&mut crashed, true) {
            pooler.crash().await.unwrap();
        }
    }
    assert!(crashed);
}
