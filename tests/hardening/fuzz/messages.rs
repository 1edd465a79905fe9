//! Messages at random: what is published comes back byte for byte, or was refused before.

use pgqueue_core::{ErrorKind, NewMessage, Order, Publisher, Subscription};

use super::{chance, inputs, limits::message};
use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{consume, next, patiently, queue},
};

on_both_clients!(messages_come_back_as_they_were_or_are_refused);

const BATCH: usize = 200;

async fn messages_come_back_as_they_were_or_are_refused<C: Backend>() {
    let (database, _) = queue::<C>().await;
    // One connection, so that a refusal that left it unusable would show.
    let pool = C::pool(&database.url(), 1, "read committed");
    let queue = C::over(&pool);
    let subscription =
        Subscription::new("all", "orders").with_order(Order::Total).with_batch(BATCH).with_prefetch(BATCH);
    let mut stream = consume(&queue, subscription).await;
    let mut rng = chance();
    let (count, mut done, mut refused) = (inputs(6), 0, 0);
    while done < count {
        let made: Vec<_> = (0..BATCH.min(count - done)).map(|_| message(&mut rng)).collect();
        done += made.len();
        let (valid, invalid): (Vec<_>, Vec<_>) = made.into_iter().partition(|message| message.validate().is_ok());
        refused += invalid.len();
        for message in invalid {
            let error = queue.publish("orders", vec![NewMessage::new("before"), message]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        }
        patiently("publishing", queue.publish("orders", valid.clone())).await.unwrap();
        let mut found = 0;
        while found < valid.len() {
            let delivery = next(&mut stream).await;
            for message in delivery.messages() {
                let published = &valid[found];
                assert!(message.payload() == published.payload(), "{message:?} was {published:?}");
                assert_eq!(
                    (message.key(), message.kind(), message.tags()),
                    (published.key(), published.kind(), published.tags())
                );
                assert_eq!(message.headers(), published.headers());
                found += 1;
            }
            delivery.ok().await.unwrap();
        }
    }
    assert!((count / 100..count).contains(&refused), "some were refused, and not all");
    println!("{count} inputs, of which {refused} were refused");
}
