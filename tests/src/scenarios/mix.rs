//! All faults at random, in one world.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::processes::poison_one;
use crate::world::World;

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    KillConsumer,
    ReplaceConsumer,
    FreezeConsumer,
    KillPublisher,
    KillServer,
    Outage,
    TerminateBackends,
    Delay,
    Cut,
    BlackHole,
    HalfClose,
    LoseAnswers,
    Poison,
    FailOver,
}

const DEEDS: [Deed; 14] = [
    Deed::KillConsumer,
    Deed::ReplaceConsumer,
    Deed::FreezeConsumer,
    Deed::KillPublisher,
    Deed::KillServer,
    Deed::Outage,
    Deed::TerminateBackends,
    Deed::Delay,
    Deed::Cut,
    Deed::BlackHole,
    Deed::HalfClose,
    Deed::LoseAnswers,
    Deed::Poison,
    Deed::FailOver,
];

/// How often these happen at most, as they take their time.
const ONCE: [Deed; 2] = [Deed::Poison, Deed::FailOver];

/// How long something lasts at most, in milliseconds: longer than a lease.
const LONGEST: u64 = 8_000;

/// Goes on until its time is up. Each deed happens once before any happens again.
pub(crate) async fn mix(world: &mut World) -> Result<()> {
    let end = Instant::now() + world.settings.mix;
    world.uses_both = true;
    world.load(3)?;
    let mut deeds = Vec::new();
    let mut done = Vec::new();
    while Instant::now() < end {
        if deeds.is_empty() {
            deeds = DEEDS.into_iter().filter(|deed| !ONCE.contains(deed) || !done.contains(deed)).collect();
            world.rng.shuffle(&mut deeds);
        }
        world.flow(100).await?;
        let Some(deed) = deeds.pop() else { break };
        let time = Duration::from_millis(world.rng.u64(500..LONGEST));
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        writeln!(io::stderr(), "  {left:3} s left: {deed:?}, {time:.1?} if it lasts")?;
        done.push(deed);
        let which = world.rng.usize(..world.consumers.len());
        match deed {
            Deed::KillConsumer => world.kill_consumer(which).await?,
            Deed::ReplaceConsumer => world.replace_consumer(which).await?,
            Deed::FreezeConsumer => world.freeze_consumer(which, time).await?,
            Deed::KillPublisher => world.kill_publisher(which % world.publishers.len()).await?,
            Deed::KillServer => world.kill_server().await?,
            Deed::Outage => world.outage(time).await?,
            Deed::TerminateBackends => {
                for _ in 0..time.as_secs().max(1) {
                    world.terminate_backend().await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Deed::Delay => world.delay(Duration::from_millis(50), time).await?,
            Deed::Cut => world.cut(time).await?,
            Deed::BlackHole => world.black_hole(time).await?,
            Deed::HalfClose => world.half_close(),
            Deed::LoseAnswers => world.lose_answers(time).await?,
            Deed::Poison => poison_one(world).await?,
            Deed::FailOver => world.fail_over().await?,
        }
    }
    world.flow(100).await
}
