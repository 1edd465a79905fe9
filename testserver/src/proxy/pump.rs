use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

use crate::port::local;

/// What is under way in one direction of one connection, at most.
const CHUNK: usize = 16 << 10;

/// What befalls the bytes of all connections.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// The port of the server that new connections go to.
    pub(super) server: u16,
    pub(super) black_hole: bool,
    /// Whether what the server sends is held back.
    pub(super) answers_held: bool,
    pub(super) delay: Duration,
    /// How often all connections were half closed.
    pub(super) half_closed: u64,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

impl Faults {
    fn stall(&self, way: Way) -> bool {
        self.black_hole || way == Way::Back && self.answers_held
    }
}

/// Connects a client to the server until both are done, or one fails.
pub(super) async fn forward(mut client: TcpStream, mut faults: watch::Receiver<Faults>) -> io::Result<()> {
    until(&mut faults, |faults| !faults.black_hole).await?;
    let port = faults.borrow().server;
    let mut server = TcpStream::connect(local(port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let half_closed = faults.borrow().half_closed;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let there = pump(from_client, to_server, faults.clone(), Way::There, None);
    let back = pump(from_server, to_client, faults, Way::Back, Some(half_closed));
    tokio::try_join!(there, back).map(drop)
}

/// Passes bytes on in one direction, and the end. If connections are half closed more often than `half_closed`, the end comes
/// first, and the bytes go nowhere.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut faults: watch::Receiver<Faults>,
    way: Way,
    mut half_closed: Option<u64>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut is_closed = false;
    loop {
        until(&mut faults, |faults| !faults.stall(way)).await?;
        let before = half_closed;
        let closes = move |faults: &Faults| before.is_some_and(|before| faults.half_closed > before);
        if closes(&faults.borrow()) {
            half_closed = None;
            is_closed = true;
            to.shutdown().await?;
            continue;
        }
        let read = tokio::select! {
            biased;
            on = until(&mut faults, |faults| faults.stall(way) || closes(faults)) => { on?; continue }
            read = from.read(&mut buffer) => read?,
        };
        let delay = faults.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if read == 0 {
            until(&mut faults, |faults| !faults.stall(way)).await?;
            return if is_closed { Ok(()) } else { to.shutdown().await };
        }
        let mut rest = if is_closed { &[] } else { &buffer[..read] };
        while !rest.is_empty() {
            until(&mut faults, |faults| !faults.stall(way)).await?;
            tokio::select! {
                biased;
                on = until(&mut faults, |faults| faults.stall(way)) => on?,
                written = to.write(rest) => rest = &rest[written?..],
            }
        }
    }
}

/// Waits until the faults are such.
async fn until(faults: &mut watch::Receiver<Faults>, such: impl FnMut(&Faults) -> bool) -> io::Result<()> {
    let reached = faults.wait_for(such).await;
    reached.map(drop).map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted)) // the proxy was dropped
}
