//! Subscriptions as rows.

use std::time::Duration;

use pgqueue_core::{Backoff, Consumers, Error, ErrorKind, Order, Result, Start, Subscription};

use crate::{
    Parameter, Row, selecting,
    value::{RowExt, millis},
};

fn ordering(order: Order) -> Result<&'static str> {
    match order {
        Order::Unordered => Ok("unordered"),
        Order::ByKey => Ok("by key"),
        Order::Total => Ok("total"),
        Order::StableTotal => Ok("stable total"),
        other => {
            Err(Error::new(ErrorKind::Invalid, format!("the order {other} is not one that PostgreSQL queues know")))
        }
    }
}

fn order(ordering: &str) -> Result<Order> {
    match ordering {
        "unordered" => Ok(Order::Unordered),
        "by key" => Ok(Order::ByKey),
        "total" => Ok(Order::Total),
        "stable total" => Ok(Order::StableTotal),
        other => Err(Error::new(ErrorKind::Fatal, format!("the order {other:?} is newer than this binary"))),
    }
}

fn consumers_text(consumers: Consumers) -> Result<&'static str> {
    match consumers {
        Consumers::Competing => Ok("competing"),
        Consumers::SingleActive => Ok("single active"),
        Consumers::Exclusive => Ok("exclusive"),
        other => Err(Error::new(ErrorKind::Invalid, format!("PostgreSQL queues know no {other} consumers"))),
    }
}

fn consumers(text: &str) -> Result<Consumers> {
    match text {
        "competing" => Ok(Consumers::Competing),
        "single active" => Ok(Consumers::SingleActive),
        "exclusive" => Ok(Consumers::Exclusive),
        other => Err(Error::new(ErrorKind::Fatal, format!("{other:?} consumers are newer than this binary"))),
    }
}

/// A start as the server reads it.
pub(crate) fn start(start: &Start) -> Result<Option<&str>> {
    match start {
        Start::Now => Ok(None),
        Start::Beginning => Ok(Some("")),
        Start::After(position) if !position.as_str().is_empty() => Ok(Some(position.as_str())),
        other => Err(Error::new(ErrorKind::Invalid, format!("a subscription cannot start {other:?}"))),
    }
}

fn float_millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn duration(millis: f64) -> Duration {
    Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(Duration::MAX)
}

/// The parameters of [`INSERT_SUBSCRIPTION`](crate::statement::INSERT_SUBSCRIPTION).
pub(crate) fn write(subscription: &Subscription) -> Result<Vec<Parameter>> {
    let whole = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let backoff = subscription.backoff();
    let mut parameters = vec![
        Parameter::new(subscription.name()),
        Parameter::new(subscription.topic()),
        Parameter::new(ordering(subscription.order())?),
        Parameter::new(whole(subscription.batch())),
        Parameter::new(whole(subscription.prefetch())),
        Parameter::new(millis(subscription.lease()).max(1)),
        Parameter::new(i64::from(backoff.max_attempts())),
        Parameter::new(float_millis(backoff.base())),
        Parameter::new(backoff.multiplier()),
        Parameter::new(float_millis(backoff.cap())),
        Parameter::new(backoff.jitter()),
        Parameter::nullable(start(subscription.start())?),
    ];
    parameters.extend(selecting::write(subscription.selector())?);
    parameters.extend([
        Parameter::new(consumers_text(subscription.consumers())?),
        Parameter::new(whole(subscription.workers())),
    ]);
    Ok(parameters)
}

/// Reads a row of [`DESCRIBE_SUBSCRIPTION`](crate::statement::DESCRIBE_SUBSCRIPTION).
pub(crate) fn read<R: Row>(row: &R) -> Result<Subscription> {
    let whole = |column| Ok::<_, Error>(usize::try_from(row.get::<i32>(column)?).unwrap_or(1));
    let backoff = Backoff::default()
        .with_max_attempts(u32::try_from(row.get::<i64>(7)?).unwrap_or(u32::MAX))
        .with_base(duration(row.get(8)?))
        .with_multiplier(row.get(9)?)
        .with_cap(duration(row.get(10)?))
        .with_jitter(row.get(11)?);
    Ok(Subscription::new(row.get::<String>(1)?, row.get::<String>(2)?)
        .with_selector(selecting::read(row.read(14)?)?)
        .with_order(order(&row.get::<String>(3)?)?)
        .with_batch(whole(4)?)
        .with_prefetch(whole(5)?)
        .with_lease(Duration::from_millis(row.get::<i64>(6)?.unsigned_abs()))
        .with_backoff(backoff)
        .with_consumers(consumers(&row.get::<String>(15)?)?)
        .with_workers(whole(16)?))
}

/// Reads a row of [`INSERT_SUBSCRIPTION`](crate::statement::INSERT_SUBSCRIPTION): what stands there under this name.
pub(crate) fn read_identity<R: Row>(row: &R, name: &str) -> Result<Subscription> {
    Ok(Subscription::new(name, row.get::<String>(0)?)
        .with_order(order(&row.get::<String>(1)?)?)
        .with_selector(selecting::read(row.read(2)?)?))
}
