//! [`Turns`]: the consumers of one queue handle that claim from the same lane take turns, as the server would turn all others away.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// For how long a turn is waited for: some claims. Whoever has it may wait for a network that is gone.
const PATIENCE: Duration = Duration::from_millis(20);

/// Whose turn it is, by the subscription.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<i64, Weak<Semaphore>>>);

impl Turns {
    /// Waits for its turn, which lasts until what is returned is dropped; `None` if that takes too long, and one may as well try.
    pub(crate) async fn take(&self, subscription: i64) -> Option<OwnedSemaphorePermit> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = turns.get(&subscription).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                turns.retain(|_, turn| turn.strong_count() > 0);
                let turn = Arc::new(Semaphore::new(1));
                turns.insert(subscription, Arc::downgrade(&turn));
                turn
            })
        };
        timeout(PATIENCE, turn.acquire_owned()).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_claims_from_a_subscription() {
        let turns = Turns::default();
        let first = turns.take(1).await.unwrap();
        let second = turns.take(1);
        tokio::pin!(second);
        assert!(second.as_mut().now_or_never().is_none(), "it is not its turn");
        assert!(turns.take(2).now_or_never().flatten().is_some(), "another subscription is another matter");
        drop(first);
        assert!(second.now_or_never().flatten().is_some(), "it is next");
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_ends_its_turn_holds_up_nobody_for_long() {
        let turns = Turns::default();
        let _first = turns.take(1).await.unwrap();
        let began = Instant::now();
        assert!(turns.take(1).await.is_none());
        assert!(began.elapsed() < 2 * PATIENCE);
    }

    #[tokio::test]
    async fn subscriptions_that_nobody_claims_from_are_forgotten() {
        let turns = Turns::default();
        for subscription in 0..100 {
            drop(turns.take(subscription).await.unwrap());
        }
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
