//! [`SubscriptionStats`] and [`HorizonHolder`] as rows.

use std::time::Duration;

use pgqueue_core::{HorizonHolder, Result, SubscriptionStats};

use crate::{Row, value::RowExt};

/// Reads a row of [`STATS`](crate::statement::STATS).
pub(crate) fn read<R: Row>(row: &R, name: &str) -> Result<SubscriptionStats> {
    let mut stats = SubscriptionStats::new(name);
    stats.waiting = count(row, 0)?;
    stats.waiting_is_exact = row.get(1)?;
    stats.oldest = row.read::<i64>(2)?.map(|millis| Duration::from_millis(millis.max(0).unsigned_abs()));
    stats.in_flight = count(row, 3)?;
    stats.retrying = count(row, 4)?;
    stats.dead = count(row, 5)?;
    stats.consumers = count(row, 6)?;
    stats.held_back = count(row, 7)?;
    stats.cut = count(row, 8)?;
    Ok(stats)
}

/// Reads a row of [`HORIZON_HOLDER`](crate::statement::HORIZON_HOLDER).
pub(crate) fn read_horizon_holder<R: Row>(row: &R) -> Result<HorizonHolder> {
    let age = row.read::<i64>(2)?.unwrap_or_default().unsigned_abs();
    Ok(HorizonHolder::new(row.get::<String>(0)?, row.get::<String>(1)?, age, row.read(3)?))
}

fn count<R: Row>(row: &R, column: usize) -> Result<u64> {
    row.get::<i64>(column).map(i64::unsigned_abs)
}
