//! [`Listener`]: a connection that does nothing but listen.

use std::future::poll_fn;

use async_trait::async_trait;
use pgqueue_postgres::{ClientError, LISTENING, ListenerConnection, Notification};
use postgres_protocol::escape::escape_identifier;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, SimpleQueryMessage, Socket};

use crate::{Tls, error, settings};

/// How many notifications are kept for a reader that is slow.
const CAPACITY: usize = 8192;

/// The longest name of a channel; of a longer one, the server would take the beginning.
const MAX_CHANNEL_BYTES: usize = 63;

/// A connection whose task hands on what the server announces. Both end when it is dropped.
pub(crate) struct Listener {
    client: Client,
    notifications: mpsc::Receiver<Notification>,
    /// Why there are no more notifications; sent before their channel ends.
    end: oneshot::Receiver<ClientError>,
}

impl Listener {
    pub(crate) async fn connect(config: &Config, tls: impl Tls) -> Result<Self, ClientError> {
        let connected = timeout(settings::time_to_connect(config), config.connect(tls)).await;
        let connected = connected.map_err(|elapsed| ClientError::Unreachable(elapsed.into()))?;
        let (client, connection) = connected.map_err(error::connecting)?;
        let (sender, notifications) = mpsc::channel(CAPACITY);
        let (ended, end) = oneshot::channel();
        tokio::spawn(async move {
            let error = forward(connection, &sender).await;
            let _ = ended.send(error);
        });
        Ok(Self { client, notifications, end })
    }

    async fn run(&self, statement: &str) -> Result<(), ClientError> {
        self.client.batch_execute(statement).await.map_err(error::calling)
    }
}

/// Reads until the connection ends. It never waits for the reader of the notifications: a backend that cannot write holds
/// up the notifications of the whole server.
async fn forward<T>(mut connection: Connection<Socket, T>, notifications: &mpsc::Sender<Notification>) -> ClientError
where
    T: TlsStream + Unpin,
{
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(announced))) => {
                let notification = Notification::new(announced.channel(), announced.payload());
                if notifications.try_send(notification).is_err() {
                    let reason = format!("gave up a listening connection with {CAPACITY} notifications unread");
                    return ClientError::Lost(reason.into());
                }
            }
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::debug!(code = notice.code().code(), "the server sent a notice");
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return error::calling(error),
            None => return closed(),
        }
    }
}

fn closed() -> ClientError {
    ClientError::Lost("the listening connection is closed".into())
}

/// Quotes the name of a channel.
fn quoted(channel: &str) -> Result<String, ClientError> {
    if channel.len() > MAX_CHANNEL_BYTES {
        let reason = format!("the name of a channel has at most {MAX_CHANNEL_BYTES} bytes; {channel:?} is longer");
        return Err(ClientError::Unusable(reason.into()));
    }
    Ok(escape_identifier(channel))
}

#[async_trait]
impl ListenerConnection for Listener {
    async fn listen(&mut self, channel: &str) -> Result<(), ClientError> {
        self.run(&format!("LISTEN {}", quoted(channel)?)).await
    }

    async fn unlisten(&mut self, channel: &str) -> Result<(), ClientError> {
        self.run(&format!("UNLISTEN {}", quoted(channel)?)).await
    }

    async fn ping(&mut self) -> Result<i64, ClientError> {
        let answer = self.client.simple_query(LISTENING).await.map_err(error::calling)?;
        let count = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        count.ok_or_else(|| ClientError::Lost("the server did not say on how many channels its session listens".into()))
    }

    async fn next(&mut self) -> Result<Notification, ClientError> {
        let Some(notification) = self.notifications.recv().await else {
            return Err(self.end.try_recv().unwrap_or_else(|_| closed()));
        };
        Ok(notification)
    }
}
