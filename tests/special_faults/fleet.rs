//! Processes with different handlers share a subscription: what one does not know is not given up by it.

use std::collections::BTreeSet;

use pgqueue_core::{NewMessage, Publisher};
use pgqueue_postgres::{Client, PgQueue};

use crate::{
    both_clients::on_both_clients,
    common::{queue, until_sql},
    process::{Process, routed, until_handled},
};

on_both_clients!(death_of_who_knows_a_kind_discards_nothing_of_it);

async fn publish<C: Client>(queue: &PgQueue<C>, kind: &str, numbers: std::ops::Range<u64>) {
    let messages = numbers.map(|number| NewMessage::json(&number).unwrap().with_kind(kind)).collect();
    queue.publish("orders", messages).await.unwrap();
}

async fn death_of_who_knows_a_kind_discards_nothing_of_it<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&routed()).await.unwrap();
    let url = database.url();
    let mut paid = Process::start::<C>("paid", &url, &[]);
    let mut lost = Process::start::<C>("lost", &url, &[]);
    publish(&queue, "paid", 0..20).await;
    publish(&queue, "lost", 100..120).await;
    // It is killed in the middle of its work.
    let (word, first) = paid.says().await.expect("a process that works");
    assert_eq!((word.as_str(), first < 20), ("handled", true));
    paid.kill().await;
    let mut handled = BTreeSet::from([first]);
    while let Some((_, number)) = paid.says().await {
        handled.insert(number);
    }
    let known: Vec<u64> = (100..120).collect();
    until_handled(std::slice::from_mut(&mut lost), &known).await;
    // What it held is over, and the other has met all that it does not know.
    until_sql(&database, "select count(*) from pgqueue.owner", "1").await;
    let met = "select bool_and(prior[1] > 0) from pgqueue.lease";
    until_sql(&database, met, "t").await;
    assert_eq!(queue.stats("routed").await.unwrap().dead, 0, "nothing is given up");

    let mut again = Process::start::<C>("paid", &url, &[]);
    while handled.len() < 20 {
        let (_, number) = again.says().await.expect("a process that works");
        handled.insert(number);
    }
    assert_eq!(handled, (0..20).collect());
    let rest = "select (select count(*) from pgqueue.lease) || ' ' || (select count(*) from pgqueue.dead_letter)";
    until_sql(&database, rest, "0 0").await;
    assert_eq!(queue.stats("routed").await.unwrap().waiting, 0);
}
