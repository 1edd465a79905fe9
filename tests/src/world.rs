//! [`World`]: a server behind a bad network, processes that publish and consume, and what they all noted.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use fastrand::Rng;
use pgqueue_core::{NewMessage, Publisher, Topic};
use pgqueue_testserver::{Proxy, Server};
use pgqueue_tokio_postgres::PgQueue;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::{
    audit::Audit,
    consumer,
    event::{Event, Fate},
    history::History,
    log::{Log, Logs},
    part::{Backing, Part, Payload, Role, SUBSCRIPTION, Shape, TOPIC, said},
    process::Process,
    publisher,
    recovery::Recovery,
    report::Report,
};

/// How long anything may take that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// How often it is looked at what was noted.
const LOOK: Duration = Duration::from_millis(20);

/// How many lines of what a process said are shown when it does not stop.
const LAST_WORDS: usize = 40;

const DATABASE: &str = "queue";

/// The writer that the harness is itself.
const OWN_WRITER: u64 = 1_000;

/// How a scenario is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program whose arguments `part PART` run a [part](crate::run_part).
    pub program: PathBuf,
    /// The client of its processes; a random mix uses both.
    pub backing: Backing,
    /// Decides about what is random.
    pub seed: u64,
    /// Whether it takes its time.
    pub long: bool,
    /// How many times longer than is promised on a quiet machine it may take until what a consumer held is with others.
    pub slack: u32,
    /// How long a random mix lasts.
    pub mix: Duration,
    /// Where the logs stay. Default: they go.
    pub logs: Option<PathBuf>,
}

/// What a world is before anything happens in it.
#[derive(Clone, Debug)]
pub(crate) struct Begin {
    pub(crate) shape: Shape,
    /// Of the server.
    pub(crate) settings: &'static [(&'static str, &'static str)],
    /// How long the server may take for a statement.
    pub(crate) time_limit: Duration,
}

impl Default for Begin {
    fn default() -> Self {
        Self { shape: Shape::default(), settings: &[], time_limit: Duration::from_secs(10) }
    }
}

/// All of it ends when it is dropped.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) shape: Shape,
    pub(crate) rng: Rng,
    pub(crate) history: History,
    pub(crate) consumers: Vec<Process>,
    pub(crate) publishers: Vec<Process>,
    pub(crate) server: Server,
    pub(crate) proxy: Proxy,
    time_limit: Duration,
    log: Log,
    logs: Logs,
    /// Whether its processes take turns in what client they use.
    pub(crate) uses_both: bool,
    /// How many processes there were.
    spawned: u64,
    /// How many messages the harness published.
    published: u64,
    failures: Vec<String>,
    released: Vec<Duration>,
    folder: TempDir,
}

impl World {
    pub(crate) async fn start(begin: Begin, settings: Settings) -> Result<Self> {
        let server =
            begin.settings.iter().fold(Server::builder(), |server, (name, value)| server.with_setting(*name, *value));
        let server = server.start().await?;
        server.create_database(DATABASE).await?;
        let queue = PgQueue::connect(&server.url(DATABASE)).await?;
        queue.migrate().await?;
        queue.create_topic(Topic::new(TOPIC)).await?;
        queue.insert_subscription(&begin.shape.subscription()).await?;

        let folder = tempfile::tempdir()?;
        let mut logs = Logs::default();
        let own = folder.path().join("harness");
        logs.follow("harness", own.clone());
        Ok(Self {
            rng: Rng::with_seed(settings.seed),
            settings,
            shape: begin.shape,
            history: History::default(),
            consumers: Vec::new(),
            publishers: Vec::new(),
            proxy: Proxy::start(server.port()).await?,
            server,
            time_limit: begin.time_limit,
            log: Log::open(&own)?,
            logs,
            uses_both: false,
            spawned: 0,
            published: 0,
            failures: Vec::new(),
            released: Vec::new(),
            folder,
        })
    }

    /// The one number or the other, as it takes its time or not.
    pub(crate) fn rounds(&self, short: usize, long: usize) -> usize {
        if self.settings.long { long } else { short }
    }

    /// Starts a consumer.
    pub(crate) fn consume(&mut self, conduct: consumer::Conduct) -> Result<()> {
        let process = self.spawn("consumer", Role::Consumer(conduct))?;
        self.consumers.push(process);
        Ok(())
    }

    /// Starts a publisher.
    pub(crate) fn publish(&mut self, conduct: publisher::Conduct) -> Result<()> {
        let first_writer = self.spawned * 10; // more than one has
        let process = self.spawn("publisher", Role::Publisher(publisher::Conduct { first_writer, ..conduct }))?;
        self.publishers.push(process);
        Ok(())
    }

    fn spawn(&mut self, what: &str, role: Role) -> Result<Process> {
        let backing = match self.settings.backing {
            backing if self.uses_both && self.spawned.is_multiple_of(2) => backing.other(),
            backing => backing,
        };
        let name = format!("{what}-{}", self.spawned);
        self.spawned += 1;
        let log = self.folder.path().join(&name);
        self.logs.follow(&name, log.clone());
        let url = format!("postgres://postgres@127.0.0.1:{}/{DATABASE}?sslmode=disable", self.proxy.port());
        let part = Part { url, backing, log, time_limit: self.time_limit, role };
        Process::spawn(&self.settings.program, name, &part)
    }

    /// Publishes messages without keys, past the network.
    pub(crate) async fn publish_now(&mut self, messages: usize, poison: bool) -> Result<()> {
        let numbers: Vec<_> = (0..messages as u64).map(|n| OWN_WRITER * 1_000_000 + self.published + n).collect();
        self.published += messages as u64;
        for n in &numbers {
            self.log.note(Event::Began { n: *n, key: None, poison });
        }
        let queue = PgQueue::connect(&self.server.url(DATABASE)).await?;
        let payload = |n: &u64| Ok(NewMessage::new(serde_json::to_vec(&Payload { n: *n, poison })?));
        queue.publish(TOPIC, numbers.iter().map(payload).collect::<Result<_>>()?).await?;
        self.log.note(Event::Ended { ns: numbers, fate: Fate::Committed });
        Ok(())
    }

    /// Notes that something is about to be broken for a moment.
    pub(crate) fn fault(&self, name: &str, process: Option<&str>) {
        self.log.note(Event::Fault { name: name.to_owned(), process: process.map(str::to_owned), lasts: false });
    }

    /// Notes that something is about to be broken until it is [healed](Self::healed).
    pub(crate) fn broken(&self, name: &str, process: Option<&str>) {
        self.log.note(Event::Fault { name: name.to_owned(), process: process.map(str::to_owned), lasts: true });
    }

    pub(crate) fn healed(&self) {
        self.log.note(Event::Healed);
    }

    /// Notes how long it took to release what a consumer held.
    pub(crate) fn released(&mut self, took: Duration) {
        self.released.push(took);
    }

    /// Notes that something is not as it should be.
    pub(crate) fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    /// Reads what was noted meanwhile.
    pub(crate) fn read(&mut self) -> Result<()> {
        for (process, entry) in self.logs.read()? {
            self.history.add(&process, entry);
        }
        Ok(())
    }

    /// The numbers of the dead letters.
    pub(crate) async fn dead_letters(&self) -> Result<BTreeSet<u64>> {
        let queue = PgQueue::connect(&self.server.url(DATABASE)).await?;
        let letters = queue.dead_letters(SUBSCRIPTION).await?;
        letters.iter().map(|letter| Ok(letter.message.json::<Payload>()?.n)).collect()
    }

    /// Waits until the history is such.
    pub(crate) async fn until(&mut self, what: &str, mut such: impl FnMut(&History) -> bool) -> Result<()> {
        let since = Instant::now();
        loop {
            self.read()?;
            if such(&self.history) {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} in vain for {what}");
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until so many more deliveries were accepted with OK.
    pub(crate) async fn flow(&mut self, deliveries: usize) -> Result<()> {
        self.read()?;
        let accepted = |history: &History| history.handed.iter().filter(|handed| handed.is_accepted()).count();
        let before = accepted(&self.history);
        self.until("deliveries that flow", |history| accepted(history) >= before + deliveries).await
    }

    /// Lets the publishers stop, waits until all is acknowledged, lets the consumers stop, and audits.
    pub(crate) async fn conclude(mut self, scenario: &'static str) -> Result<Report> {
        let publishers = std::mem::take(&mut self.publishers);
        self.stop(publishers).await?;
        let drained =
            self.until("the acknowledgement of all messages", |history| history.open().next().is_none()).await;
        let queue = PgQueue::connect(&self.server.url(DATABASE)).await?;
        let since = Instant::now();
        let mut stats = queue.stats(SUBSCRIPTION).await?;
        // What is in doubt is there as well.
        while drained.is_ok() && stats.waiting + stats.in_flight + stats.retrying > 0 && since.elapsed() < PATIENCE {
            sleep(LOOK).await;
            stats = queue.stats(SUBSCRIPTION).await?;
        }
        if let Err(error) = drained {
            self.fail(format!("{error}: {stats:?}"));
        } else if stats.waiting + stats.in_flight + stats.retrying > 0 {
            self.fail(format!("messages are left though all are acknowledged: {stats:?}"));
        }
        let consumers = std::mem::take(&mut self.consumers);
        self.stop(consumers).await?;
        self.read()?;
        let dead = self.dead_letters().await?;
        if let Some(logs) = &self.settings.logs {
            keep(self.folder.path(), &logs.join(scenario))?;
        }
        Ok(Report {
            scenario,
            backing: self.settings.backing,
            committed: self.history.committed().count(),
            faults: self.history.faults.len(),
            audit: Audit::of(&self.history, &dead, self.shape),
            recovery: Recovery { released: self.released, ..Recovery::of(&self.history) },
            failures: self.failures,
        })
    }

    async fn stop(&mut self, processes: Vec<Process>) -> Result<()> {
        for mut process in processes {
            if process.has_ended()? {
                self.fail(format!("{} ended by itself", process.name));
            } else {
                match timeout(PATIENCE, process.stop()).await {
                    Ok(stopped) => stopped?,
                    Err(_) => {
                        process.kill().await?;
                        let last_words = self.last_words(&process.name);
                        self.fail(format!("{} did not stop; it said last:\n{last_words}", process.name));
                    }
                }
            }
        }
        Ok(())
    }

    /// What a process told `tracing` last.
    fn last_words(&self, process: &str) -> String {
        let said = std::fs::read_to_string(said(&self.folder.path().join(process))).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }
}

fn keep(logs: &std::path::Path, folder: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for entry in std::fs::read_dir(logs)? {
        let entry = entry?;
        std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    Ok(())
}
