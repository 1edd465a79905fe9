//! [`Meddler`]: somebody between client and server who makes sessions forget what they listen on, as a pooler does that resets them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

pub(crate) struct Meddler {
    pub(crate) port: u16,
    orders: watch::Sender<usize>,
    done: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Meddler {
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (orders, done) = (watch::Sender::new(0), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let (orders, done) = (orders.clone(), Arc::clone(&done));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let session = Session { orders: orders.subscribe(), done: Arc::clone(&done) };
                    tokio::spawn(session.forward(client, server));
                }
            }
        });
        Self { port, orders, done, task }
    }

    /// Makes every session that listens forget it, as soon as it is idle.
    pub(crate) fn unlisten(&self) {
        self.orders.send_modify(|orders| *orders += 1);
    }

    /// How many sessions have forgotten.
    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Session {
    orders: watch::Receiver<usize>,
    done: Arc<AtomicUsize>,
}

impl Session {
    async fn forward(mut self, mut client: TcpStream, server: u16) -> io::Result<()> {
        let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
        let (mut from_client, mut from_server) = (vec![0; 1 << 14], vec![0; 1 << 14]);
        let mut answers = Vec::new();
        let (mut listens, mut is_idle, mut is_ordered, mut is_swallowing) = (false, false, false, false);
        self.orders.mark_unchanged();
        loop {
            if is_ordered && is_idle && listens && !is_swallowing {
                let query = b"UNLISTEN *\0";
                server.write_all(b"Q").await?;
                server.write_all(&u32::try_from(query.len() + 4).unwrap().to_be_bytes()).await?;
                server.write_all(query).await?;
                (is_ordered, is_swallowing) = (false, true);
            }
            tokio::select! {
                read = from_client_or_wait(&mut client, &mut from_client, is_swallowing) => {
                    let bytes = &from_client[..read?];
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    listens |= bytes.windows(7).any(|window| window == b"LISTEN ");
                    is_idle = false;
                    server.write_all(bytes).await?;
                }
                read = server.read(&mut from_server) => {
                    let read = read?;
                    if read == 0 {
                        return Ok(());
                    }
                    answers.extend_from_slice(&from_server[..read]);
                    // Each answer is a letter, a length that counts itself, and so much.
                    while let Some(length) = answers.get(1..5) {
                        let length = 1 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
                        if answers.len() < length {
                            break;
                        }
                        let answer: Vec<u8> = answers.drain(..length).collect();
                        let is_ready = answer[0] == b'Z';
                        if is_swallowing && answer[0] != b'A' {
                            if is_ready {
                                is_swallowing = false;
                                self.done.fetch_add(1, Ordering::SeqCst);
                            }
                            continue;
                        }
                        is_idle = is_ready || (is_idle && answer[0] == b'A');
                        client.write_all(&answer).await?;
                    }
                }
                Ok(()) = self.orders.changed() => is_ordered = true,
            }
        }
    }
}

/// Reads what the client says, but not while it would be answered out of turn.
async fn from_client_or_wait(client: &mut TcpStream, buffer: &mut [u8], wait: bool) -> io::Result<usize> {
    if wait {
        return std::future::pending().await;
    }
    client.read(buffer).await
}
