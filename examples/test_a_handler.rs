//! How do I test a handler, with its retries, without a server and without waiting?
//!
//! On the memory driver, whose time is tokio's: `cargo test --example test_a_handler`.
#![allow(clippy::print_stdout, reason = "a program talks to its user")]

fn main() {
    println!("This example is its tests. Run them with: cargo test --example test_a_handler");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pgqueue_core::{Backoff, BoxError, Job, PublisherExt, Result, Subscription, Topic};
    use pgqueue_examples::{Earthquake, alerts};
    use pgqueue_memory::MemoryQueue;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn an_alert_that_cannot_be_sent_is_sent_an_hour_later() -> Result<()> {
        let queue = MemoryQueue::new();
        queue.create_topic(Topic::new("earthquakes")).await?;
        let hourly = Subscription::new("alerts", "earthquakes").with_backoff(Backoff::fixed(HOUR));
        queue.insert_subscription(&hourly).await?;
        let id = queue.publish_json("earthquakes", &earthquake(6.4)).await?;

        queue.drain("alerts", |job| alerts(job, busy_at_first)).await?;
        assert_eq!(queue.pending("alerts")?[0].id(), &id);

        tokio::time::advance(HOUR).await;
        queue.drain("alerts", |job| alerts(job, busy_at_first)).await?;
        assert_eq!(queue.wait_acked("alerts", &id).await?.attempt(), 2);
        Ok(())
    }

    /// A way to send alerts that refuses the first time.
    fn busy_at_first(job: &Job<Earthquake>) -> Result<(), BoxError> {
        if job.message().attempt() == 1 { Err("the line is busy".into()) } else { Ok(()) }
    }

    fn earthquake(mag: f64) -> Earthquake {
        Earthquake {
            id: "us1000chhc".into(),
            time: 1_517_932_242_400,
            mag,
            place: "22km NNE of Hualian, Taiwan".into(),
            net: "us".into(),
            kind: "earthquake".into(),
        }
    }
}
