//! Servers and backends that end.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::world::World;

pub(crate) async fn killed(world: &mut World) -> Result<()> {
    world.load(2)?;
    for _ in 0..world.rounds(4, 12) {
        world.flow(200).await?;
        world.kill_server().await?;
    }
    world.flow(200).await
}

pub(crate) async fn backends_terminated(world: &mut World) -> Result<()> {
    world.load(2)?;
    world.flow(100).await?;
    for _ in 0..world.rounds(8, 60) {
        world.terminate_backend().await?;
        sleep(Duration::from_secs(1)).await;
    }
    world.flow(100).await
}

pub(crate) async fn out(world: &mut World) -> Result<()> {
    world.load(2)?;
    world.flow(200).await?;
    world.outage(Duration::from_secs(world.rounds(10, 60) as u64)).await?;
    world.flow(200).await
}

pub(crate) async fn standby_promoted(world: &mut World) -> Result<()> {
    world.load(2)?;
    for _ in 0..world.rounds(1, 3) {
        world.flow(200).await?;
        world.fail_over().await?;
    }
    world.flow(200).await
}
