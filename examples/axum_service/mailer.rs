//! The worker in the background.

use std::time::Duration;

use pgqueue_core::{Ack, BoxError, ConsumeStream, Job, Result, Worker};
use tokio::time::sleep;

use crate::order::Order;

/// Handles orders until the stream ends, and then those that it has in hand.
pub(crate) async fn run<S: Future<Output = ()> + Send>(stream: ConsumeStream<S>, takes: Duration) -> Result<()> {
    let handler = async |job: Job<Order>| {
        eprintln!("mailing {}", job.value.customer);
        sleep(takes).await;
        eprintln!("mailed {}: {}", job.value.customer, job.value.amount);
        Ok::<_, BoxError>(Ack::Ok)
    };
    Worker::new(stream, handler).with_timeout(Duration::from_secs(30)).run().await
}
