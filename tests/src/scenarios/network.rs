//! A network that fails.

use std::time::Duration;

use anyhow::Result;

use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

pub(crate) async fn delayed(world: &mut World) -> Result<()> {
    world.load(2)?;
    for _ in 0..world.rounds(2, 6) {
        world.flow(100).await?;
        world.delay(Duration::from_millis(50), 3 * SECOND).await?;
    }
    world.flow(100).await
}

pub(crate) async fn cut(world: &mut World) -> Result<()> {
    world.load(2)?;
    for _ in 0..world.rounds(3, 12) {
        world.flow(100).await?;
        world.cut(SECOND).await?;
    }
    world.flow(100).await
}

/// The last one lasts longer than a lease.
pub(crate) async fn black_holed(world: &mut World) -> Result<()> {
    world.load(2)?;
    for _ in 0..world.rounds(1, 4) {
        world.flow(100).await?;
        world.black_hole(2 * SECOND).await?;
    }
    world.flow(100).await?;
    world.black_hole(world.shape.lease + 2 * SECOND).await?;
    world.flow(100).await
}

pub(crate) async fn half_closed(world: &mut World) -> Result<()> {
    world.load(2)?;
    for _ in 0..world.rounds(5, 20) {
        world.flow(100).await?;
        world.half_close();
    }
    world.flow(100).await
}

pub(crate) async fn answers_lost(world: &mut World) -> Result<()> {
    world.load(2)?;
    for _ in 0..world.rounds(3, 12) {
        world.flow(100).await?;
        world.lose_answers(SECOND).await?;
    }
    world.flow(100).await
}
