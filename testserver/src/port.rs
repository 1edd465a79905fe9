use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    ops::Range,
};

use crate::{Error, Result};

/// Ports below those that operating systems give to outgoing connections.
///
/// A server that is down keeps its port: no connection of another process can take it meanwhile, and a client that tries
/// again and again cannot be connected to itself.
const PORTS: Range<u16> = 20_000..32_000;

/// How many ports are tried.
const TRIES: usize = 200;

/// The address of `port` on this machine.
pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

/// A port that nobody listens on, now.
pub(crate) fn free_port() -> Result<u16> {
    let is_free = |port: &u16| TcpListener::bind(local(*port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(PORTS)).take(TRIES).find(is_free).ok_or_else(|| {
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        Error::io(format!("find a free port of 127.0.0.1 in {PORTS:?}"))(source)
    })
}
