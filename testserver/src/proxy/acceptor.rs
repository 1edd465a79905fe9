use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::pump::{Faults, forward};

/// How long it waits after the operating system had no connection to give, for example for want of file descriptors.
const BREATH: Duration = Duration::from_millis(10);

/// What a proxy does while it is not cut.
pub(super) struct Acceptor {
    pub(super) listener: TcpListener,
    pub(super) faults: watch::Receiver<Faults>,
    /// The connections that clients have open.
    pub(super) open: Arc<AtomicUsize>,
    /// Ends it, and all connections.
    pub(super) stop: CancellationToken,
}

impl Acceptor {
    pub(super) async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((client, _)) => {
                        let counted = Counted::new(&self.open);
                        let faults = self.faults.clone();
                        connections.spawn(async move {
                            let _counted = counted;
                            forward(client, faults).await
                        });
                    }
                    Err(_) => tokio::time::sleep(BREATH).await,
                },
            }
        }
        // A process that is being started has a copy of the socket for a moment, which would go on listening.
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both).ok();
        drop(self.listener);
        connections.shutdown().await;
    }
}

/// One in the count of open connections, for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
