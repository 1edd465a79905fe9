//! Consuming can be stopped, cancelled and dropped at any moment, and nothing is lost or counted.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::{self, try_join, try_join_all},
};
use pgqueue_core::subscribe;
use tokio::sync::Notify;

use crate::{
    expect::POLL,
    failure::{CaseFailure, CaseResult, check, check_eq},
    kit::{Kit, numbered, texts_of},
};

/// How often a consumer starts and stops so that what it leaves behind shows, and how many do at the same time.
const STARTS: usize = 500;
const AT_A_TIME: usize = 20;

pub(super) async fn stop_before_the_first_poll_yields_nothing(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let mut stream = kit.consume(&subscription).await?.until(future::ready(()));
    kit.publish(["a"]).await?;
    kit.over(&mut stream).await?;
    kit.handle(&mut kit.consume(&subscription).await?, ["a"]).await
}

pub(super) async fn stop_while_idle_ends_the_stream(kit: &Kit) -> CaseResult {
    let stop = Notify::new();
    let mut stream = kit.consume(&kit.subscription()).await?.until(Box::pin(stop.notified()));
    kit.nothing(&mut stream).await?;
    let stopping = async {
        stop.notify_one();
        Ok(())
    };
    try_join(kit.over(&mut stream), stopping).await.map(drop)
}

pub(super) async fn stop_beats_a_ready_delivery(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let stop = Notify::new();
    let mut stream = kit.consume(&subscription).await?.until(Box::pin(stop.notified()));
    let texts = numbered(5);
    kit.publish(&texts).await?;
    let mut handled = kit.drain(&mut stream, 1).await?;
    stop.notify_one();
    kit.over(&mut stream).await?;

    handled.extend(kit.drain(&mut kit.consume(&subscription).await?, 4).await?);
    handled.sort();
    check_eq!(handled, texts, "what was handled before and after the stop");
    Ok(())
}

pub(super) async fn delivery_in_flight_outlives_stop(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let stop = Notify::new();
    let mut stream = kit.consume(&subscription).await?.until(Box::pin(stop.notified()));
    kit.publish(["a"]).await?;
    let in_flight = kit.receive(&mut stream, "a").await?;
    stop.notify_one();
    kit.over(&mut stream).await?;
    let mut other = kit.consume(&subscription).await?;
    kit.nothing(&mut other).await?;
    in_flight.ok().await?;
    kit.nothing(&mut other).await
}

pub(super) async fn stopping_burns_no_attempt(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    kit.insert(&subscription).await?;
    kit.publish(numbered(5)).await?;
    for _ in 0..5 {
        let stop = Notify::new();
        let mut stream = kit.consume(&subscription).await?.until(Box::pin(stop.notified()));
        let delivery = kit.next(&mut stream).await?;
        check_eq!(delivery.message().attempt(), 1, "the attempt of a message that nobody got before");
        stop.notify_one();
        kit.over(&mut stream).await?;
        delivery.ok().await?;
    }
    kit.nothing(&mut kit.consume(&subscription).await?).await
}

pub(super) async fn next_is_cancel_safe(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    let texts = numbered(50);
    let publishing = async {
        for text in &texts {
            kit.publish([text]).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    };
    let consuming = async {
        let mut handled = Vec::new();
        while handled.len() < texts.len() {
            // Mostly dropped half-way.
            match kit.within(Duration::from_millis(1), stream.next()).await {
                None => {}
                Some(Some(delivery)) => {
                    let delivery = delivery?;
                    handled.extend(texts_of(&delivery));
                    delivery.ok().await?;
                }
                Some(None) => return Err(CaseFailure::new("the end of the stream")),
            }
        }
        handled.sort();
        Ok(handled)
    };
    let ended = kit.patiently(try_join(consuming, publishing)).await;
    let handled = ended.transpose()?.map(|(handled, ())| handled);
    check_eq!(handled, Some(texts.clone()), "what was handled");
    kit.nothing(&mut stream).await
}

pub(super) async fn abandoned_fetch_loses_nothing(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let driver = kit.driver(&subscription).await?;
    let texts = numbered(20);
    kit.publish(&texts).await?;
    let mut handled = Vec::new();
    for milliseconds in [0, 1, 2, 0, 1, 2, 3, 5] {
        let fetched = kit.within(Duration::from_millis(milliseconds), driver.fetch_pending()).await;
        if let Some(delivery) = fetched.transpose()?.flatten() {
            handled.extend(texts_of(&delivery));
            delivery.ok().await?;
        }
    }
    drop(driver);

    let mut stream = kit.consume(&subscription).await?;
    handled.extend(kit.drain(&mut stream, texts.len() - handled.len()).await?);
    handled.sort();
    check_eq!(handled, texts, "what was handled");
    kit.nothing(&mut stream).await
}

/// However often it is done.
pub(super) async fn dropped_stream_stops_listening(kit: &Kit) -> CaseResult {
    let harness = kit.harness();
    let driver = kit.driver(&kit.subscription()).await?;
    let before = harness.listeners().await?;
    let mut live = subscribe(Arc::clone(&driver)).await?;
    kit.nothing(&mut live).await?;
    check!(
        harness.listeners().await? > before,
        "no more listeners than the {before} before, with a stream that listens"
    );
    drop(live);

    for _ in 0..STARTS / AT_A_TIME {
        let streams = try_join_all((0..AT_A_TIME).map(|_| subscribe(Arc::clone(&driver)))).await?;
        for mut stream in streams.into_iter().step_by(2) {
            let yielded = stream.next().now_or_never();
            check!(yielded.is_none(), "{yielded:?} from an idle stream");
        }
    }
    let released = kit.patiently(async {
        while harness.listeners().await? > before {
            harness.pass(POLL).await;
        }
        CaseResult::Ok(())
    });
    released.await.transpose()?;
    check_eq!(harness.listeners().await?, before, "the number of listeners after all streams were dropped");
    Ok(())
}
