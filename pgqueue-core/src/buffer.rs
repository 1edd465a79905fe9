//! [`buffer`]: a bounded place between one who pushes and one who takes.

use std::{
    collections::VecDeque,
    fmt,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::{Stream, task::AtomicWaker};
use tokio::sync::Notify;

use crate::{Error, ErrorKind, Result};

/// Makes a buffer of at most `capacity` items, for consumers that are pushed to, such as one that feeds a socket.
///
/// A consume stream needs none: it is pulled. Deliveries may be buffered; those that are dropped are requeued.
///
/// ```
/// use futures::StreamExt;
/// use pgqueue_core::{OverflowPolicy, buffer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> pgqueue_core::Result<()> {
/// let (sender, receiver) = buffer(2, OverflowPolicy::DropOldest)?;
/// for frame in 1..=4 {
///     sender.push(frame).await.expect("the receiver is there");
/// }
/// assert_eq!(sender.stats().dropped, 2);
/// drop(sender);
/// assert_eq!(receiver.collect::<Vec<_>>().await, [3, 4]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`ErrorKind::Invalid`] if `capacity` is 0.
pub fn buffer<T>(capacity: usize, policy: OverflowPolicy) -> Result<(BufferSender<T>, BufferReceiver<T>)> {
    if capacity == 0 {
        return Err(Error::new(ErrorKind::Invalid, "the buffer has a capacity of 0; it must be 1 or more"));
    }
    let state = State { items: VecDeque::new(), over: false, warned: false, stats: BufferStats::default() };
    let shared =
        Shared { capacity, policy, state: Mutex::new(state), space: Notify::new(), receiver: AtomicWaker::new() };
    let shared = Arc::new(shared);
    Ok((BufferSender { shared: Arc::clone(&shared) }, BufferReceiver { shared }))
}

/// What happens to an item that is pushed into a full buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // other policies may come
pub enum OverflowPolicy {
    /// The pusher waits for space.
    Block,
    /// It takes the place of the oldest item, which is dropped.
    DropOldest,
    /// It is dropped.
    DropNewest,
    /// The pusher gets it back, as [`PushError::Full`].
    Error,
}

/// What a buffer has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive] // so that counters can be added
pub struct BufferStats {
    /// How many items it holds now.
    pub held: usize,
    /// How many were pushed, dropped ones included.
    pub pushed: u64,
    /// How many were dropped by the policy.
    pub dropped: u64,
    /// How often it became 80 % full, each time with a warning; again only once it was half empty. Buffers of less than 10
    /// items are meant to be full, and give none.
    pub warnings: u64,
}

/// Why an item was not taken; it comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PushError<T> {
    /// The buffer is full and its policy is [`OverflowPolicy::Error`].
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// The least capacity whose filling up is news.
const LEAST_WARNED: usize = 10;

/// The end that pushes.
pub struct BufferSender<T> {
    shared: Arc<Shared<T>>,
}

/// The end that takes: a stream that ends when the sender is gone and all items are taken.
#[must_use = "a receiver takes nothing unless it is polled, and dropping it closes the buffer"]
pub struct BufferReceiver<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    capacity: usize,
    policy: OverflowPolicy,
    state: Mutex<State<T>>,
    /// Rings when an item was taken, or the receiver is gone.
    space: Notify,
    /// Wakes when an item was pushed, or the sender is gone.
    receiver: AtomicWaker,
}

struct State<T> {
    items: VecDeque<T>,
    /// Whether one of the ends is gone.
    over: bool,
    /// Whether the warning was given since the buffer was last half empty.
    warned: bool,
    stats: BufferStats,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Items are dropped outside the lock, so nothing under it panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pushes unless the pusher has to wait, which returns the item.
    fn try_push(&self, item: T) -> Result<Option<T>, PushError<T>> {
        let mut state = self.lock();
        let mut evicted = None;
        if state.over {
            return Err(PushError::Closed(item));
        }
        if state.items.len() >= self.capacity {
            match self.policy {
                OverflowPolicy::Block => return Ok(Some(item)),
                OverflowPolicy::Error => return Err(PushError::Full(item)),
                OverflowPolicy::DropNewest => evicted = Some(item),
                OverflowPolicy::DropOldest => {
                    evicted = state.items.pop_front();
                    state.items.push_back(item);
                }
            }
            state.stats.dropped += 1;
        } else {
            state.items.push_back(item);
        }
        state.stats.pushed += 1;
        let warning = self.warning(&mut state);
        drop(state);
        drop(evicted);
        self.receiver.wake();
        if let Some(held) = warning {
            tracing::warn!(held, capacity = self.capacity, policy = ?self.policy, "a buffer is 80 % full");
        }
        Ok(None)
    }

    /// How many items are held, if that is worth a warning.
    fn warning(&self, state: &mut State<T>) -> Option<usize> {
        let held = state.items.len();
        if state.warned || self.capacity < LEAST_WARNED || held < self.capacity - self.capacity / 5 {
            return None;
        }
        state.warned = true;
        state.stats.warnings += 1;
        Some(held)
    }

    fn take(&self) -> Poll<Option<T>> {
        let mut state = self.lock();
        let Some(item) = state.items.pop_front() else {
            return if state.over { Poll::Ready(None) } else { Poll::Pending };
        };
        state.warned &= state.items.len() > self.capacity / 2;
        drop(state);
        self.space.notify_one();
        Poll::Ready(Some(item))
    }

    fn stats(&self) -> BufferStats {
        let state = self.lock();
        BufferStats { held: state.items.len(), ..state.stats }
    }
}

impl<T> BufferSender<T> {
    /// Pushes an item; into a full buffer, by its policy.
    ///
    /// # Errors
    /// [`PushError`], with the item.
    ///
    /// # Cancel safety
    /// Dropping the future drops the item, unless it was pushed.
    pub async fn push(&self, item: T) -> Result<(), PushError<T>> {
        tokio::task::consume_budget().await; // or one who pushes without a pause would keep the receiver from running
        let mut item = item;
        loop {
            let mut space = pin!(self.shared.space.notified());
            space.as_mut().enable(); // before looking, so that space made meanwhile is not missed
            match self.shared.try_push(item)? {
                None => return Ok(()),
                Some(waiting) => item = waiting,
            }
            space.await;
        }
    }

    /// Returns what the buffer has seen.
    #[must_use]
    pub fn stats(&self) -> BufferStats {
        self.shared.stats()
    }
}

impl<T> Drop for BufferSender<T> {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.receiver.wake();
    }
}

impl<T> BufferReceiver<T> {
    /// Returns what the buffer has seen.
    #[must_use]
    pub fn stats(&self) -> BufferStats {
        self.shared.stats()
    }
}

impl<T> Stream for BufferReceiver<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.shared.receiver.register(cx.waker()); // before looking, so that an item pushed meanwhile is not missed
        self.shared.take()
    }
}

impl<T> Drop for BufferReceiver<T> {
    fn drop(&mut self) {
        let items = {
            let mut state = self.shared.lock();
            state.over = true;
            std::mem::take(&mut state.items)
        };
        self.shared.space.notify_waiters(); // first, since dropping an item is foreign code
        drop(items);
    }
}

impl<T> fmt::Debug for BufferSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BufferSender").field(&self.stats()).finish()
    }
}

impl<T> fmt::Debug for BufferReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BufferReceiver").field(&self.stats()).finish()
    }
}

impl<T> fmt::Debug for PushError<T> {
    /// Shows everything but the item, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the buffer is full",
            Self::Closed(_) => "the buffer's receiver is gone",
        })
    }
}

impl<T> std::error::Error for PushError<T> {}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    async fn pushed(policy: OverflowPolicy) -> (BufferSender<u32>, BufferReceiver<u32>) {
        let (sender, receiver) = buffer(3, policy).unwrap();
        for item in 1..=3 {
            sender.push(item).await.unwrap();
        }
        (sender, receiver)
    }

    async fn rest(sender: BufferSender<u32>, receiver: BufferReceiver<u32>) -> Vec<u32> {
        drop(sender);
        receiver.collect().await
    }

    #[tokio::test]
    async fn full_buffer_follows_its_policy() {
        let (sender, receiver) = pushed(OverflowPolicy::DropOldest).await;
        sender.push(4).await.unwrap();
        assert_eq!((sender.stats().pushed, sender.stats().dropped, sender.stats().held), (4, 1, 3));
        assert_eq!(rest(sender, receiver).await, [2, 3, 4]);

        let (sender, receiver) = pushed(OverflowPolicy::DropNewest).await;
        sender.push(4).await.unwrap();
        assert_eq!((sender.stats().pushed, sender.stats().dropped, sender.stats().held), (4, 1, 3));
        assert_eq!(rest(sender, receiver).await, [1, 2, 3]);

        let (sender, receiver) = pushed(OverflowPolicy::Error).await;
        assert_eq!(sender.push(4).await, Err(PushError::Full(4)));
        assert_eq!((sender.stats().pushed, sender.stats().dropped), (3, 0));
        assert_eq!(rest(sender, receiver).await, [1, 2, 3]);
    }

    #[tokio::test]
    async fn blocked_pusher_goes_on_when_an_item_is_taken() {
        let (sender, mut receiver) = pushed(OverflowPolicy::Block).await;
        {
            let mut push = pin!(sender.push(4));
            assert!(push.as_mut().now_or_never().is_none());
            assert_eq!(receiver.next().await, Some(1));
            push.await.unwrap();
        }
        assert_eq!(rest(sender, receiver).await, [2, 3, 4]);
    }

    #[tokio::test]
    async fn blocked_pusher_that_gives_up_leaves_its_turn_to_the_next() {
        let (sender, mut receiver) = pushed(OverflowPolicy::Block).await;
        {
            let (mut first, mut second) = (Box::pin(sender.push(4)), pin!(sender.push(5)));
            assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
            assert_eq!(receiver.next().await, Some(1));
            drop(first);
            second.await.unwrap();
        }
        assert_eq!(rest(sender, receiver).await, [2, 3, 5]);
    }

    #[tokio::test]
    async fn pushing_ends_with_the_receiver() {
        let (sender, receiver) = pushed(OverflowPolicy::Block).await;
        let mut push = pin!(sender.push(4));
        assert!(push.as_mut().now_or_never().is_none());
        drop(receiver);
        assert_eq!(push.await, Err(PushError::Closed(4)));
        assert_eq!(sender.push(5).await, Err(PushError::Closed(5)));
    }

    #[tokio::test]
    async fn receiver_waits_for_items_and_for_the_end() {
        let (sender, mut receiver) = buffer(1, OverflowPolicy::Block).unwrap();
        let (item, pushed) = tokio::join!(receiver.next(), sender.push(1));
        assert_eq!((item, pushed), (Some(1), Ok(())));
        let (end, ()) = tokio::join!(receiver.next(), async { drop(sender) });
        assert_eq!(end, None);
    }

    #[tokio::test]
    async fn warns_at_80_percent_and_again_after_it_was_half_empty() {
        let (sender, mut receiver) = buffer(10, OverflowPolicy::Block).unwrap();
        let warnings = async |pushes: u32| {
            for item in 0..pushes {
                sender.push(item).await.unwrap();
            }
            sender.stats().warnings
        };
        assert_eq!([warnings(7).await, warnings(1).await, warnings(1).await], [0, 1, 1]);
        receiver.next().await;
        assert_eq!(warnings(1).await, 1, "it was not half empty meanwhile");
        for _ in 0..4 {
            receiver.next().await;
        }
        assert_eq!(warnings(3).await, 2);
    }

    #[tokio::test]
    async fn pushing_without_a_pause_lets_the_receiver_run() {
        let (sender, receiver) = buffer(1, OverflowPolicy::DropOldest).unwrap();
        let receiving = tokio::spawn(receiver.count());
        for item in 0..10_000 {
            sender.push(item).await.unwrap();
        }
        drop(sender);
        assert!(receiving.await.unwrap() > 1);
    }

    #[tokio::test]
    async fn extreme_capacities_do_not_overflow() {
        let (sender, mut receiver) = buffer(usize::MAX, OverflowPolicy::DropOldest).unwrap();
        sender.push(1).await.unwrap();
        assert_eq!((receiver.next().await, receiver.stats().warnings), (Some(1), 0));
    }

    #[test]
    fn capacity_of_zero_is_refused() {
        assert_eq!(buffer::<u32>(0, OverflowPolicy::Block).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[tokio::test]
    async fn errors_do_not_show_the_item() {
        let (sender, receiver) = buffer(1, OverflowPolicy::Error).unwrap();
        drop(receiver);
        assert_eq!(format!("{:?}", sender.push("secret").await.unwrap_err()), "Closed(..)");
    }
}
