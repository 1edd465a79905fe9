//! Consumers that die, stop, freeze, or take their time.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    consumer::Conduct,
    event::now,
    history::{Handed, History},
    publisher,
    world::World,
};

/// How long it may take until everything that a killed consumer held was handed out again.
const COMES_AGAIN: Duration = Duration::from_secs(10);

/// How long it may take until what a consumer held is free for others, once it is told to stop.
const RELEASED: Duration = Duration::from_secs(1);

/// How much a consumer holds.
const HELD: usize = 1000;

/// How many deaths a message may cause before it is known to be to blame: no attempt is counted for them.
const UNBLAMED: usize = 4;

/// How long an answer takes of a consumer that is frozen before.
const LATE: Duration = Duration::from_secs(2);

pub(crate) async fn consumers_killed(world: &mut World) -> Result<()> {
    world.load(3)?;
    for _ in 0..world.rounds(4, 15) {
        world.flow(200).await?;
        world.kill_consumer(0).await?;
    }
    world.flow(200).await
}

pub(crate) async fn holder_killed(world: &mut World) -> Result<()> {
    let name = hold(world).await?;
    let mut holder = world.consumers.remove(0);
    world.fault("consumer killed", Some(&name));
    let killed = Instant::now();
    holder.kill().await?;
    world.consume(Conduct { requeue_one_of: 0, work: Duration::ZERO, ..world.consumer() })?;
    let again = come_again(world, &name, killed).await?;
    if again.iter().any(|attempt| *attempt != 1) {
        world.fail("an attempt was counted, though nobody knows which message was to blame".to_owned());
    }
    Ok(())
}

/// Deliveries in hand are dropped, and what another had claimed in advance was never handed out. The lease is a minute, so
/// what comes again was released.
pub(crate) async fn holder_stopped(world: &mut World) -> Result<()> {
    let name = hold(world).await?;
    stop(world).await?;
    let slow = Conduct { concurrency: 1, work: Duration::from_millis(100), ..world.consumer() };
    world.consume(slow)?;
    let has_begun = |history: &History| history.handed.len() > HELD;
    world.until("a consumer that begins to work", has_begun).await?;
    stop(world).await?;

    let since = Instant::now();
    world.consume(Conduct { work: Duration::ZERO, ..world.consumer() })?;
    come_again(world, &name, since).await.map(drop)
}

/// Starts a consumer that holds much; returns its name.
async fn hold(world: &mut World) -> Result<String> {
    world.publish_now(HELD, false).await?;
    world.consume(Conduct { hold: true, ..world.consumer() })?;
    let name = world.consumers[0].name.clone();
    world.until("a consumer that holds all", |history| history.held_by(&name).count() == HELD).await?;
    Ok(name)
}

/// Stops the consumer, which gives back what it has before it ends.
async fn stop(world: &mut World) -> Result<()> {
    let mut consumer = world.consumers.remove(0);
    let told = Instant::now();
    world.broken("consumer stopped", Some(&consumer.name));
    consumer.stop().await?;
    world.healed();
    let took = told.elapsed();
    if took > RELEASED * world.settings.slack {
        world.fail(format!("it took {took:?} until a consumer that was stopped had released what it held"));
    }
    world.released(took);
    Ok(())
}

/// Waits until what `holder` had was handed to others, and answered; returns their attempts.
async fn come_again(world: &mut World, holder: &str, since: Instant) -> Result<Vec<u32>> {
    let others = |handed: &&Handed| handed.process != holder && handed.is_accepted();
    let again = |history: &History| history.handed.iter().filter(others).map(|handed| handed.n).collect::<HashSet<_>>();
    world.until("all that was held", |history| again(history).len() == HELD).await?;
    if since.elapsed() > COMES_AGAIN * world.settings.slack {
        world.fail(format!("it took {:?} until all had come again", since.elapsed()));
    }
    Ok(world.history.handed.iter().filter(others).map(|handed| handed.attempt).collect())
}

/// Two consumers freeze in turn: who has the message sleeps past its lease, and wakes when the other one has it. So each late
/// answer meets a lease that is held by somebody else.
pub(crate) async fn consumer_frozen(world: &mut World) -> Result<()> {
    let late = Conduct { work: LATE, requeue_one_of: 0, ..world.consumer() };
    world.publish_now(1, false).await?;
    world.consume(late)?;
    let first = world.consumers[0].name.clone();
    world.until("a holder", |history| history.held_by(&first).next().is_some()).await?;
    world.consume(late)?;

    let rounds = world.rounds(4, 8);
    for round in 0..rounds {
        let (sleeper, other) = (round % 2, world.consumers[1 - round % 2].name.clone());
        let since = now();
        world.broken("consumer frozen", Some(&world.consumers[sleeper].name));
        world.consumers[sleeper].freeze()?;
        let came = |handed: &Handed| handed.process == other && handed.at > since || handed.is_accepted();
        world.until("another holder", |history| history.handed.iter().any(came)).await?;
        world.consumers[sleeper].thaw()?;
        world.healed();
    }
    let answered = |handed: &&Handed| handed.answered.is_some();
    world.until("all answers", |history| history.handed.iter().filter(answered).count() > rounds).await?;
    let refused = world.history.handed.iter().filter(|handed| handed.is_stale()).count();
    if refused != rounds {
        world.fail(format!("of {rounds} late answers {refused} were refused"));
    }
    Ok(())
}

/// The message dies after its attempts, and nothing beside it.
pub(crate) async fn poison(world: &mut World) -> Result<()> {
    let calm = publisher::Conduct { pause: Duration::from_millis(50), ..world.publisher() };
    world.publish(calm)?;
    for _ in 0..2 {
        world.consume(world.consumer())?;
    }
    world.flow(50).await?;
    for _ in 0..world.rounds(1, 5) {
        poison_one(world).await?;
    }
    world.flow(50).await
}

/// Publishes a message that aborts its consumers, and replaces those until it is given up.
pub(crate) async fn poison_one(world: &mut World) -> Result<()> {
    let attempts = world.shape.max_attempts as usize;
    let dead = world.dead_letters().await?.len();
    world.publish_now(1, true).await?;
    let mut deaths = 0;
    while world.dead_letters().await?.len() == dead && deaths <= attempts + UNBLAMED {
        deaths += world.replace_the_dead()?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.replace_the_dead()?;
    if !(attempts..=attempts + UNBLAMED).contains(&deaths) {
        world.fail(format!("a message that may be delivered {attempts} times killed {deaths} consumers"));
    }
    Ok(())
}

/// Nothing is broken here, so nothing may come twice.
pub(crate) async fn slow_consumer(world: &mut World) -> Result<()> {
    let calm = publisher::Conduct { pause: Duration::from_millis(50), ..world.publisher() };
    world.publish(calm)?;
    for _ in 0..2 {
        let work = 2 * world.shape.lease;
        world.consume(Conduct { concurrency: 200, work, requeue_one_of: 0, ..world.consumer() })?;
    }
    world.flow(world.rounds(200, 2000)).await
}
