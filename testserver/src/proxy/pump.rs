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
    pub(super) black_hole: bool,
    pub(super) delay: Duration,
}

/// Connects a client to the port of the server until both are done, or one fails.
pub(super) async fn forward(mut client: TcpStream, server: u16, mut faults: watch::Receiver<Faults>) -> io::Result<()> {
    until_black_hole(&mut faults, false).await?;
    let mut server = TcpStream::connect(local(server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let there = pump(from_client, to_server, faults.clone());
    let back = pump(from_server, to_client, faults);
    tokio::try_join!(there, back).map(drop)
}

/// Passes bytes on in one direction, and the end.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut faults: watch::Receiver<Faults>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        until_black_hole(&mut faults, false).await?;
        let read = tokio::select! {
            biased;
            on = until_black_hole(&mut faults, true) => { on?; continue }
            read = from.read(&mut buffer) => read?,
        };
        let delay = faults.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if read == 0 {
            until_black_hole(&mut faults, false).await?;
            return to.shutdown().await;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            until_black_hole(&mut faults, false).await?;
            tokio::select! {
                biased;
                on = until_black_hole(&mut faults, true) => on?,
                written = to.write(rest) => rest = &rest[written?..],
            }
        }
    }
}

/// Waits until the black hole is on or off.
async fn until_black_hole(faults: &mut watch::Receiver<Faults>, on: bool) -> io::Result<()> {
    let reached = faults.wait_for(|faults| faults.black_hole == on).await;
    reached.map(drop).map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted)) // the proxy was dropped
}
