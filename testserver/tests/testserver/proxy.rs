//! A proxy cuts, stalls and delays what goes through it.

use std::{
    io,
    net::Ipv4Addr,
    process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use pgqueue_testserver::Proxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{error::Elapsed, timeout},
};

use crate::support::{PATIENCE, eventually};

/// How long nothing must happen where nothing may happen.
const QUIET: Duration = Duration::from_millis(300);

/// How often a proxy is cut while processes are started: some have a copy of its socket then.
const CUTS: usize = 500;

/// Starts a proxy to a service that sends back what it receives.
async fn proxied_echo() -> Proxy {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Proxy::start(port).await.unwrap()
}

async fn connect(proxy: &Proxy) -> io::Result<TcpStream> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await
}

async fn within<T>(patience: Duration, future: impl Future<Output = io::Result<T>>) -> Result<io::Result<T>, Elapsed> {
    timeout(patience, future).await
}

/// Sends `text` and reads as many bytes.
async fn echo(stream: &mut TcpStream, text: &str) -> io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    read(stream, text.len()).await
}

async fn read(stream: &mut TcpStream, length: usize) -> io::Result<String> {
    let mut bytes = vec![0; length];
    within(PATIENCE, stream.read_exact(&mut bytes)).await.expect("an answer")?;
    Ok(String::from_utf8(bytes).unwrap())
}

#[tokio::test]
async fn proxy_cuts_and_restores() {
    let proxy = proxied_echo().await;
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(echo(&mut stream, "one").await.unwrap(), "one");
    assert_eq!(proxy.open_connections(), 1);

    proxy.cut().await;
    proxy.cut().await; // nothing to do
    assert_eq!(proxy.open_connections(), 0);
    assert!(echo(&mut stream, "two").await.is_err());
    assert_eq!(connect(&proxy).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);

    proxy.restore().await.unwrap();
    proxy.restore().await.unwrap(); // nothing to do
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(echo(&mut stream, "three").await.unwrap(), "three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_is_restored_while_processes_are_started() {
    let proxy = proxied_echo().await;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                process::Command::new("true").status().unwrap();
            }
        });
        let cuts = async {
            for _ in 0..CUTS {
                proxy.cut().await;
                proxy.restore().await?;
            }
            Ok::<_, pgqueue_testserver::Error>(())
        };
        let restored = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(cuts));
        done.store(true, Ordering::Relaxed);
        restored.unwrap();
    });
}

#[tokio::test]
async fn cut_whose_future_is_dropped_is_a_cut() {
    let proxy = proxied_echo().await;
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(echo(&mut stream, "one").await.unwrap(), "one");
    tokio::select! {
        biased;
        () = proxy.cut() => panic!("it was not to be awaited"),
        () = std::future::ready(()) => {}
    }
    assert!(echo(&mut stream, "two").await.is_err());

    proxy.restore().await.unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(echo(&mut stream, "three").await.unwrap(), "three");
}

#[tokio::test]
async fn black_hole_moves_nothing() {
    let proxy = proxied_echo().await;
    let mut old = connect(&proxy).await.unwrap();
    assert_eq!(echo(&mut old, "one").await.unwrap(), "one");

    proxy.black_hole(true);
    let mut new = connect(&proxy).await.unwrap();
    for stream in [&mut old, &mut new] {
        stream.write_all(b"two").await.unwrap();
        assert!(within(QUIET, stream.read_u8()).await.is_err(), "a byte or an end came through");
    }
    assert_eq!(proxy.open_connections(), 2);

    proxy.black_hole(false);
    for stream in [&mut old, &mut new] {
        assert_eq!(read(stream, 3).await.unwrap(), "two");
    }
}

#[tokio::test]
async fn cut_gets_through_a_black_hole() {
    let proxy = proxied_echo().await;
    proxy.black_hole(true);
    let mut stream = connect(&proxy).await.unwrap();
    proxy.cut().await;
    assert!(echo(&mut stream, "one").await.is_err());
}

#[tokio::test]
async fn held_answers_come_later() {
    let proxy = proxied_echo().await;
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(echo(&mut stream, "one").await.unwrap(), "one");
    proxy.hold_answers(true);
    stream.write_all(b"two").await.unwrap();
    assert!(within(QUIET, stream.read_u8()).await.is_err(), "a byte came back");
    proxy.hold_answers(false);
    assert_eq!(read(&mut stream, 3).await.unwrap(), "two");
}

#[tokio::test]
async fn half_closed_connection_can_still_be_written() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port()).await.unwrap();
    let mut client = connect(&proxy).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"one").await.unwrap();
    assert_eq!(read(&mut client, 3).await.unwrap(), "one");

    proxy.half_close();
    let end = within(PATIENCE, client.read(&mut [0; 8])).await.expect("an end").unwrap();
    assert_eq!(end, 0);
    client.write_all(b"two").await.unwrap();
    assert_eq!(read(&mut server, 3).await.unwrap(), "two");

    // Others are not concerned.
    let mut client = connect(&proxy).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"three").await.unwrap();
    assert_eq!(read(&mut client, 5).await.unwrap(), "three");
}

#[tokio::test]
async fn redirected_connections_go_to_the_other_server() {
    let proxy = proxied_echo().await;
    let mut old = connect(&proxy).await.unwrap();
    assert_eq!(echo(&mut old, "one").await.unwrap(), "one");
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    proxy.redirect(other.local_addr().unwrap().port());
    let _new = connect(&proxy).await.unwrap();
    within(PATIENCE, other.accept()).await.expect("a connection").unwrap();
    assert_eq!(echo(&mut old, "two").await.unwrap(), "two");
}

#[tokio::test]
async fn delay_holds_bytes_back_in_both_directions() {
    let proxy = proxied_echo().await;
    let mut stream = connect(&proxy).await.unwrap();
    proxy.set_delay(QUIET);
    let start = std::time::Instant::now();
    assert_eq!(echo(&mut stream, "one").await.unwrap(), "one");
    assert!(start.elapsed() >= 2 * QUIET);
}

#[tokio::test]
async fn large_messages_arrive_whole() {
    let proxy = proxied_echo().await;
    let (mut from, mut to) = connect(&proxy).await.unwrap().into_split();
    let sent: Vec<u8> = (0..5_000_000_u32).map(|index| (index % 251) as u8).collect();
    let mut received = Vec::new();
    let sending = async {
        to.write_all(&sent).await?;
        to.shutdown().await
    };
    let both = async { tokio::try_join!(sending, from.read_to_end(&mut received)) };
    within(PATIENCE, both).await.expect("the end").unwrap();
    assert!(received == sent);
    eventually("the connection is no longer counted", || proxy.open_connections() == 0).await;
}

#[tokio::test]
async fn dropped_proxy_closes_everything() {
    let proxy = proxied_echo().await;
    let port = proxy.port();
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(echo(&mut stream, "one").await.unwrap(), "one");
    drop(proxy);
    assert!(echo(&mut stream, "two").await.is_err());
    let closed = || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err();
    eventually("connections are refused", closed).await;
}
