//! [`GivenUp`]: what was given up and not said yet. That waits until the lock is free, as whoever listens may use the queue.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pgqueue_core::{Message, telemetry};

use crate::store::State;

/// Messages, each with its subscription; a store's subscriptions share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct GivenUp(Arc<Mutex<Vec<(Message, String)>>>);

impl GivenUp {
    pub(crate) fn note(&self, message: Message, subscription: &str) {
        self.lock().push((message, subscription.to_owned()));
    }

    fn say(&self) {
        let given_up = std::mem::take(&mut *self.lock());
        for (message, subscription) in given_up {
            telemetry::given_up(message.topic(), &subscription, message.id());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Message, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state under its lock, which says what was given up once that is free.
pub(crate) struct Locked<'a> {
    state: MutexGuard<'a, State>,
    _saying: Saying, // below the guard, so that it is dropped after it
}

struct Saying(GivenUp);

impl<'a> Locked<'a> {
    pub(crate) fn new(state: MutexGuard<'a, State>) -> Self {
        let saying = Saying(state.given_up.clone());
        Self { state, _saying: saying }
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Saying {
    fn drop(&mut self) {
        self.0.say();
    }
}
