use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Mutex, watch},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{acceptor::Acceptor, pump::Faults};
use crate::{
    Error, Result,
    port::{free_port, local},
};

mod acceptor;
mod pump;

/// How many ports are tried when somebody else takes the free one first.
const PORT_TRIES: usize = 5;

/// How many connections the operating system keeps for the proxy until it has accepted them.
const BACKLOG: u32 = 1024;

/// A bad network in front of a server: a TCP proxy on a port of 127.0.0.1 of its own.
///
/// It belongs to the runtime that started it. Dropping it closes its port and all connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    /// What befalls the bytes. Its end is the end of all connections.
    faults: watch::Sender<Faults>,
    /// The connections that clients have open.
    open: Arc<AtomicUsize>,
    /// Whether clients can connect.
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// The task accepts connections and serves them until the guard is dropped.
    Open { task: JoinHandle<()>, stop: Option<DropGuard> },
    /// The socket keeps the port, and connections are refused because it does not listen.
    Cut { socket: Option<TcpSocket> },
}

impl Proxy {
    /// Starts a proxy to `server`, a port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when there is no free port.
    pub async fn start(server: u16) -> Result<Self> {
        let mut tries = 1..=PORT_TRIES;
        let (port, listener) = loop {
            let port = free_port()?;
            match bind(port).and_then(|socket| socket.listen(BACKLOG)) {
                Ok(listener) => break (port, listener),
                Err(_) if tries.next().is_some() => {}
                Err(error) => return Err(Error::io(format!("listen on port {port}"))(error)),
            }
        };
        let faults = watch::Sender::new(Faults { server, ..Faults::default() });
        let open = Arc::new(AtomicUsize::new(0));
        let state = Mutex::new(State::Cut { socket: None });
        let proxy = Self { port, faults, open, state };
        *proxy.state.lock().await = proxy.accept(listener);
        Ok(proxy)
    }

    /// The port of 127.0.0.1 that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of connections that clients have open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Closes all connections and refuses new ones until [`restore`](Self::restore). When it returns, they are closed.
    /// Cutting twice does nothing more.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, connections are closed and refused even if the future is dropped.
    pub async fn cut(&self) {
        self.cut_in(&mut *self.state.lock().await).await;
    }

    /// Accepts connections again, after a [`cut`](Self::cut). Does nothing to a proxy that is not cut.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when somebody else took the port.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the proxy either cut or restored.
    pub async fn restore(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        if let State::Open { stop: None, .. } = *state {
            self.cut_in(&mut state).await; // the future that began it was dropped
        }
        if let State::Cut { socket } = &mut *state {
            let socket = socket.take().map_or_else(|| bind(self.port), Ok);
            let listener = socket.and_then(|socket| socket.listen(BACKLOG));
            *state = self.accept(listener.map_err(Error::io(format!("listen on port {} again", self.port)))?);
        }
        Ok(())
    }

    /// While on, connections are accepted and stay open, but no byte moves in either direction, and no end of a
    /// connection is noticed. What waits then moves on when it is switched off.
    pub fn black_hole(&self, on: bool) {
        self.faults.send_modify(|faults| faults.black_hole = on);
    }

    /// While on, what clients send reaches the server, and nothing comes back: the server does what it is asked to, and nobody
    /// hears of it. What waits then moves on when it is switched off.
    pub fn hold_answers(&self, on: bool) {
        self.faults.send_modify(|faults| faults.answers_held = on);
    }

    /// Ends all connections that are open in one direction: clients read an end, and the server goes on hearing them until they
    /// close.
    pub fn half_close(&self) {
        self.faults.send_modify(|faults| faults.half_closed += 1);
    }

    /// Leads connections that clients open from now on to another server, a port of 127.0.0.1.
    pub fn redirect(&self, server: u16) {
        self.faults.send_modify(|faults| faults.server = server);
    }

    /// Holds back what is read, in either direction, for so long before it is passed on. Default: zero.
    ///
    /// The proxy reads on only afterwards, so a delay limits throughput too: to 16 KiB in that time.
    pub fn set_delay(&self, delay: Duration) {
        self.faults.send_modify(|faults| faults.delay = delay);
    }

    async fn cut_in(&self, state: &mut State) {
        if let State::Open { task, stop } = state {
            drop(stop.take());
            drop(task.await); // it does not panic, and nobody aborts it
            *state = State::Cut { socket: bind(self.port).ok() };
        }
    }

    fn accept(&self, listener: TcpListener) -> State {
        let stop = CancellationToken::new();
        let task =
            Acceptor { listener, faults: self.faults.subscribe(), open: Arc::clone(&self.open), stop: stop.clone() };
        State::Open { task: tokio::spawn(task.run()), stop: Some(stop.drop_guard()) }
    }
}

/// A socket that has the port, but does not listen.
fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?; // connections that were just closed do not block the port
    socket.bind(local(port))?;
    Ok(socket)
}
