//! [`PoolStop`]: how a pool asks one of its workers to stop.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures::FutureExt;
use tokio::sync::oneshot;

/// The stop signal of the stream that a [`WorkerPool`](crate::WorkerPool) gives to a worker: resolves when that worker is to
/// stop.
#[derive(Debug)]
#[must_use = "a signal says nothing unless it is polled"]
pub struct PoolStop(oneshot::Receiver<()>);

impl PoolStop {
    /// Makes a signal that resolves once the other half is used or dropped.
    pub(crate) fn new() -> (oneshot::Sender<()>, Self) {
        let (stop, stopped) = oneshot::channel();
        (stop, Self(stopped))
    }
}

impl Future for PoolStop {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_unpin(cx).map(drop)
    }
}
