//! A pool whose connections others use up: a typed error, and all goes on once there is one again.

use futures::FutureExt;
use pgqueue_core::{ErrorKind, PublisherExt, Subscription};

use crate::{
    audit::{Audit, patient, work},
    backend::Backend,
    both_clients::on_both_clients,
    common::{SHORT_LEASE, assert_says, next, patiently, publish_numbers, queue},
};

on_both_clients!(who_finds_no_connection_is_told_and_goes_on_with_the_next);

const SAYS: [&str; 2] = ["every connection of the pool is in use", "more connections"];

async fn who_finds_no_connection_is_told_and_goes_on_with_the_next<C: Backend>() {
    let (database, admin) = queue::<C>().await;
    let pool = C::pool(&database.url(), 1, "read committed");
    let queue = C::over(&pool);
    let subscription = Subscription::new("invoices", "orders").with_lease(SHORT_LEASE);
    let mut stream = patient(&queue, subscription.clone()).await;
    publish_numbers(&admin, 0..20).await;
    let held = next(&mut stream).await;
    let audit = Audit::new();
    C::meanwhile(&pool, {
        let (queue, audit) = (queue.clone(), audit.clone());
        async move {
            let publishes = patiently("a refusal", queue.publish_json("orders", &99));
            let (published, answered) = tokio::join!(publishes, patiently("an answer", held.ok()));
            assert_says(&published.unwrap_err(), ErrorKind::Fatal, &SAYS);
            assert_says(&answered.unwrap_err(), ErrorKind::Fatal, &SAYS);
            // What it has in advance is still handed out; that it cannot be answered is told by each.
            let worker = work(stream, &audit);
            let ended = patiently("an end", worker).await.unwrap().expect("an error");
            assert_says(&ended, ErrorKind::Fatal, &SAYS);
        }
        .boxed()
    })
    .await;
    let stream = patient(&queue, subscription).await;
    let worker = work(stream, &audit);
    publish_numbers(&queue, 20..40).await;
    audit.until_handled(0..40).await;
    audit.check(0..40, 3);
    worker.abort();
}
