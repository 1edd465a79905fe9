//! Errors say what happened, are retried by class, and leave the subscription intact.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::stream::FusedStream;
use pgqueue_core::{
    Ack, BoxError, Delivery, Error, ErrorKind, Job, Operation, RetryConfig, RetryPolicy, Worker, subscribe,
};
use tokio::sync::Notify;

use super::faults::{is_planned, planned};
use crate::{
    Fault, Faulty,
    expect::{failed, refused},
    failure::{CaseFailure, CaseResult, check, check_eq},
    kit::{Kit, texts_of},
};

pub(super) async fn consuming_without_subscribing_is_an_error(kit: &Kit) -> CaseResult {
    let driver = kit.harness().driver(kit.subscription()).await?;
    refused(driver.listen().await, ErrorKind::NotFound, "listening without subscribing")?;
    refused(driver.fetch_pending().await, ErrorKind::NotFound, "fetching without subscribing")
}

pub(super) async fn error_keeps_its_source(kit: &Kit) -> CaseResult {
    let driver = kit.harness().driver(kit.subscription()).await?;
    let mut stream = subscribe(Faulty::new(driver).on_fetch(Fault::error(planned))).await?;
    is_planned(&kit.failure(&mut stream).await?, Operation::Fetch)
}

fn fatal() -> Error {
    Error::new(ErrorKind::Fatal, "a planned fault")
}

pub(super) async fn stream_is_over_after_a_fatal_error(kit: &Kit) -> CaseResult {
    let driver = kit.harness().driver(kit.subscription()).await?;
    let mut stream = subscribe(Faulty::new(driver).on_fetch(Fault::error(fatal).times(1))).await?;
    kit.publish(["a"]).await?;
    failed(&kit.failure(&mut stream).await?, ErrorKind::Fatal, "the stream")?;
    check!(stream.is_terminated(), "a stream that goes on after a fatal error");
    kit.over(&mut stream).await
}

pub(super) async fn consuming_again_after_an_error_resumes(kit: &Kit) -> CaseResult {
    let driver = kit.harness().driver(kit.subscription()).await?;
    let driver = Arc::new(Faulty::new(driver).on_fetch(Fault::error(fatal).times(1)));
    let mut stream = subscribe(Arc::clone(&driver)).await?;
    kit.failure(&mut stream).await?;
    kit.publish(["a"]).await?;
    kit.handle(&mut subscribe(driver).await?, ["a"]).await
}

pub(super) async fn transient_error_is_retried_by_policy(kit: &Kit) -> CaseResult {
    const RETRIES: u32 = 3;
    let policy = RetryPolicy::new(RETRIES, Duration::from_millis(10));
    let config = RetryConfig::never().with_connection(Some(policy));
    let lost = |times| Fault::error(|| Error::new(ErrorKind::Connection, "a planned fault")).times(times);
    let subscription = kit.subscription();
    kit.insert(&subscription).await?;
    kit.publish(["a"]).await?;

    let driver = kit.harness().driver(subscription.clone()).await?;
    let mut stream = subscribe(Faulty::new(driver).on_fetch(lost(RETRIES as usize + 1))).await?.with_retry(config);
    failed(&kit.failure(&mut stream).await?, ErrorKind::Connection, "the stream, with no retry left,")?;

    let driver = kit.harness().driver(subscription).await?;
    let mut stream = subscribe(Faulty::new(driver).on_fetch(lost(RETRIES as usize))).await?.with_retry(config);
    kit.handle(&mut stream, ["a"]).await
}

pub(super) async fn handler_panic_requeues_and_reports(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let (runs, done, reported) = (AtomicUsize::new(0), Notify::new(), Arc::new(Mutex::new(Vec::new())));
    let stream = kit.consume(&subscription).await?.until(Box::pin(done.notified()));
    kit.publish(["a"]).await?;

    let handler = async |_: Job<Vec<String>>| {
        if runs.fetch_add(1, Ordering::Relaxed) == 0 {
            // A panic that no hook prints.
            std::panic::resume_unwind(Box::new("a planned panic"));
        }
        done.notify_one();
        Ok::<_, BoxError>(Ack::Ok)
    };
    let reports = Arc::clone(&reported);
    let report = move |error: &Error| {
        reports.lock().unwrap_or_else(PoisonError::into_inner).push((error.kind(), error.to_string()));
    };
    let decode = |delivery: &Delivery| Ok(texts_of(delivery));
    let worker = Worker::with_decoder(stream, decode, handler).on_error(move |failure| report(failure.error));
    kit.patiently(worker.run()).await.ok_or_else(|| CaseFailure::new("a message that does not come again"))??;

    let reported = reported.lock().unwrap_or_else(PoisonError::into_inner).clone();
    check_eq!(reported.len(), 1, "the number of reported errors");
    check_eq!(reported[0].0, ErrorKind::Panic, "the kind of the reported error");
    check!(reported[0].1.contains("a planned panic"), "a report that says {:?}", reported[0].1);
    kit.nothing(&mut kit.consume(&subscription).await?).await
}
