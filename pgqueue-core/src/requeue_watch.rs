//! How a stream with [`OnRequeue::Stop`](crate::OnRequeue::Stop) hears that one of its deliveries was requeued.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;

/// The stream's end: ready once any of its deliveries was requeued or dropped.
#[derive(Debug, Default)]
pub(crate) struct RequeueSignal {
    requeued: AtomicBool,
    stream: AtomicWaker,
}

impl RequeueSignal {
    pub(crate) fn watch(self: &Arc<Self>) -> RequeueWatch {
        RequeueWatch(Some(Arc::clone(self)))
    }

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        // Registered before looking, so that a requeue between the two is not missed.
        self.stream.register(cx.waker());
        if self.requeued.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The delivery's end: dropping it says "requeued" unless it was disarmed.
#[derive(Debug)]
pub(crate) struct RequeueWatch(Option<Arc<RequeueSignal>>);

impl RequeueWatch {
    /// The delivery ends in some other way than a requeue.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for RequeueWatch {
    fn drop(&mut self) {
        if let Some(signal) = self.0.take() {
            signal.requeued.store(true, Ordering::Release);
            signal.stream.wake();
        }
    }
}
