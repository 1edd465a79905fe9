//! [`Crew`]: the tasks of a run, which take their turns in an order that only the seed decides.
//!
//! tokio wakes those who wait for the same thing in an order that it draws from a generator of its own, which nobody can
//! seed. So the tasks of a run are no tasks of tokio's: whoever wakes them, they are polled in an order of ours.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use fastrand::Rng;
use futures::{
    FutureExt,
    future::BoxFuture,
    task::{ArcWake, AtomicWaker, waker},
};

/// A handle to the tasks of a run.
#[derive(Clone)]
pub(crate) struct Crew(Arc<Mutex<State>>);

pub(crate) type TaskId = u64;

struct State {
    rng: Rng,
    last_id: TaskId,
    tasks: BTreeMap<TaskId, Task>,
    /// Woken when any task is.
    work: Arc<AtomicWaker>,
}

struct Task {
    /// `None` while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    alarm: Arc<Alarm>,
}

/// Whether a task wants to be polled.
struct Alarm {
    rung: AtomicBool,
    work: Arc<AtomicWaker>,
}

impl ArcWake for Alarm {
    fn wake_by_ref(this: &Arc<Self>) {
        this.rung.store(true, Ordering::Relaxed);
        this.work.wake();
    }
}

impl Crew {
    pub(crate) fn new(rng: Rng) -> Self {
        let state = State { rng, last_id: 0, tasks: BTreeMap::new(), work: Arc::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> TaskId {
        let mut state = self.state();
        state.last_id += 1;
        let alarm = Alarm { rung: AtomicBool::new(true), work: Arc::clone(&state.work) };
        let task = Task { future: Some(future.boxed()), alarm: Arc::new(alarm) };
        let id = state.last_id;
        state.tasks.insert(id, task);
        state.work.wake();
        id
    }

    pub(crate) fn is_over(&self, id: TaskId) -> bool {
        !self.state().tasks.contains_key(&id)
    }

    /// Drops a task where it stands.
    pub(crate) fn kill(&self, id: TaskId) {
        let task = self.state().tasks.remove(&id);
        drop(task); // not while the state is locked: what is dropped may spawn
    }

    /// Drops all tasks.
    pub(crate) fn dismiss(&self) {
        let tasks = std::mem::take(&mut self.state().tasks);
        drop(tasks);
    }

    /// Runs the tasks, for ever.
    pub(crate) async fn work(&self) {
        poll_fn(|cx| self.take_turns(cx)).await;
    }

    /// Polls every task that was woken, once: what it wakes has its turn when tokio has seen to the time.
    fn take_turns(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        state.work.register(cx.waker());
        let woken = |task: &Task| task.alarm.rung.swap(false, Ordering::Relaxed);
        let mut turns: Vec<_> = state.tasks.iter().filter(|(_, task)| woken(task)).map(|(id, _)| *id).collect();
        state.rng.shuffle(&mut turns);
        drop(state);
        for id in turns {
            let Some((mut future, alarm)) = self.call(id) else { continue };
            match future.poll_unpin(&mut Context::from_waker(&waker(alarm))) {
                Poll::Ready(()) => drop(self.state().tasks.remove(&id)),
                Poll::Pending => self.put_back(id, future),
            }
        }
        Poll::Pending
    }

    fn call(&self, id: TaskId) -> Option<(BoxFuture<'static, ()>, Arc<Alarm>)> {
        let mut state = self.state();
        let task = state.tasks.get_mut(&id)?;
        Some((task.future.take()?, Arc::clone(&task.alarm)))
    }

    fn put_back(&self, id: TaskId, future: BoxFuture<'static, ()>) {
        if let Some(task) = self.state().tasks.get_mut(&id) {
            task.future = Some(future);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
