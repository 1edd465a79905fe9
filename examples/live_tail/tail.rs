//! [`Tail`]: a subscription for as long as somebody looks.

use std::{
    convert::Infallible,
    future::{Future, pending},
    io,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::Context;
use futures::StreamExt;
use pgqueue_core::{ConsumeStream, ErrorKind, NewMessage, Result, Subscription, subscribe};
use pgqueue_examples::Signals;
use pgqueue_postgres::{Client, PgQueue};
use tokio::{
    io::{AsyncWriteExt, stdout},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{earthquakes::publish_slowly, line::lines};

/// How often it looks whether it has caught up.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(crate) struct Tail<'a, C: Client> {
    pub(crate) queue: &'a PgQueue<C>,
    pub(crate) subscription: &'a Subscription,
    /// Whether it ends when it has caught up.
    pub(crate) exits: bool,
}

impl<C: Client> Tail<'_, C> {
    /// Prints messages until a signal comes, and publishes some when it has caught up. Returns how many it printed.
    pub(crate) async fn run(&self, live: Vec<NewMessage>, mut signals: Signals) -> anyhow::Result<usize> {
        let stream = subscribe(self.queue.subscription(self.subscription.clone())).await?;
        let (stop, printed) = (CancellationToken::new(), AtomicUsize::new(0));
        let printing = print(stream.until(stop.cancelled()), &printed);
        let looking = async {
            self.caught_up().await?;
            eprintln!("caught up after {} messages; what follows is live", printed.load(Ordering::Relaxed));
            publish_slowly(self.queue, self.subscription.topic(), live).await?;
            if self.exits {
                self.caught_up().await?;
                stop.cancel();
            }
            Ok(pending::<Infallible>().await)
        };
        let stopping = async {
            signals.next().await;
            stop.cancel();
            signals.next().await;
        };
        tokio::select! {
            done = printing => done?,
            failed = looking => match failed {
                Err(error) => return Err(error),
                Ok(never) => match never {},
            },
            () = stopping => {} // `printing` is dropped here
        }
        Ok(printed.into_inner())
    }

    /// Waits until nothing is left that was published before.
    async fn caught_up(&self) -> anyhow::Result<()> {
        loop {
            match self.queue.stats(self.subscription.name()).await {
                Ok(stats) if stats.waiting + stats.in_flight + stats.retrying == 0 && stats.waiting_is_exact => {
                    return Ok(());
                }
                Err(error) if !error.is_transient() => return Err(error.into()),
                _ => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Deletes the subscription, if there is one.
    pub(crate) async fn delete(&self) -> Result<()> {
        self.queue.consumers_gone().await;
        match self.queue.delete_subscription(self.subscription.name()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()), // never inserted, or gone with its topic
            deleted => deleted,
        }
    }
}

/// Prints what comes, until the stream ends or nobody reads any more.
async fn print(stream: ConsumeStream<impl Future<Output = ()>>, printed: &AtomicUsize) -> anyhow::Result<()> {
    let (mut stream, mut stdout) = (pin!(stream), stdout());
    while let Some(delivery) = stream.next().await {
        let delivery = delivery?;
        let lines = lines(delivery.messages())?;
        let written = async {
            stdout.write_all(&lines).await?;
            stdout.flush().await // only this says whether they are out
        };
        match written.await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()), // `head` has had enough
            written => written.context("cannot write to stdout")?,
        }
        printed.fetch_add(delivery.messages().len(), Ordering::Relaxed);
        if let Err(error) = delivery.ok().await {
            eprintln!("the latest lines may come again: {error}");
        }
    }
    Ok(())
}
