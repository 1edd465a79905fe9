//! Publishers that change their mind, and those that die.

use std::time::Duration;

use anyhow::Result;

use crate::{publisher, world::World};

pub(crate) async fn killed(world: &mut World) -> Result<()> {
    world.load(2)?;
    for _ in 0..world.rounds(5, 20) {
        world.flow(100).await?;
        world.kill_publisher(0).await?;
    }
    world.flow(100).await
}

/// Nothing is broken here, so nothing may come twice.
pub(crate) async fn roll_back(world: &mut World) -> Result<()> {
    let undecided =
        publisher::Conduct { in_transactions: 80, held_open: Duration::from_secs(1), writers: 4, ..world.publisher() };
    for _ in 0..2 {
        world.publish(undecided)?;
        world.consume(world.consumer())?;
    }
    world.flow(world.rounds(500, 5000)).await
}
