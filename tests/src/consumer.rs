//! A consumer in a process of its own, which notes every delivery and what became of its answer.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use futures::TryStreamExt;
use pgqueue_core::{Delivery, ErrorKind, RetryConfig, RetryPolicy, subscribe};
use pgqueue_postgres::{Client, PgQueue};
use serde::{Deserialize, Serialize};

use crate::{
    event::{Event, Outcome, micros},
    log::Log,
    part::{Payload, Shape, told_to_stop, until_there},
};

/// What a consumer does.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Conduct {
    pub(crate) shape: Shape,
    /// How many deliveries it works on at the same time.
    pub(crate) concurrency: usize,
    /// How long it works on each.
    pub(crate) work: Duration,
    /// Of so many messages it gives back one, the first time; 0 for none.
    pub(crate) requeue_one_of: u64,
    /// Whether it keeps all that it gets until it is told to stop.
    pub(crate) hold: bool,
}

/// Consumes until it is told to stop, and then leaves.
pub(crate) async fn consume<C: Client>(queue: &PgQueue<C>, conduct: Conduct, log: Log) -> Result<()> {
    let stop = told_to_stop()?;
    let patient = Some(RetryPolicy::new(u32::MAX, Duration::from_millis(100)).with_cap(Duration::from_millis(500)));
    let retry = RetryConfig::default().with_connection(patient).with_query(patient).with_timeout(patient);
    let stream = until_there(async || subscribe(queue.subscription(conduct.shape.subscription())).await).await?;
    let stream = stream.with_retry(retry).until(stop);

    let consumer = Consumer { conduct, log, serial: AtomicU64::new(0), held: Mutex::default() };
    let ended =
        stream.try_for_each_concurrent(consumer.conduct.concurrency, |delivery| consumer.handle(delivery)).await;
    if let Err(error) = &ended {
        consumer.log.note(Event::Gave { up: error.to_string() });
    }
    for (serial, delivery) in consumer.held.into_inner().unwrap_or_else(PoisonError::into_inner) {
        consumer.log.note(Event::Answering { serial, ok: false });
        drop(delivery);
    }
    queue.consumers_gone().await;
    Ok(ended?)
}

struct Consumer {
    conduct: Conduct,
    log: Log,
    serial: AtomicU64,
    held: Mutex<Vec<(u64, Delivery)>>,
}

impl Consumer {
    async fn handle(&self, delivery: Delivery) -> pgqueue_core::Result<()> {
        let message = delivery.message();
        let (attempt, before) = (message.attempt(), message.last_delivered_at().map(micros));
        let Payload { n, poison } = message.json()?;
        let serial = self.serial.fetch_add(1, Ordering::SeqCst);
        self.log.note(Event::Delivered { n, serial, attempt, before });
        if poison {
            std::process::abort();
        }
        if self.conduct.hold {
            self.held.lock().unwrap_or_else(PoisonError::into_inner).push((serial, delivery));
            return Ok(());
        }
        if !self.conduct.work.is_zero() {
            tokio::time::sleep(self.conduct.work).await;
        }
        let requeues = self.conduct.requeue_one_of > 0 && n % self.conduct.requeue_one_of == 0 && attempt == 1;
        self.log.note(Event::Answering { serial, ok: !requeues });
        let answered = if requeues { delivery.requeue().await } else { delivery.ok().await };
        let outcome = match answered.map_err(|error| error.kind()) {
            Ok(()) => Outcome::Accepted,
            Err(ErrorKind::LeaseLost) => Outcome::Refused,
            Err(ErrorKind::Unknown) => Outcome::Unknown,
            Err(_) => Outcome::Failed,
        };
        self.log.note(Event::Answered { serial, outcome });
        Ok(())
    }
}
