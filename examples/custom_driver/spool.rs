//! The driver: a subscription is a directory, a message a file in it, and every change of its state a rename.
//!
//! Who claims a message locks its file, and the operating system takes the lock from a process that dies, however it dies:
//! what is claimed and not locked was abandoned, and whoever looks next requeues it.
//!
//! Left out, to fit on a page: order, batches, and all of a message but its payload, which are refused; the backoff of
//! whoever inserted the subscription last, since every consumer goes by its own; and speed when more than some thousand
//! messages wait, since every fetch looks at all of them.

use std::{
    fs::{self, File},
    io::{self, ErrorKind::NotFound, ErrorKind::WouldBlock},
    time::Duration,
};

use async_trait::async_trait;
use futures::stream;
use pgqueue_core::{Ack, Acker, Delivery, Requeue, Result, Subscription, SubscriptionDriver, Wakeup, Wakeups};
use tokio::{task::spawn_blocking, time::timeout};

use crate::files::{Mailbox, Name, State, after, now, sync};
use crate::store::Spool;

/// How often a consumer looks for what became due, and for what other processes did.
const TICK: Duration = Duration::from_millis(50);

/// One consumer of one subscription.
#[derive(Clone)]
pub(crate) struct SpoolSubscription {
    pub(crate) spool: Spool,
    pub(crate) options: Subscription,
    pub(crate) mailbox: Mailbox,
}

#[async_trait]
impl SubscriptionDriver for SpoolSubscription {
    async fn insert_subscription(&self) -> Result<()> {
        self.spool.insert(&self.options).await
    }

    async fn listen(&self) -> Result<Wakeups> {
        self.mailbox.list(State::Ready)?;
        Ok(Box::pin(stream::unfold(self.spool.bell.subscribe(), |mut bell| async {
            let rung = timeout(TICK, bell.changed()).await;
            Some((Ok(rung.map_or(Wakeup::Tick, |_| Wakeup::Notified)), bell))
        })))
    }

    /// Awaits nothing, so that a dropped fetch has claimed nothing.
    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        for name in self.mailbox.list(State::Claimed)? {
            self.claim(name, State::Claimed).ok(); // what was abandoned is taken over, and dropped
        }
        for name in self.mailbox.list(State::Ready)?.into_iter().take_while(|name| name.due <= now()) {
            match self.claim(name, State::Ready) {
                Ok(claim) => {
                    let message = self.mailbox.read(name, State::Claimed, self.options.topic())?;
                    return Ok(Some(Delivery::new(message, claim)));
                }
                Err(error) if matches!(error.kind(), NotFound | WouldBlock) => {} // somebody else was faster
                Err(error) => return Err(self.mailbox.failed(error)),
            }
        }
        Ok(None)
    }
}

impl SpoolSubscription {
    fn claim(&self, name: Name, state: State) -> io::Result<Claim> {
        let file = File::open(self.mailbox.path(name, state))?;
        file.try_lock()?;
        fs::rename(self.mailbox.path(name, state), self.mailbox.path(name, State::Claimed))?;
        Ok(Claim { subscription: self.clone(), name, since: now(), file })
    }
}

/// A message in this consumer's hands.
struct Claim {
    subscription: SpoolSubscription,
    name: Name,
    since: u64,
    /// Locked.
    file: File,
}

impl Claim {
    /// Moves the message to where the answer sends it, and unlocks it.
    fn answer(&self, ack: Ack) -> io::Result<()> {
        let Self { subscription: SpoolSubscription { spool, options, mailbox }, name, since, file } = self;
        let claimed = mailbox.path(*name, State::Claimed);
        let bury = |reason: &str| {
            fs::rename(&claimed, mailbox.path(*name, State::Dead))?;
            fs::write(mailbox.path(*name, State::Reason), reason)
        };
        let attempt = name.failed + 1;
        match ack {
            Ack::Ok => fs::remove_file(&claimed),
            Ack::Requeue(Requeue { delay, .. }) if attempt < options.backoff().max_attempts() => {
                let due = after(delay.unwrap_or_else(|| options.backoff().delay(attempt)));
                let again = Name { due, id: name.id, failed: attempt, delivered: *since, requeued: now() };
                fs::rename(&claimed, mailbox.path(again, State::Ready))
            }
            Ack::Reject { reason } | Ack::Requeue(Requeue { reason: Some(reason), .. }) => bury(&reason),
            _ => bury("requeued"),
        }?;
        file.unlock()?;
        spool.bell.send_replace(());
        Ok(())
    }
}

#[async_trait]
impl Acker for Claim {
    async fn settle(self: Box<Self>, ack: Ack) -> Result<()> {
        let mailbox = self.subscription.mailbox.clone();
        let settling = spawn_blocking(move || self.answer(ack).and_then(|()| sync(&self.subscription.mailbox.dir)));
        settling.await.map_err(io::Error::other).flatten().map_err(|error| mailbox.failed(error))
    }
}

/// Requeues at once; a message that was answered is no longer there to be requeued.
impl Drop for Claim {
    fn drop(&mut self) {
        self.answer(Ack::requeue_after(Duration::ZERO)).ok();
    }
}
