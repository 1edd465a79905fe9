//! [`alerts`]: a handler that looks only at some of its messages.

use pgqueue_core::{Ack, BoxError, Job};

use crate::Earthquake;

/// The magnitude from which an event is worth an alert.
pub const ALERT_MAGNITUDE: f64 = 4.5;

/// Sends an alert for a strong earthquake, and has nothing to do for any other.
///
/// What `send` refuses comes again. Even what it took may come again, if the process dies before its answer is durable:
/// delivery is at least once, so `send` should know a message by its id.
///
/// # Errors
/// What `send` says.
pub async fn alerts(
    job: Job<Earthquake>,
    send: impl FnOnce(&Job<Earthquake>) -> Result<(), BoxError>,
) -> Result<Ack, BoxError> {
    if job.value.mag >= ALERT_MAGNITUDE {
        send(&job)?;
    }
    Ok(Ack::Ok)
}
