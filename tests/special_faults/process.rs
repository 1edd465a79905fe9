//! Processes of their own: this test program, run again for one role.

use std::{collections::BTreeMap, io::Write, process::Stdio, time::Duration};

use futures::StreamExt;
use pgqueue_core::{
    Ack, Backoff, BoxError, Job, NewMessage, Order, Publisher, RetryConfig, RetryPolicy, Router, Subscription, Worker,
    subscribe,
};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::TokioPostgres;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
};

use crate::common::{number, patiently};

const ROLE: &str = "PGQUEUE_SPECIAL_ROLE";
const URL: &str = "PGQUEUE_SPECIAL_URL";
const CLIENT: &str = "PGQUEUE_SPECIAL_CLIENT";

/// What a process says: a word and a message's number.
pub(crate) type Said = (String, u64);

/// A process that plays a role; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    said: mpsc::UnboundedReceiver<Said>,
}

impl Process {
    pub(crate) fn start<C: Client>(role: &str, url: &str, environment: &[(String, String)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["process::role", "--exact", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .env(URL, url)
            .env(CLIENT, std::any::type_name::<C>())
            .envs(environment.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (say, said) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((word, number)) = line.strip_prefix("SAYS ").and_then(|line| line.split_once(' ')) {
                    say.send((word.to_owned(), number.parse().unwrap())).ok();
                }
            }
        });
        Self { child, said }
    }

    /// What it says next; `None` once it has ended.
    pub(crate) async fn says(&mut self) -> Option<Said> {
        patiently("a word of a process", self.said.recv()).await
    }

    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

fn say(word: &str, number: u64) {
    let line = format!("\nSAYS {word} {number}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// The subscription that all roles share.
pub(crate) fn subscription() -> Subscription {
    let backoff = Backoff::fixed(Duration::from_secs(1)).with_jitter(0.0).with_max_attempts(3);
    Subscription::new("invoices", "orders")
        .with_order(Order::ByKey)
        .with_lease(Duration::from_secs(2))
        .with_backoff(backoff)
}

/// Another one, of which a message goes to whoever has a handler for its kind.
pub(crate) fn routed() -> Subscription {
    let backoff = Backoff::fixed(Duration::from_millis(100)).with_max_attempts(1000);
    Subscription::new("routed", "orders").with_lease(Duration::from_secs(1)).with_backoff(backoff).with_prefetch(4)
}

/// One with a message that nobody survives.
pub(crate) fn deadly() -> Subscription {
    let backoff = Backoff::fixed(Duration::ZERO).with_max_attempts(3);
    Subscription::new("deadly", "orders").with_lease(Duration::from_secs(1)).with_backoff(backoff)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "what other tests run as a process"]
async fn role() {
    let of = |name| std::env::var(name).expect("only other tests run this");
    let (role, url) = (of(ROLE), of(URL));
    if of(CLIENT) == std::any::type_name::<Sqlx>() {
        play::<Sqlx>(&role, &url).await;
    } else {
        play::<TokioPostgres>(&role, &url).await;
    }
}

async fn play<C: Client>(role: &str, url: &str) {
    let queue = PgQueue::<C>::connect(url).await.unwrap();
    match role {
        "publish" => publish(&queue).await,
        "consume" => consume(&queue).await,
        "hold" => hold(&queue).await,
        "abort at 7" => abort_at_7(&queue).await,
        kind => route(&queue, kind).await,
    }
}

/// Publishes 30 numbers of three keys, and one that is to come 2 seconds later.
async fn publish<C: Client>(queue: &PgQueue<C>) {
    for number in 0..30_u64 {
        let message = NewMessage::json(&number).unwrap().with_key((number % 3).to_string());
        queue.publish("orders", vec![message]).await.unwrap();
    }
    let later = NewMessage::json(&100).unwrap().with_delay(Duration::from_secs(2));
    queue.publish("orders", vec![later]).await.unwrap();
    say("published", 100);
    std::future::pending::<()>().await;
}

/// Handles what comes: every tenth only at its second attempt, and each eleventh for longer than the lease.
async fn consume<C: Client>(queue: &PgQueue<C>) {
    let mut stream = subscribe(queue.subscription(subscription())).await.unwrap();
    while let Some(delivery) = stream.next().await {
        let delivery = delivery.unwrap();
        let (number, attempt) = (number(&delivery), delivery.message().attempt());
        if number % 10 == 5 && attempt == 1 {
            say("requeued", number);
            delivery.requeue().await.unwrap();
            continue;
        }
        if number % 11 == 3 {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        delivery.ok().await.unwrap();
        say("handled", number);
    }
}

/// Takes what comes and answers nothing.
async fn hold<C: Client>(queue: &PgQueue<C>) {
    let mut stream = subscribe(queue.subscription(subscription())).await.unwrap();
    let mut held = Vec::new();
    while let Some(delivery) = stream.next().await {
        let delivery = delivery.unwrap();
        say("held", number(&delivery));
        held.push(delivery);
    }
}

/// Handles what comes, and aborts the process at one message.
async fn abort_at_7<C: Client>(queue: &PgQueue<C>) {
    let mut stream = subscribe(queue.subscription(deadly())).await.unwrap();
    while let Some(delivery) = stream.next().await {
        let delivery = delivery.unwrap();
        let number = number(&delivery);
        say("began", number);
        if number == 7 {
            std::process::abort();
        }
        delivery.ok().await.unwrap();
        say("handled", number);
    }
}

/// Handles messages of one kind, and knows no other.
async fn route<C: Client>(queue: &PgQueue<C>, kind: &str) {
    let policy = Some(RetryPolicy::new(1000, Duration::from_millis(50)));
    let stream = subscribe(queue.subscription(routed())).await.unwrap();
    let stream = stream.with_retry(RetryConfig::default().with_connection(policy));
    let router = Router::new().on(kind, async |job: Job<u64>| {
        say("handled", job.value);
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok::<_, BoxError>(Ack::Ok)
    });
    Worker::routed(stream, router).with_concurrency(4).run().await.unwrap();
}

/// Counts what several processes say, until each of these numbers was said to be handled.
pub(crate) async fn until_handled(processes: &mut [Process], numbers: &[u64]) -> BTreeMap<u64, usize> {
    let mut handled = BTreeMap::new();
    while !numbers.iter().all(|number| handled.contains_key(number)) {
        let words = processes.iter_mut().map(|process| Box::pin(process.says()));
        let (said, _, _) = futures::future::select_all(words).await;
        if let Some((word, number)) = said
            && word == "handled"
        {
            *handled.entry(number).or_default() += 1;
        }
    }
    handled
}
