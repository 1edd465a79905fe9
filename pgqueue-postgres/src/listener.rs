//! [`Listener`]: one connection that listens for everybody in the process.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures::{Stream, StreamExt};
use pgqueue_core::{
    BufferReceiver, BufferSender, Error, ErrorKind, Operation, OverflowPolicy, Result, buffer, telemetry,
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior},
};

use crate::{
    Client, ClientError, ListenerConnection, Notification,
    error::{About, repeatable, within},
    ident::ensure_name,
};

/// How many notices wait for a subscriber who does not take them.
const NOTICES: usize = 1024;

/// How often the connection is probed, and how long the answer may take: a connection that is half open is found out within both.
const PROBE: Duration = Duration::from_secs(5);

/// How often it is tried whether notifications come through, for as long as it is not certain, and how long each is waited for.
const TRIALS: usize = 3;
const TRIAL: Duration = Duration::from_millis(500);

/// For how long a client whose connection was deaf is taken to only poll.
const DEAF: Duration = Duration::from_secs(60);

/// The pauses between two tries to connect: the first comes at once, the second after this, then twice as long each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Listens for notifications, over one connection for any number of channels and subscribers.
///
/// It connects when the first subscribes, probes the connection every 5 s, and after a loss connects again: at once, then
/// after 0.5 s, twice as long each time, up to 60 s. After that everybody is told [`Notice::Reconnected`], as notifications
/// may have been missed. With the last subscriber gone it disconnects.
///
/// # Poolers
/// Through a pooler in transaction mode nothing is heard: the session that listens is another client's by then. So the first
/// connection is tried before it is relied upon: the client notifies it from another connection, one of its pool. If that does
/// not arrive, it is the same as a client that only polls, which is logged once for each listener, at level `WARN`; who
/// subscribes a minute later tries again. Let the listening connection lead past the pooler.
///
/// Cloning makes another handle to the same connection.
#[derive(Clone)]
pub struct Listener {
    shared: Arc<Shared>,
}

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // there may be more to tell
pub enum Notice<T = String> {
    /// A notification, with what was sent along.
    Notified(T),
    /// The connection was lost and is back: whatever was sent meanwhile was missed.
    Reconnected,
}

/// The notices of one channel, in the order they came. Dropping it ends the subscription: nothing is heard afterwards.
///
/// Up to 1,024 wait for a subscriber that is slow, then the oldest are dropped and [counted](Self::dropped).
pub struct Notices {
    receiver: BufferReceiver<Notice>,
    subscriber: Subscriber,
}

struct Shared {
    open: Box<dyn Open>,
    state: Mutex<State>,
    /// Rung when channels come or go.
    changed: Notify,
}

#[derive(Default)]
struct State {
    channels: HashMap<String, Channel>,
    last_subscriber: u64,
    /// Whether a task serves the connection.
    served: bool,
    /// Whether the last connection that listened was lost.
    lost: bool,
    hearing: Hearing,
}

/// Whether notifications come through.
#[derive(Clone, Copy, Debug, Default)]
enum Hearing {
    #[default]
    Untried,
    Good,
    /// They did not, at this time.
    Deaf(Instant),
}

struct Channel {
    activity: watch::Sender<Activity>,
    subscribers: HashMap<u64, Arc<BufferSender<Notice>>>,
}

/// Whether the connection listens on a channel.
#[derive(Clone, Debug)]
enum Activity {
    /// It will, once there is one.
    Waiting,
    Listening,
    /// The client only polls, or is deaf.
    Never,
    /// It never did, and trying again cannot help.
    Refused(Arc<Error>),
}

/// Ends the subscription when it is dropped.
struct Subscriber {
    shared: Weak<Shared>,
    channel: String,
    id: u64,
}

/// Opens the connection, whatever the client.
#[async_trait]
trait Open: Send + Sync {
    async fn open(&self) -> Result<Option<Box<dyn ListenerConnection>>, ClientError>;

    /// Notifies a channel from another connection than those that it opens.
    async fn notify(&self, channel: &str) -> Result<(), ClientError>;
}

struct Opener<C>(Arc<C>);

#[async_trait]
impl<C: Client> Open for Opener<C> {
    async fn open(&self) -> Result<Option<Box<dyn ListenerConnection>>, ClientError> {
        self.0.open_listener().await
    }

    async fn notify(&self, channel: &str) -> Result<(), ClientError> {
        self.0.query("select from pg_catalog.pg_notify($1, '')", &[channel.into()]).await.map(drop)
    }
}

impl Listener {
    pub(crate) fn new<C: Client>(client: Arc<C>) -> Self {
        let shared = Shared { open: Box::new(Opener(client)), state: Mutex::default(), changed: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Subscribes to a channel, whose name is taken literally; in force once this returns. While the server is out of
    /// reach it waits.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a name that is empty, has a NUL, or has more than 63 bytes;
    /// [`Fatal`](ErrorKind::Fatal) if the client only polls, or if no notification comes through to it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn subscribe(&self, channel: &str) -> Result<Notices> {
        let notices = self.subscribe_with(channel, NOTICES, OverflowPolicy::DropOldest).await?;
        notices.ok_or_else(|| {
            let message = "this client only polls: give it a way to open a connection that listens, past any pooler in transaction mode";
            Error::new(ErrorKind::Fatal, message).during(Operation::Listen)
        })
    }

    /// As [`subscribe`](Self::subscribe), with payloads that are JSON. One that is not a `T` is logged and skipped.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn subscribe_json<T>(
        &self,
        channel: &str,
    ) -> Result<impl Stream<Item = Notice<T>> + Send + Unpin + use<T>>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let channel_name = channel.to_owned();
        let notices = self.subscribe(channel).await?;
        Ok(Box::pin(notices.filter_map(move |notice| {
            let decoded = match notice {
                Notice::Reconnected => Some(Notice::Reconnected),
                Notice::Notified(payload) => match serde_json::from_str(&payload) {
                    Ok(value) => Some(Notice::Notified(value)),
                    Err(error) => {
                        let class = error.classify();
                        tracing::warn!(
                            channel = channel_name,
                            ?class,
                            "a notification is not the JSON expected, and is skipped"
                        );
                        None
                    }
                },
            };
            std::future::ready(decoded)
        })))
    }

    /// Subscribes for one who only wants to know that something happened; `None` if the client only polls, or is deaf.
    pub(crate) async fn subscribe_bell(&self, channel: &str) -> Result<Option<Notices>> {
        self.subscribe_with(channel, 1, OverflowPolicy::DropNewest).await
    }

    async fn subscribe_with(&self, channel: &str, capacity: usize, policy: OverflowPolicy) -> Result<Option<Notices>> {
        ensure_name("channel", channel).map_err(|error| error.during(Operation::Listen))?;
        let (sender, receiver) = buffer(capacity, policy)?;
        let (subscriber, mut activity) = self.shared.add(channel, Arc::new(sender));
        let known = activity.wait_for(|activity| !matches!(activity, Activity::Waiting)).await;
        match known.as_deref() {
            Ok(Activity::Refused(error)) => {
                let error = Error::new(error.kind(), error.to_string()).with_source(Arc::clone(error));
                Err(error.during(Operation::Listen))
            }
            Ok(Activity::Never) | Err(_) => Ok(None),
            Ok(Activity::Listening | Activity::Waiting) => Ok(Some(Notices { receiver, subscriber })),
        }
    }

    /// Returns how many subscriptions there are, those included that wait for the connection.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.shared.lock().channels.values().map(|channel| channel.subscribers.len()).sum()
    }
}

impl Notices {
    /// Returns how many notices were dropped because this subscriber was slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.receiver.stats().dropped
    }

    /// Returns the channel's name.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.subscriber.channel
    }
}

impl Stream for Notices {
    type Item = Notice;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        self.receiver.poll_next_unpin(cx)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscriber, and sees to it that the connection is served.
    fn add(self: &Arc<Self>, name: &str, sender: Arc<BufferSender<Notice>>) -> (Subscriber, watch::Receiver<Activity>) {
        let mut state = self.lock();
        state.last_subscriber += 1;
        let id = state.last_subscriber;
        let channel = state.channels.entry(name.to_owned()).or_insert_with(|| Channel {
            activity: watch::Sender::new(Activity::Waiting),
            subscribers: HashMap::new(),
        });
        channel.subscribers.insert(id, sender);
        let activity = channel.activity.subscribe();
        if !std::mem::replace(&mut state.served, true) {
            tokio::spawn(serve(Arc::clone(self)));
        }
        drop(state);
        self.changed.notify_one();
        (Subscriber { shared: Arc::downgrade(self), channel: name.to_owned(), id }, activity)
    }

    /// Whether the connection is still wanted; if not, who comes next is served anew.
    fn is_wanted(&self) -> bool {
        let mut state = self.lock();
        state.served = !state.channels.is_empty();
        state.served
    }

    fn is_deaf(&self) -> bool {
        matches!(self.lock().hearing, Hearing::Deaf(since) if since.elapsed() < DEAF)
    }

    fn set(&self, channel: &str, activity: Activity) {
        if let Some(channel) = self.lock().channels.get(channel) {
            channel.activity.send_replace(activity);
        }
    }

    fn set_all(&self, activity: &Activity) {
        for channel in self.lock().channels.values() {
            channel.activity.send_replace(activity.clone());
        }
    }

    /// Tells everybody that there will be no connection; who comes next is served anew.
    fn give_up(&self, activity: &Activity) {
        self.set_all(activity);
        let mut state = self.lock();
        state.channels.clear();
        state.served = false;
    }

    async fn tell(&self, channel: Option<&str>, notice: &Notice) {
        let senders: Vec<_> = {
            let state = self.lock();
            let told = state.channels.iter().filter(|(name, _)| channel.is_none_or(|wanted| wanted == *name));
            told.flat_map(|(_, channel)| channel.subscribers.values().cloned()).collect()
        };
        for sender in senders {
            sender.push(notice.clone()).await.ok(); // never waits; a subscriber that is gone needs no notice
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut state = shared.lock();
        if let Some(channel) = state.channels.get_mut(&self.channel) {
            channel.subscribers.remove(&self.id);
            if channel.subscribers.is_empty() {
                state.channels.remove(&self.channel);
                drop(state);
                shared.changed.notify_one();
            }
        }
    }
}

/// Keeps a connection open as long as somebody wants to hear something.
async fn serve(shared: Arc<Shared>) {
    let mut pause = Duration::ZERO;
    let mut connected_before = false;
    while shared.is_wanted() {
        if shared.is_deaf() {
            return shared.give_up(&Activity::Never);
        }
        let opened = within(PROBE, async { shared.open.open().await.map_err(sending) });
        let lost = match opened.await {
            Ok(Some(connection)) => {
                let since = Instant::now();
                let Err(lost) = attend(&shared, connection, &mut connected_before).await else {
                    connected_before = false; // nobody wanted it any more; whoever comes now misses nothing
                    continue;
                };
                if since.elapsed() > PROBE {
                    pause = Duration::ZERO;
                }
                lost
            }
            Ok(None) => return shared.give_up(&Activity::Never),
            Err(error) => error,
        };
        if !connected_before && !lost.is_transient() {
            return shared.give_up(&Activity::Refused(Arc::new(lost)));
        }
        shared.lock().lost |= connected_before;
        shared.set_all(&Activity::Waiting);
        let source = std::error::Error::source(&lost).map(ToString::to_string);
        tracing::warn!(error = %lost, source, ?pause, "the connection for notifications is not there and will be opened again");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = unwanted(&shared) => {}
        }
        pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }
}

/// Resolves when nobody wants to hear anything.
async fn unwanted(shared: &Shared) {
    while !shared.lock().channels.is_empty() {
        shared.changed.notified().await;
    }
}

/// Listens on one connection until nobody wants it, or until it is lost or found to be deaf.
async fn attend(shared: &Shared, mut connection: Box<dyn ListenerConnection>, connected: &mut bool) -> Result<()> {
    if !is_heard(shared, &mut *connection).await? {
        return Ok(());
    }
    let mut listening: Vec<String> = Vec::new();
    let mut tell_reconnected = *connected;
    let mut probe = tokio::time::interval(PROBE);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    probe.reset();
    loop {
        let wanted: Vec<String> = shared.lock().channels.keys().cloned().collect();
        for channel in &wanted {
            if !listening.contains(channel) {
                call(connection.listen(channel)).await?;
            }
            shared.set(channel, Activity::Listening); // also one that was left and joined again meanwhile
        }
        for channel in listening.iter().filter(|channel| !wanted.contains(channel)) {
            call(connection.unlisten(channel)).await?;
            shared.set(channel, Activity::Waiting); // somebody may have come back meanwhile
        }
        listening = wanted;
        *connected = true;
        if std::mem::take(&mut shared.lock().lost) {
            telemetry::reconnected(); // also if all who listened then have left and come again
        }
        if std::mem::take(&mut tell_reconnected) {
            shared.tell(None, &Notice::Reconnected).await;
        }
        if listening.is_empty() {
            return Ok(());
        }
        tokio::select! {
            notification = connection.next() => {
                let Notification { channel, payload } = notification.map_err(sending)?;
                shared.tell(Some(&channel), &Notice::Notified(payload)).await;
            }
            () = shared.changed.notified() => {}
            _ = probe.tick() => ensure_listens(&mut *connection, listening.len()).await?,
        }
    }
}

/// Returns whether notifications come through to the connection, as far as that can be tried.
async fn is_heard(shared: &Shared, connection: &mut dyn ListenerConnection) -> Result<bool> {
    if matches!(shared.lock().hearing, Hearing::Good) {
        return Ok(true);
    }
    let channel = format!("pgqueue trial {:016x}", fastrand::u64(..));
    call(connection.listen(&channel)).await?;
    let mut heard = None;
    for _ in 0..TRIALS {
        // From another connection: a pooler may give this one the session that listens once more, and then it would hear itself.
        match tokio::time::timeout(PROBE, shared.open.notify(&channel)).await {
            Ok(Ok(())) => heard = hears(connection, &channel).await?,
            // Not every client can read a notification amid its answer. Only a pooler gives both the same session.
            Ok(Err(ClientError::Unusable(_))) => heard = Some(false),
            Ok(Err(error)) => {
                tracing::debug!(%error, "whether notifications come through could not be tried");
                break;
            }
            Err(_) => break,
        }
        if heard.is_some() {
            break;
        }
    }
    call(connection.unlisten(&channel)).await?;
    let said_before = {
        let mut state = shared.lock();
        let said_before = matches!(state.hearing, Hearing::Deaf(_));
        match heard {
            Some(true) => state.hearing = Hearing::Good,
            Some(false) => state.hearing = Hearing::Deaf(Instant::now()),
            None => {}
        }
        said_before
    };
    if heard == Some(false) && !said_before {
        tracing::warn!(
            "no notification comes through to the connection that listens, which may lead to a pooler in transaction mode, or to \
             another database; messages are looked for from time to time. Let that connection lead to the server itself"
        );
    }
    Ok(heard != Some(false))
}

fn sending(error: ClientError) -> Error {
    repeatable(error, About::Queue)
}

/// Returns whether a notification arrives that was sent already; `None` if it came only with an answer.
///
/// A connection of which nothing is asked hears through no pooler. With an answer comes all that its session was sent before: to
/// the server itself that is merely late, but a pooler may have given it, for this answer, the session that listens.
async fn hears(connection: &mut dyn ListenerConnection, channel: &str) -> Result<Option<bool>> {
    if arrives(connection, channel).await? {
        return Ok(Some(true));
    }
    ensure_listens(connection, 1).await?;
    if arrives(connection, channel).await? {
        return Ok(None);
    }
    Ok(Some(false))
}

async fn arrives(connection: &mut dyn ListenerConnection, channel: &str) -> Result<bool> {
    let arrival = async {
        while connection.next().await?.channel != channel {}
        Ok(())
    };
    match tokio::time::timeout(TRIAL, arrival).await {
        Ok(arrived) => arrived.map_err(sending).map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Probes the connection, whose session something between may have reset: then it is as good as lost.
async fn ensure_listens(connection: &mut dyn ListenerConnection, channels: usize) -> Result<()> {
    if usize::try_from(call(connection.ping()).await?) == Ok(channels) {
        return Ok(());
    }
    Err(sending(ClientError::Lost("the session has forgotten what it listens on".into())))
}

/// A call that the connection must answer in time.
async fn call<T>(call: impl Future<Output = Result<T, ClientError>>) -> Result<T> {
    within(PROBE, async { call.await.map_err(sending) }).await
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("subscribers", &self.subscribers()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").field("channel", &self.channel()).finish_non_exhaustive()
    }
}
