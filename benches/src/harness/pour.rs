//! Publishing for a while, from several clients at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use futures::future::try_join_all;
use pgqueue_core::{NewMessage, Publisher};

use super::{Measurement, Sample, Spent, TOPIC, Tally, WINDOW, keep_pace, payload};
use crate::drivers::{Argument, Peer};

/// For how long everybody publishes before the clock starts.
const WARM_UP: Duration = Duration::from_millis(300);

/// What takes payloads, durably.
pub trait Sink: Send + 'static {
    /// Publishes messages, all in one call if that can be.
    fn put(&mut self, payloads: Vec<Vec<u8>>) -> impl Future<Output = Result<()>> + Send;
}

/// The queue.
pub(crate) struct Ours<Q>(pub(crate) Q);

/// What takes payloads while somebody consumes as many.
pub(crate) struct Consumed<S>(pub(crate) S, pub(crate) Arc<Tally>);

/// The queue, with messages that have one of a thousand keys.
pub(crate) struct Keyed<Q>(pub(crate) Q);

/// A table of one's own.
pub(crate) struct Bare<P> {
    pub(crate) peer: P,
    pub(crate) insert: &'static str,
}

impl<Q: Publisher + 'static> Sink for Ours<Q> {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        self.0.publish(TOPIC, payloads.into_iter().map(NewMessage::new).collect()).await?;
        Ok(())
    }
}

impl<S: Sink> Sink for Consumed<S> {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        if let Some(first) = payloads.first() {
            keep_pace(super::number(first)?, WINDOW, std::slice::from_ref(&self.1)).await?;
        }
        self.0.put(payloads).await
    }
}

impl<Q: Publisher + 'static> Sink for Keyed<Q> {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        let keyed = |payload: Vec<u8>| {
            let key = format!("customer-{}", super::number(&payload)? % 1000);
            Ok(NewMessage::new(payload).with_key(key))
        };
        let messages = payloads.into_iter().map(keyed).collect::<Result<_>>()?;
        self.0.publish(TOPIC, messages).await?;
        Ok(())
    }
}

impl<P: Peer> Sink for Bare<P> {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        self.peer.execute(self.insert, &[Argument::Payloads(payloads)]).await?;
        Ok(())
    }
}

/// What was published.
#[derive(Debug)]
pub struct Poured {
    /// By the clock.
    timed: usize,
    elapsed: Duration,
    /// In all, also before the clock started.
    pub total: usize,
    /// For all of them.
    spent: Spent,
}

impl Poured {
    /// Its rate and its costs.
    #[must_use]
    pub fn sample(&self) -> Sample {
        Sample::rate(self.timed, self.elapsed).costing(self.total, self.spent)
    }
}

/// Lets each sink publish batch after batch for a while.
///
/// # Errors
///
/// When one of them fails.
pub async fn pour<S: Sink>(
    m: &Measurement,
    sinks: Vec<S>,
    batch: usize,
    size: usize,
    duration: Duration,
) -> Result<Poured> {
    let numbers = Arc::new(AtomicUsize::new(0));
    let meter = m.meter().await?;
    let start = Instant::now() + WARM_UP.min(duration);
    let tasks: Vec<_> = sinks
        .into_iter()
        .map(|mut sink| {
            let numbers = Arc::clone(&numbers);
            tokio::spawn(async move {
                let mut timed = 0;
                loop {
                    let first = numbers.fetch_add(batch, Ordering::Relaxed);
                    let began = Instant::now();
                    sink.put((first..first + batch).map(|n| payload(n, size)).collect()).await?;
                    let now = Instant::now();
                    if began >= start {
                        timed += batch;
                    }
                    if now >= start + duration {
                        return anyhow::Ok((timed, now));
                    }
                }
            })
        })
        .collect();
    let mut timed = 0;
    let mut last = start;
    for task in tasks {
        let (messages, ended) = task.await??;
        timed += messages;
        last = last.max(ended);
    }
    let spent = meter.stop().await?;
    Ok(Poured { timed, elapsed: last - start, total: numbers.load(Ordering::Relaxed), spent })
}

/// Lets the sinks publish so many messages, batch after batch, at most `window` ahead of each tally.
///
/// # Errors
///
/// When one of them fails, or nobody consumes.
pub async fn pour_all<S: Sink>(
    sinks: Vec<S>,
    messages: usize,
    batch: usize,
    size: usize,
    window: usize,
    tallies: &[Arc<Tally>],
) -> Result<()> {
    let numbers = Arc::new(AtomicUsize::new(0));
    let publish = |mut sink: S| {
        let (numbers, tallies) = (Arc::clone(&numbers), tallies.to_vec());
        tokio::spawn(async move {
            loop {
                let first = numbers.fetch_add(batch, Ordering::Relaxed);
                if first >= messages {
                    return anyhow::Ok(());
                }
                keep_pace(first, window, &tallies).await?;
                sink.put((first..messages.min(first + batch)).map(|n| payload(n, size)).collect()).await?;
            }
        })
    };
    let tasks: Vec<_> = sinks.into_iter().map(publish).collect();
    try_join_all(tasks).await?.into_iter().collect()
}
