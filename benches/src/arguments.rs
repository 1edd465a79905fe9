//! [`Arguments`]: how large what is measured is.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use crate::drivers::DriverName;

/// What a benchmark can be told, as arguments of a program.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The PostgreSQL client, of the queue and of what it is compared to; or the queue in memory, which is measured by itself.
    #[arg(long, default_value = "tokio-postgres")]
    pub(crate) driver: DriverName,
    /// How many messages a backlog has [default: 200,000 to drain, 100,000 to publish and consume at once or to drain by key, 1,000,000 to claim from, catch up with or select from].
    #[arg(long)]
    messages: Option<usize>,
    /// How many bytes a payload has.
    #[arg(long, default_value_t = 100)]
    pub payload: usize,
    /// How many messages a batch has.
    #[arg(long, default_value_t = 100)]
    pub batch: usize,
    /// How many consumers there are, for scenarios that have some [default: what the scenario compares].
    #[arg(long)]
    pub consumers: Option<usize>,
    /// How many subscriptions get everything, beside one, or are consumed while nobody publishes [default: 8 beside one; 50].
    #[arg(long)]
    pub(crate) subscriptions: Option<usize>,
    /// For how many seconds each publishes, where time is the measure [default: 4; 600 while somebody holds vacuum's horizon, and 12 while nobody publishes].
    #[arg(long)]
    seconds: Option<f64>,
    /// The same in minutes.
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<f64>,
    /// How often everything is measured; the medians count [default: 3].
    #[arg(long)]
    rounds: Option<usize>,
    /// Prints one JSON object for each line of the table instead.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draws bars of what was measured, a file for each scenario, as SVG.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) plot: Option<PathBuf>,
    /// Prints on stderr where the server's time went, which slows it down a little.
    #[arg(long)]
    pub(crate) profile: bool,
    /// Uses small numbers, to see that it works: the figures mean nothing.
    #[arg(long)]
    pub(crate) quick: bool,
}

/// What can be measured of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Publishing, in batches and singly.
    Publish,
    /// Working off a backlog.
    Drain,
    /// Publishing and consuming at the same time.
    EndToEnd,
    /// What further subscriptions cost a publisher.
    FanOut,
    /// What waking consumers costs publishers.
    NotifyCost,
    /// From publishing to the handler of an idle consumer.
    Latency,
    /// What one claim takes, whatever waits.
    Backlog,
    /// Working through a log that is kept, from its beginning.
    CatchUp,
    /// Selecting few messages of many.
    Selector,
    /// Working off in order by key.
    Order,
    /// What an idle process asks of the server.
    Idle,
    /// What the server can do without any queue.
    Ceilings,
    /// Publishing and consuming while somebody holds vacuum's horizon.
    Pinned,
    /// Everything but `pinned`, which takes long.
    All,
}

impl Scenario {
    /// All but [`All`](Self::All) and what takes long.
    pub(crate) const EACH: [Self; 12] = [
        Self::Ceilings,
        Self::Publish,
        Self::Drain,
        Self::EndToEnd,
        Self::FanOut,
        Self::NotifyCost,
        Self::Latency,
        Self::Backlog,
        Self::CatchUp,
        Self::Selector,
        Self::Order,
        Self::Idle,
    ];
}

impl Arguments {
    /// How many messages a backlog has, unless it was told: `default`, or few to see that it works.
    pub fn messages(&self, default: usize) -> usize {
        self.messages.unwrap_or(if self.quick { default / 100 } else { default }).max(1)
    }

    pub(crate) fn duration(&self) -> Duration {
        self.duration_or(4.0, 0.3)
    }

    /// The duration of what shows only by and by.
    pub(crate) fn long_duration(&self) -> Duration {
        self.duration_or(600.0, 0.3)
    }

    /// The duration of what happens every other second.
    pub(crate) fn idle_duration(&self) -> Duration {
        self.duration_or(12.0, 5.0)
    }

    fn duration_or(&self, default: f64, quick: f64) -> Duration {
        let asked = self.seconds.or(self.minutes.map(|minutes| minutes * 60.0));
        Duration::from_secs_f64(asked.unwrap_or(if self.quick { quick } else { default }).max(0.05))
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 }).max(1)
    }
}
