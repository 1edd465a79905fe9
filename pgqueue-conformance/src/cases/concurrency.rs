//! Consumers share a subscription: each message goes to one of them.

use std::sync::Arc;

use futures::{
    future::{try_join, try_join_all},
    stream::select_all,
};
use pgqueue_core::{SubscriptionDriver, subscribe};
use tokio::{sync::Barrier, task::JoinSet};

use crate::{
    crew::{Answer, MOODY, OK},
    failure::{CaseFailure, CaseResult, chain, check, check_eq},
    kit::{Kit, numbered},
};

pub(super) async fn two_consumers_share_without_duplicates(kit: &Kit) -> CaseResult {
    shared(kit, 2, 200, OK).await
}

pub(super) async fn many_consumers_drain_everything_once(kit: &Kit) -> CaseResult {
    shared(kit, 8, 500, MOODY).await
}

async fn shared(kit: &Kit, consumers: usize, messages: usize, answer: Answer) -> CaseResult {
    let subscription = kit.subscription();
    kit.insert(&subscription).await?;
    let texts = numbered(messages);
    kit.publish(&texts).await?;
    let mut acked = kit.share(&subscription, consumers, messages, answer).await?;
    acked.sort();
    check_eq!(acked, texts, "what was acknowledged");
    kit.nothing(&mut kit.consume(&subscription).await?).await
}

pub(super) async fn one_message_goes_to_one_of_many(kit: &Kit) -> CaseResult {
    let mut drivers = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..8 {
        let driver = kit.driver(&kit.subscription()).await?;
        streams.push(subscribe(Arc::clone(&driver)).await?);
        drivers.push(driver);
    }
    let mut any = select_all(streams);
    for text in ["a", "b", "c"] {
        let delivery = kit.wakes(&mut any, async { kit.publish([text]).await.map(drop) }).await?;
        in_flight_alone(&drivers).await?;
        kit.nothing(&mut any).await?;
        delivery.ok().await?;
    }
    kit.nothing(&mut any).await
}

/// Checks that nobody can claim the message in flight, woken or not.
async fn in_flight_alone(drivers: &[Arc<dyn SubscriptionDriver>]) -> CaseResult {
    for driver in drivers {
        check!(driver.fetch_pending().await?.is_none(), "a second claim of a message in flight");
    }
    Ok(())
}

pub(super) async fn publishing_during_acknowledgement_loses_nothing(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    kit.insert(&subscription).await?;
    let texts = numbered(200);
    let publishing = try_join_all(texts.chunks(50).map(async |texts| {
        for text in texts {
            kit.publish([text]).await?;
            tokio::task::yield_now().await;
        }
        CaseResult::Ok(())
    }));
    let (mut acked, _) = try_join(kit.share(&subscription, 4, texts.len(), OK), publishing).await?;
    acked.sort();
    check_eq!(acked, texts, "what was acknowledged");
    kit.nothing(&mut kit.consume(&subscription).await?).await
}

pub(super) async fn two_claimers_race_on_separate_connections(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let drivers = [kit.driver(&subscription).await?, kit.driver(&subscription).await?];
    let mut wakeups = drivers[0].listen().await?;
    for text in numbered(30) {
        kit.publish([text]).await?;
        let start = Arc::new(Barrier::new(drivers.len()));
        let mut race = JoinSet::new();
        for driver in drivers.clone() {
            let start = Arc::clone(&start);
            race.spawn(async move {
                start.wait().await;
                driver.fetch_pending().await
            });
        }
        let mut claimed = Vec::new();
        while let Some(ended) = race.join_next().await {
            claimed.extend(ended.map_err(|error| CaseFailure::new(format!("a claimer's {}", chain(&error))))??);
        }
        check!(claimed.len() <= 1, "one message claimed by both");
        let delivery = match claimed.pop() {
            Some(delivery) => delivery,
            None => kit.fetch(&*drivers[0], &mut wakeups).await?, // both found the other at work
        };
        in_flight_alone(&drivers).await?;
        delivery.ok().await?;
    }
    Ok(())
}
