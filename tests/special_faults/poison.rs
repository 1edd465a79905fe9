//! Messages that nobody survives: they are dead letters after their last attempt, and those beside them are not.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use pgqueue_core::{Ack, Backoff, BoxError, Job, Subscription, Worker, subscribe};
use pgqueue_postgres::Client;

use crate::{
    both_clients::on_both_clients,
    common::{QUIET, SHORT_LEASE, patiently, publish_numbers, queue},
    process::{Process, deadly},
};

on_both_clients!(message_that_aborts_its_process_is_given_up_alone, message_that_panics_is_given_up_alone);

const ATTEMPTS: u32 = 3;

async fn message_that_aborts_its_process_is_given_up_alone<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&deadly()).await.unwrap();
    publish_numbers(&queue, 0..20).await;
    let (mut handled, mut deaths) = (BTreeMap::<u64, usize>::new(), 0);
    let is_over = async || {
        let stats = queue.stats("deadly").await.unwrap();
        stats.dead == 1 && stats.waiting + stats.in_flight + stats.retrying == 0
    };
    while !is_over().await {
        let mut process = Process::start::<C>("abort at 7", &database.url(), &[]);
        let mut last = None;
        loop {
            tokio::select! {
                said = process.says() => match said {
                    Some((word, number)) => {
                        if word == "handled" {
                            *handled.entry(number).or_default() += 1;
                        }
                        last = Some(number);
                    }
                    None => {
                        assert_eq!(last, Some(7), "it died of something else");
                        deaths += 1;
                        break;
                    }
                },
                () = tokio::time::sleep(QUIET) => {
                    if is_over().await {
                        break;
                    }
                }
            }
        }
    }
    // Its first death is of a run, which says of none of its messages that it is to blame.
    assert!((ATTEMPTS..=ATTEMPTS + 3).contains(&deaths), "it killed {deaths} processes");
    let letters = queue.dead_letters("deadly").await.unwrap();
    let dead: Vec<u64> = letters.iter().map(|letter| letter.message.json().unwrap()).collect();
    assert_eq!(dead, [7], "{letters:?}");
    assert!(letters[0].reason.contains("its consumer died"), "{letters:?}");
    assert!(handled.keys().copied().eq((0..20).filter(|number| *number != 7)), "{handled:?}");
}

async fn message_that_panics_is_given_up_alone<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let backoff = Backoff::fixed(Duration::ZERO).with_max_attempts(ATTEMPTS);
    let subscription = Subscription::new("invoices", "orders").with_backoff(backoff).with_lease(SHORT_LEASE);
    let stream = subscribe(queue.subscription(subscription)).await.unwrap();
    publish_numbers(&queue, 0..20).await;
    let attempts: Arc<Mutex<BTreeMap<u64, u32>>> = Arc::default();
    let worker = tokio::spawn({
        let attempts = Arc::clone(&attempts);
        Worker::new(stream, move |job: Job<u64>| {
            let attempts = Arc::clone(&attempts);
            async move {
                *attempts.lock().unwrap().entry(job.value).or_default() += 1;
                assert_ne!(job.value, 7, "the poison");
                Ok::<_, BoxError>(Ack::Ok)
            }
        })
        .with_concurrency(4)
        .run()
    });
    let letters = patiently("a dead letter", async {
        loop {
            let letters = queue.dead_letters("invoices").await.unwrap();
            let stats = queue.stats("invoices").await.unwrap();
            if !letters.is_empty() && stats.waiting + stats.in_flight + stats.retrying == 0 {
                return letters;
            }
        }
    })
    .await;
    worker.abort();
    let dead: Vec<u64> = letters.iter().map(|letter| letter.message.json().unwrap()).collect();
    assert_eq!(dead, [7]);
    let attempts = attempts.lock().unwrap();
    let expected = (0..20).map(|number| (number, if number == 7 { ATTEMPTS } else { 1 }));
    assert!(attempts.iter().map(|(number, count)| (*number, *count)).eq(expected), "{attempts:?}");
}
