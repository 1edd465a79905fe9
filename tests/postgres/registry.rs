//! Stored subscriptions that a registry serves.

use pgqueue_core::{Ack, BoxError, Finding, HealthStatus, Job, Registry, Repair, Worker};
use pgqueue_postgres::{Client, PgQueue};
use tokio::{sync::mpsc, time::sleep};

use crate::{
    both_clients::on_both_clients,
    common::{PATIENCE, invoices, patiently, publish_number, publish_numbers, queue},
};

on_both_clients!(
    restored_pools_get_what_was_published_while_no_process_ran,
    pools_follow_what_other_processes_store,
    deleted_subscriptions_are_not_stored_again,
);

/// A registry that serves "invoices", and the numbers that it handles.
fn registry<C: Client>(queue: &PgQueue<C>) -> (Registry, mpsc::UnboundedReceiver<u64>) {
    let (handled, numbers) = mpsc::unbounded_channel();
    let registry = Registry::new(queue.clone()).with_handler("invoices", move |stream| {
        let handled = handled.clone();
        let handler = move |job: Job<u64>| {
            let handled = handled.clone();
            async move {
                handled.send(job.value)?;
                Ok::<_, BoxError>(Ack::Ok)
            }
        };
        Worker::new(stream, handler).run()
    });
    (registry, numbers)
}

async fn take(numbers: &mut mpsc::UnboundedReceiver<u64>, count: usize) -> Vec<u64> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(patiently("a number", numbers.recv()).await.unwrap());
    }
    taken.sort_unstable();
    taken
}

async fn restored_pools_get_what_was_published_while_no_process_ran<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let (first, mut numbers) = registry(&queue);
    first.insert(&invoices().with_workers(2)).await.unwrap();
    publish_number(&queue, 0).await;
    assert_eq!(take(&mut numbers, 1).await, [0]);
    patiently("a graceful stop", first.stop()).await.unwrap();
    drop(first);
    patiently("the end of the consumers", queue.consumers_gone()).await;
    publish_numbers(&queue, 1..4).await;

    let other = PgQueue::<C>::connect(&database.url()).await.unwrap();
    let (second, mut numbers) = registry(&other);
    let missing = second.health().await.unwrap().findings;
    assert!(matches!(missing[..], [Finding::Missing { .. }]), "{missing:?}");
    assert_eq!(second.restore().await.unwrap(), ["invoices"]);
    publish_number(&queue, 4).await;
    assert_eq!(take(&mut numbers, 4).await, [1, 2, 3, 4]);
    assert_eq!(second.status("invoices").unwrap().size, 2);
    assert_eq!(second.health().await.unwrap().status(), HealthStatus::Healthy);
}

async fn pools_follow_what_other_processes_store<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let (registry, mut numbers) = registry(&queue);
    queue.insert_subscription(&invoices()).await.unwrap();
    assert_eq!(registry.repair().await.unwrap(), [Repair::Started { subscription: "invoices".into() }]);
    queue.insert_subscription(&invoices().with_workers(3)).await.unwrap();
    let resized = Repair::Resized { subscription: "invoices".into(), from: 1, to: 3 };
    assert_eq!(registry.repair().await.unwrap(), [resized]);
    publish_numbers(&queue, 0..9).await;
    assert_eq!(take(&mut numbers, 9).await, Vec::from_iter(0..9));
    assert_eq!(queue.find_subscription("invoices").await.unwrap().unwrap().workers(), 3);
}

async fn deleted_subscriptions_are_not_stored_again<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let (registry, mut numbers) = registry(&queue);
    registry.insert(&invoices()).await.unwrap();
    publish_number(&queue, 7).await;
    assert_eq!(take(&mut numbers, 1).await, [7]);

    queue.delete_subscription("invoices").await.unwrap();
    let noticing = async {
        loop {
            let findings = registry.health().await.unwrap().findings;
            if matches!(&findings[..], [Finding::Orphaned { failure: Some(_), .. }]) {
                return;
            }
            sleep(PATIENCE / 300).await;
        }
    };
    patiently("the failure of the pool", noticing).await;
    assert_eq!(registry.repair().await.unwrap(), [Repair::Forgotten { subscription: "invoices".into() }]);
    assert!(queue.subscriptions().await.unwrap().is_empty());
    assert_eq!(registry.health().await.unwrap().status(), HealthStatus::Healthy);
}
