//! A publisher in a process of its own: several writers, which note what they publish and what they were told.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use fastrand::Rng;
use futures::future::{Either, select};
use pgqueue_core::{ErrorKind, NewMessage, PublisherExt};
use pgqueue_postgres::PgQueue;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    backend::{Backend, Reached, Step},
    event::{Event, Fate},
    log::Log,
    part::{Payload, TOPIC, told_to_stop},
};

/// How many keys each writer has for itself.
const KEYS: u64 = 8;

/// How long it waits after the server was away.
const BREATH: Duration = Duration::from_millis(20);

/// What a publisher does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Conduct {
    /// The number of its first writer; no two have the same.
    pub(crate) first_writer: u64,
    pub(crate) writers: u64,
    /// How long each waits between two messages.
    pub(crate) pause: Duration,
    /// What part of its messages, in percent, a writer publishes in transactions of its own, and in what way.
    pub(crate) in_transactions: u8,
    /// How long it holds open one in four of those.
    pub(crate) held_open: Duration,
    pub(crate) seed: u64,
}

/// Publishes until it is told to stop.
pub(crate) async fn publish<C: Backend>(queue: &PgQueue<C>, url: &str, conduct: Conduct, log: Log) -> Result<()> {
    let told = told_to_stop()?;
    let (stop, stopped) = watch::channel(false);
    let log = Arc::new(log);
    let mut writers = JoinSet::new();
    for writer in conduct.first_writer..conduct.first_writer + conduct.writers {
        let mut writer = Writer {
            queue: queue.clone(),
            url: url.to_owned(),
            connection: None,
            conduct,
            log: Arc::clone(&log),
            writer,
            next: 0,
            rng: Rng::with_seed(conduct.seed.wrapping_add(writer)),
        };
        let mut stopped = stopped.clone();
        writers.spawn(async move {
            while !*stopped.borrow() {
                writer.write().await;
                let pause = tokio::time::sleep(writer.conduct.pause);
                if let Either::Left(_) = select(Box::pin(stopped.wait_for(|stopped| *stopped)), Box::pin(pause)).await {
                    break;
                }
            }
        });
    }
    told.await;
    stop.send_replace(true);
    writers.join_all().await;
    Ok(())
}

struct Writer<C: Backend> {
    queue: PgQueue<C>,
    url: String,
    connection: Option<C::Connection>,
    conduct: Conduct,
    log: Arc<Log>,
    writer: u64,
    next: u64,
    rng: Rng,
}

impl<C: Backend> Writer<C> {
    async fn write(&mut self) {
        if self.rng.u8(..100) < self.conduct.in_transactions {
            return self.transact().await;
        }
        let (n, message) = self.message();
        let fate = match self.queue.publish_one(TOPIC, message).await.map_err(|error| error.kind()) {
            Ok(_) => Fate::Committed,
            Err(ErrorKind::Unknown) => Fate::InDoubt,
            Err(_) => Fate::RolledBack,
        };
        self.log.note(Event::Ended { ns: vec![n], fate });
        if fate != Fate::Committed {
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Publishes three messages in a transaction that commits, rolls back, or rolls back to before the second one.
    async fn transact(&mut self) {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match C::open(&self.url).await {
                Ok(connection) => connection,
                Err(_) => return tokio::time::sleep(BREATH).await,
            },
        };
        let messages = [self.message(), self.message(), self.message()];
        let numbers = messages.each_ref().map(|(n, _)| *n);
        let [first, second, third] = messages.map(|(_, message)| Step::Publish(message));
        let run = |sql: &str| Step::Run(sql.to_owned());
        let hold = if self.rng.u8(..4) == 0 { self.conduct.held_open } else { Duration::ZERO };
        let hold = Step::Run(format!("select pg_sleep({})", hold.as_secs_f64()));
        let (steps, mut committed) = match self.rng.u8(..3) {
            0 => (vec![first, second, hold, third, Step::Commit], numbers.to_vec()),
            1 => (vec![first, second, hold, third, Step::RollBack], vec![]),
            _ => {
                let savepoint = [first, run("savepoint s"), second, hold, run("rollback to savepoint s"), third];
                (savepoint.into_iter().chain([Step::Commit]).collect(), vec![numbers[0], numbers[2]])
            }
        };
        let reached = C::transact(&self.queue, &mut connection, TOPIC, steps).await;
        let mut rolled_back: Vec<_> = numbers.into_iter().filter(|n| !committed.contains(n)).collect();
        let fate = match reached {
            Reached::End => Fate::Committed,
            Reached::Commit => Fate::InDoubt,
            Reached::NoCommit => {
                rolled_back.append(&mut committed);
                Fate::RolledBack
            }
        };
        self.log.note(Event::Ended { ns: rolled_back, fate: Fate::RolledBack });
        self.log.note(Event::Ended { ns: committed, fate });
        if reached == Reached::End {
            self.connection = Some(connection);
        }
    }

    /// A message with a number of its own, and one of this writer's keys.
    fn message(&mut self) -> (u64, NewMessage) {
        let n = self.writer * 1_000_000 + self.next;
        self.next += 1;
        let key = format!("customer {}.{}", self.writer, self.rng.u64(..KEYS));
        self.log.note(Event::Began { n, key: Some(key.clone()), poison: false });
        let payload = serde_json::to_vec(&Payload { n, poison: false }).expect("a payload is JSON");
        (n, NewMessage::new(payload).with_key(key))
    }
}
