//! The wake-ups of a consumer: it arms, looks once more, and sleeps until somebody rings or time passes.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream};
use pgqueue_core::{Result, Wakeup, Wakeups};
use tokio::{sync::watch, time::Instant};

use super::{Armed, Consumer, Found, Why, claiming::Looked, pulse::ARMED};
use crate::{
    Client, Notice, Notices, Parameter,
    presence::Presence,
    statement,
    value::{CENTURY, RowExt, millis},
};

/// After a look that another consumer's claim may have disturbed, at most.
const BUSY: Duration = Duration::from_millis(2);

/// For how long a consumer stays awake that was rung for in vain, as another was faster, or that has enough to do, in lanes that are
/// not free. Who is awake need not be rung for, which would cost publishers their concurrency: of the transactions that notify,
/// PostgreSQL commits one at a time.
const AWAKE: Duration = Duration::from_millis(8);

/// The pauses between the first looks of who goes to sleep after it found something that was not rung for, or while a publisher is at
/// work: more may come so. It is armed meanwhile, so that others may ring for it as well. The first is also for how long it waits
/// before it arms.
const DOZE: [Duration; 4] =
    [Duration::from_millis(1), Duration::from_millis(2), Duration::from_millis(4), Duration::from_millis(8)];

/// How long to sleep while a publisher is at work who may not know that this consumer sleeps: it looked before, and commits after.
const WRITERS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];

/// For how long an arming must last on for a sleep to begin: the pulse has made it last longer by then.
const MARGIN: Duration = Duration::from_secs(5);

struct Listening<C: Client> {
    consumer: Arc<Consumer<C>>,
    /// `None` if the client only polls.
    bell: Option<Notices>,
    /// Among the streams that listen.
    _presence: Presence,
    changed: watch::Receiver<()>,
    found: Arc<Found>,
    /// What had arrived when the consumer was last told.
    announced: u64,
    /// How many runs had been taken in when it was last here.
    runs_taken: u64,
    /// Whether it arms before it looks. It was rung for if not, and there is probably something.
    arms: bool,
    /// How often it has looked since something came.
    looks: usize,
    /// When to look again, unless the pulse says so before.
    sleep_until: Instant,
    /// Whether the last look was refused, which the next fetch is to find out.
    refused: bool,
}

/// Why the wait ended.
enum Woken {
    Rung,
    Reconnected,
    /// The client turned out to hear nothing.
    Deaf,
    Changed,
    /// By the pulse.
    Told,
    Slept,
}

/// Listens from now on, until the stream is dropped.
pub(crate) async fn wakeups<C: Client>(consumer: Arc<Consumer<C>>) -> Result<Wakeups> {
    let found = consumer.find().await?;
    let bell = consumer.shared.listener.subscribe_bell(&found.channel).await?;
    let now = Instant::now();
    let (announced, runs_taken) = {
        let state = consumer.lock();
        (state.held.arrivals, state.held.runs_taken)
    };
    let mut listening = Listening {
        changed: consumer.changed.subscribe(),
        announced,
        runs_taken,
        _presence: consumer.shared.pulse.listen(),
        consumer,
        bell,
        found,
        arms: true,
        looks: 0,
        sleep_until: now,
        refused: false,
    };
    listening.changed.mark_unchanged();
    Ok(Box::pin(stream::unfold(Some(listening), |listening| async {
        let mut listening = listening?;
        match listening.next().await {
            Ok(wakeup) => Some((Ok(wakeup), Some(listening))),
            // Listening again would be tried for as long as a lost connection is; a fetch that is refused ends the stream.
            Err(error) if !error.is_transient() && !listening.refused => {
                listening.refused = true;
                Some((Ok(Wakeup::Tick), Some(listening)))
            }
            Err(error) => Some((Err(error), None)),
        }
    })))
}

impl<C: Client> Drop for Listening<C> {
    fn drop(&mut self) {
        self.consumer.to_look.notify_one(); // another stream of this consumer may rely on what this one was about to do
    }
}

impl<C: Client> Listening<C> {
    /// Waits until something can be fetched that was not announced.
    async fn next(&mut self) -> Result<Wakeup> {
        let mut wakeup = Wakeup::Tick;
        if self.consumer.lock().armed.is_none() {
            self.arms = true;
            self.sleep_until = self.sleep_until.min(self.sleep_from()); // what was fetched meanwhile woke it
        }
        loop {
            let (deliverable, arrivals, runs_taken) = {
                let held = &self.consumer.lock().held;
                (held.has_deliverable(), held.arrivals, held.runs_taken)
            };
            if runs_taken != self.runs_taken {
                self.runs_taken = runs_taken;
                self.arms = true;
                self.looks = 0;
                self.sleep_until = self.sleep_from();
            }
            if arrivals != self.announced {
                self.announced = arrivals;
                if deliverable {
                    return Ok(wakeup);
                }
            }
            if !deliverable && Instant::now() >= self.sleep_until {
                let looked = if self.arms { self.arm_and_look().await? } else { self.consumer.look(Why::Rung).await? };
                self.refused = false;
                if looked.messages == 0 {
                    let pause = if self.arms { self.pause(looked) } else { AWAKE };
                    self.arms = true;
                    self.sleep_until = Instant::now() + pause;
                }
                continue;
            }
            match self.wait(deliverable).await {
                Woken::Rung if self.consumer.lock().armed.is_none() => {} // for others: this one looks before it sleeps
                Woken::Rung => {
                    wakeup = Wakeup::Notified;
                    self.arms = false;
                    self.looks = 0;
                    self.sleep_until = Instant::now();
                }
                Woken::Reconnected => {
                    // Whoever rang meanwhile was not heard.
                    self.consumer.lock().held.has_freed = true;
                    self.sleep_until = Instant::now();
                    return Ok(Wakeup::Reconnected);
                }
                Woken::Deaf => {
                    self.bell = None;
                    self.sleep_until = Instant::now();
                }
                Woken::Changed => {
                    // An answer may have made room in a lane, or something due sooner.
                    if self.consumer.lock().held.has_freed {
                        self.sleep_until = Instant::now();
                    }
                }
                Woken::Told => {
                    wakeup = Wakeup::Tick;
                    self.sleep_until = Instant::now();
                }
                Woken::Slept => wakeup = Wakeup::Tick,
            }
        }
    }

    /// When to go to sleep after something came.
    fn sleep_from(&self) -> Instant {
        let state = self.consumer.lock();
        Instant::now()
            + if state.waits_for_lanes() {
                AWAKE
            } else if state.was_rung_for {
                Duration::ZERO
            } else {
                DOZE[0]
            }
    }

    /// Lets publishers know that this consumer sleeps, then looks once more.
    async fn arm_and_look(&mut self) -> Result<Looked> {
        let armed = self.consumer.lock().armed;
        if self.bell.is_some() && armed.is_none_or(|armed| armed.until < Instant::now() + MARGIN) {
            let until = Instant::now() + ARMED;
            let parameters = [Parameter::new(self.found.topic), Parameter::new(millis(ARMED))];
            let rows = self.consumer.query(statement::ARM, &parameters).await?;
            self.consumer.lock().armed = rows.first().and_then(|row| Some(Armed { id: row.get(0).ok()?, until }));
        }
        self.looks += 1;
        // A look that begins now sees whatever was rung for.
        while let Some(bell) = &mut self.bell
            && bell.next().now_or_never().flatten().is_some()
        {}
        self.consumer.look(if self.bell.is_some() { Why::Arming } else { Why::Wanted }).await
    }

    /// How long to sleep after a look that found nothing, unless the pulse says that there is something.
    fn pause(&self, looked: Looked) -> Duration {
        let longest = self.consumer.shared.options.poll_interval();
        let dozes = looked.writers || !self.consumer.lock().was_rung_for;
        let doze = DOZE.get(self.looks.saturating_sub(1)).copied().filter(|_| dozes);
        let pause = match looked {
            Looked { busy: true, .. } | Looked { more: true, .. } => BUSY.mul_f64(fastrand::f64()).min(longest),
            _ if let Some(doze) = doze => doze,
            Looked { writers: true, .. } => WRITERS[usize::from(self.looks > DOZE.len() + 1)].min(longest),
            _ => CENTURY,
        };
        pause.min(looked.wait.unwrap_or(CENTURY))
    }

    async fn wait(&mut self, deliverable: bool) -> Woken {
        self.consumer.lock().asleep = (!deliverable).then(Instant::now);
        let woken = self.woken(deliverable).await;
        self.consumer.lock().asleep = None;
        woken
    }

    async fn woken(&mut self, deliverable: bool) -> Woken {
        let bell = async {
            match &mut self.bell {
                Some(bell) => bell.next().await,
                None => std::future::pending().await,
            }
        };
        let sleep = async {
            if deliverable {
                std::future::pending::<()>().await; // what waits is announced: no more noise
            } else {
                tokio::time::sleep_until(self.sleep_until).await;
            }
        };
        tokio::select! {
            notice = bell => match notice {
                Some(Notice::Reconnected) => Woken::Reconnected,
                Some(Notice::Notified(_)) => Woken::Rung,
                None => Woken::Deaf,
            },
            _ = self.changed.changed() => Woken::Changed,
            () = self.consumer.to_look.notified() => Woken::Told,
            () = sleep => Woken::Slept,
        }
    }
}
