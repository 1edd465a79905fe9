//! [`Link`]: what lies between a consumer and the store, and the [`Mishap`]s on it.

use std::{
    future::pending,
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use pgqueue_core::{Error, ErrorKind, Result, RetryConfig, RetryPolicy};
use tokio::time::sleep;

use crate::{
    event::{ConsumerEvent, DeliveryEvent},
    faults::{Faults, MOST_HANGS},
    history::History,
};

#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) consumer: u32,
    pub(crate) faults: Faults,
    pub(crate) rng: Arc<Mutex<Rng>>,
    pub(crate) history: Arc<History>,
}

/// What befalls a call, on its way to the store or on its way back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mishap {
    None,
    Slow(Way),
    Fails(Way),
    Hangs(Way),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    There,
    Back,
}

/// With this a stream survives everything but its doom.
pub(crate) fn retries() -> RetryConfig {
    let timeouts = RetryPolicy::new(MOST_HANGS, Duration::from_millis(20));
    RetryConfig::default().with_timeout(Some(timeouts)).with_time_limit(Duration::from_millis(700))
}

impl Link {
    pub(crate) fn draw<T>(&self, from: impl FnOnce(&mut Rng) -> T) -> T {
        from(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn strikes(&self, chance: f64) -> bool {
        self.draw(|rng| rng.f64() < chance)
    }

    /// What befalls the next call.
    pub(crate) fn mishap(&self) -> Mishap {
        if !self.strikes(self.faults.calls) {
            return Mishap::None;
        }
        let way = if self.draw(Rng::bool) { Way::There } else { Way::Back };
        match self.draw(|rng| rng.u8(..4)) {
            0 => Mishap::Fails(way),
            1 => Mishap::Hangs(way),
            _ => Mishap::Slow(way),
        }
    }

    /// Goes one way of a call.
    pub(crate) async fn pass(&self, way: Way, mishap: Mishap) -> Result<()> {
        match mishap {
            Mishap::Slow(slow) if slow == way => {
                let pause = self.draw(|rng| rng.u64(..200));
                sleep(Duration::from_millis(pause)).await;
            }
            Mishap::Fails(fails) if fails == way => {
                self.disturbed("a call fails");
                return Err(Error::new(ErrorKind::Connection, "the connection was lost"));
            }
            Mishap::Hangs(hangs) if hangs == way => {
                self.disturbed("a call hangs");
                pending::<()>().await;
            }
            _ => {}
        }
        Ok(())
    }

    /// What ends the stream.
    pub(crate) fn doom(&self) -> Error {
        let error = if self.draw(Rng::bool) { ErrorKind::Fatal } else { ErrorKind::Panic };
        self.history.of_consumer(self.consumer, ConsumerEvent::Doomed(error));
        if error == ErrorKind::Panic {
            resume_unwind(Box::new("the driver panicked")); // it writes no report
        }
        Error::new(error, "the store gave up")
    }

    pub(crate) fn disturbed(&self, by: &'static str) {
        self.history.of_consumer(self.consumer, ConsumerEvent::Disturbed(by));
    }

    pub(crate) fn garbled(&self, delivery: u32) {
        self.history.of_delivery(delivery, DeliveryEvent::Garbled);
    }
}
