//! [`Scenario`]: a fault, or a mix of them, that a world goes through under load.

use std::{fmt, time::Duration};

use anyhow::Result;
use futures::future::BoxFuture;

use crate::{
    part::Shape,
    report::Report,
    scenarios::{mix, network, processes, publishers, servers},
    world::{Begin, Settings, World},
};

/// One of the [scenarios](Scenario::all).
#[derive(Clone, Copy)]
pub struct Scenario {
    name: &'static str,
    about: &'static str,
    begin: fn() -> Begin,
    play: Play,
}

type Play = for<'a> fn(&'a mut World) -> BoxFuture<'a, Result<()>>;

/// What the short form of a scenario waits for at most where the server does not answer.
const SHORT_LIMIT: Duration = Duration::from_secs(2);

macro_rules! scenario {
    ($name:literal, $about:literal, $begin:expr, $play:path) => {
        Scenario { name: $name, about: $about, begin: || $begin, play: |world| Box::pin($play(world)) }
    };
}

fn unordered(lease: u64, prefetch: usize) -> Begin {
    let shape = Shape { by_key: false, lease: Duration::from_secs(lease), prefetch, ..Shape::default() };
    Begin { shape, ..Begin::default() }
}

const ALL: &[Scenario] = &[
    scenario!(
        "consumers-killed",
        "consumers are killed (-9) under load",
        Begin::default(),
        processes::consumers_killed
    ),
    scenario!(
        "holder-killed",
        "a consumer that holds 1,000 deliveries is killed (-9)",
        unordered(6, 1000),
        processes::holder_killed
    ),
    scenario!(
        "holder-stopped",
        "a consumer that holds 1,000 deliveries is told to stop",
        unordered(60, 1000),
        processes::holder_stopped
    ),
    scenario!(
        "consumer-frozen",
        "holders are frozen past their lease, wake, and answer",
        unordered(2, 100),
        processes::consumer_frozen
    ),
    scenario!(
        "poison",
        "a message aborts every consumer that gets it",
        Begin { shape: Shape { max_attempts: 3, ..unordered(2, 20).shape }, ..Begin::default() },
        processes::poison
    ),
    scenario!("slow-consumer", "work takes longer than the lease", unordered(2, 100), processes::slow_consumer),
    scenario!("publishers-killed", "publishers are killed (-9) under load", Begin::default(), publishers::killed),
    scenario!(
        "publishers-roll-back",
        "publishers roll back, to savepoints too, and hold transactions open",
        Begin::default(),
        publishers::roll_back
    ),
    scenario!("server-killed", "the server is killed and restarted under load", Begin::default(), servers::killed),
    scenario!(
        "server-killed-slow-wal",
        "the same with wal_writer_delay = 10s: crashes forget claims",
        Begin { settings: &[("wal_writer_delay", "10s"), ("wal_writer_flush_after", "100MB")], ..Begin::default() },
        servers::killed
    ),
    scenario!(
        "backends-terminated",
        "a random backend is terminated every second",
        Begin::default(),
        servers::backends_terminated
    ),
    scenario!("database-out", "the database is shut down for long", Begin::default(), servers::out),
    scenario!(
        "standby-promoted",
        "the primary is lost, its synchronous standby promoted",
        Begin::default(),
        servers::standby_promoted
    ),
    scenario!("network-delayed", "every packet takes 50 ms", Begin::default(), network::delayed),
    scenario!("network-cut", "all connections are cut, and refused for a second", Begin::default(), network::cut),
    scenario!(
        "network-black-holed",
        "nothing comes through, and nothing ends",
        Begin { time_limit: SHORT_LIMIT, ..Begin::default() },
        network::black_holed
    ),
    scenario!(
        "network-half-closed",
        "connections end on the clients' side only",
        Begin::default(),
        network::half_closed
    ),
    scenario!(
        "answers-lost",
        "the server does what it is asked to, and nobody hears of it",
        Begin { time_limit: SHORT_LIMIT, ..Begin::default() },
        network::answers_lost
    ),
    scenario!(
        "mix",
        "all of these at random, on both clients",
        Begin { time_limit: SHORT_LIMIT, ..Begin::default() },
        mix::mix
    ),
];

impl Scenario {
    /// All scenarios; the last is the random mix.
    #[must_use]
    pub fn all() -> &'static [Self] {
        ALL
    }

    /// The one of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|scenario| scenario.name == name)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What happens in it.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.about
    }

    /// Runs it in a world of its own, and audits what was noted there. Everything that was started ends with it, also if the
    /// future is dropped.
    ///
    /// # Errors
    /// If it could not be run; that a promise was broken is in the report.
    pub async fn run(&self, settings: &Settings) -> Result<Report> {
        let mut world = World::start((self.begin)(), settings.clone()).await?;
        if let Err(error) = (self.play)(&mut world).await {
            world.fail(format!("it did not come to its end: {error:#}"));
        }
        world.conclude(self.name).await
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scenario").field(&self.name).finish()
    }
}
