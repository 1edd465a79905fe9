//! Clocks that are ten minutes off: those of consumers and publishers matter to nobody, and leases outlive a jump of the server's.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use pgqueue_core::{Backoff, NewMessage, Publisher, Subscription};
use pgqueue_postgres::Client;

use crate::{
    audit::{Audit, patient, queue_in, work},
    both_clients::on_both_clients,
    common::{next, number, patiently, publish_numbers, queue},
    process::{Process, subscription},
    shim::Shim,
};

on_both_clients!(
    wall_clocks_of_processes_change_nothing,
    who_dies_with_a_wrong_clock_is_found_as_soon,
    jump_of_the_servers_clock_costs_no_lease,
    who_dies_before_the_servers_clock_is_put_back_is_found_as_soon,
);

const TEN_MINUTES: i64 = 600;

/// What takes a second or two takes no longer than this on a busy machine, and by far not ten minutes.
const SOON: Duration = Duration::from_secs(25);

async fn wall_clocks_of_processes_change_nothing<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&subscription()).await.unwrap();
    let (fast, slow) = (Shim::new(), Shim::new());
    fast.shift(TEN_MINUTES);
    slow.shift(-TEN_MINUTES);
    let url = database.url();
    let mut consumers = [&fast, &slow].map(|shim| Process::start::<C>("consume", &url, &shim.environment()));
    let began = Instant::now();
    let _publishers = [&slow, &fast].map(|shim| Process::start::<C>("publish", &url, &shim.environment()));

    // Both publish the same numbers.
    let mut handled = BTreeMap::<u64, Vec<Duration>>::new();
    let mut requeued = BTreeMap::<u64, usize>::new();
    while handled.values().map(Vec::len).sum::<usize>() < 62 {
        let [first, second] = &mut consumers;
        let (word, number) = tokio::select! {
            said = first.says() => said,
            said = second.says() => said,
        }
        .expect("a process that goes on");
        match word.as_str() {
            "handled" => handled.entry(number).or_default().push(began.elapsed()),
            _ => *requeued.entry(number).or_default() += 1,
        }
    }
    let took = began.elapsed();
    assert!(took < SOON, "it took {took:?}");
    assert!(handled.values().all(|times| times.len() == 2), "each once: {handled:?}");
    assert_eq!(
        requeued,
        BTreeMap::from([(5, 2), (15, 2), (25, 2)]),
        "leases held, so that nothing came for another reason"
    );
    assert!(handled[&100].iter().all(|time| *time >= Duration::from_secs(2)), "not before it is due: {handled:?}");
    // Times are the server's.
    let ages = "select count(*) from pgqueue.log where abs(extract(epoch from clock_timestamp() - published_at)) > 300";
    assert_eq!(database.sql(ages).await.unwrap(), "0");
}

async fn who_dies_with_a_wrong_clock_is_found_as_soon<C: Client>() {
    for shift in [TEN_MINUTES, -TEN_MINUTES] {
        let (database, queue) = queue::<C>().await;
        queue.insert_subscription(&subscription()).await.unwrap();
        let shim = Shim::new();
        shim.shift(shift);
        let mut process = Process::start::<C>("hold", &database.url(), &shim.environment());
        publish_numbers(&queue, 0..1).await;
        assert_eq!(process.says().await, Some(("held".into(), 0)));
        process.kill().await;
        let since = Instant::now();
        let audit = Audit::new();
        let worker = work(patient(&queue, subscription()).await, &audit);
        audit.until_handled(0..1).await;
        let took = since.elapsed();
        assert!((Duration::from_secs(1)..SOON).contains(&took), "it took {took:?}");
        worker.abort();
    }
}

async fn jump_of_the_servers_clock_costs_no_lease<C: Client>() {
    let shim = Shim::new();
    let server = shim.server().await;
    let queue = queue_in::<C>(&server).await;
    let backoff = Backoff::fixed(Duration::from_millis(200)).with_jitter(0.0);
    let subscription = Subscription::new("invoices", "orders").with_lease(Duration::from_secs(3)).with_backoff(backoff);
    let mut stream = patient(&queue, subscription.clone()).await;
    let mut numbers = 0;
    for shift in [TEN_MINUTES, 0, -TEN_MINUTES, 0] {
        let before: i64 =
            server.sql("queue", "select extract(epoch from now())::bigint").await.unwrap().parse().unwrap();
        publish_numbers(&queue, numbers..numbers + 3).await;
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(next(&mut stream).await);
        }
        shim.shift(shift);
        let after: i64 =
            server.sql("queue", "select extract(epoch from now())::bigint").await.unwrap().parse().unwrap();
        assert!((after - before).abs() > 500, "the clock did not jump: {before} {after}");
        // Longer than the lease, while another looks for those who are silent.
        let audit = Audit::new();
        let other = work(patient(&queue, subscription.clone()).await, &audit);
        tokio::time::sleep(Duration::from_secs(4)).await;
        other.abort();
        let _ = other.await;
        assert_eq!(audit.count(), 0, "the others' messages stay theirs");
        for delivery in held {
            delivery.ok().await.unwrap();
        }
        // Retries and schedules that begin now are as before.
        let later = NewMessage::json(&(numbers + 3)).unwrap().with_delay(Duration::from_millis(300));
        queue.publish("orders", vec![later]).await.unwrap();
        let since = Instant::now();
        let delivery = next(&mut stream).await;
        assert_eq!(number(&delivery), numbers + 3);
        delivery.requeue().await.unwrap();
        let again = patiently("a retry", next(&mut stream)).await;
        assert_eq!((number(&again), again.message().attempt()), (numbers + 3, 2));
        again.ok().await.unwrap();
        assert!(since.elapsed() < SOON);
        numbers += 4;
    }
}

async fn who_dies_before_the_servers_clock_is_put_back_is_found_as_soon<C: Client>() {
    let shim = Shim::new();
    let server = shim.server().await;
    let queue = queue_in::<C>(&server).await;
    queue.insert_subscription(&subscription()).await.unwrap();
    let mut process = Process::start::<C>("hold", &server.url("queue"), &[]);
    publish_numbers(&queue, 0..1).await;
    assert_eq!(process.says().await, Some(("held".into(), 0)));
    process.kill().await;
    shim.shift(-TEN_MINUTES);
    let since = Instant::now();
    let audit = Audit::new();
    let worker = work(patient(&queue, subscription()).await, &audit);
    audit.until_handled(0..1).await;
    let took = since.elapsed();
    assert!(took < SOON, "it took {took:?}");
    worker.abort();
}
