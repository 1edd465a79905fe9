//! Consumers that look by themselves only rarely, so that no poll hides what nobody was woken for.

use std::time::Duration;

use pgqueue_core::ConsumeStream;
use pgqueue_postgres::{Client, Options, PgQueue};
use pgqueue_testserver::Database;

use crate::common::{patiently, quiet};

/// How often who sleeps looks by itself: not within a test.
pub(crate) const RARELY: Duration = Duration::from_secs(60);

/// Within how much time who sleeps hears of a message, with some slack for a busy machine.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(3);

/// How many sleep, as far as publishers know.
const SLEEPERS: &str = "select count(*) from pgqueue.sleeper where armed_until > now()";

pub(crate) fn rarely_looking<C: Client>(queue: PgQueue<C>) -> PgQueue<C> {
    queue.with_options(Options::new().with_poll_interval(RARELY)).unwrap()
}

/// Waits until a consumer sleeps, of which publishers know.
pub(crate) async fn asleep(database: &Database, stream: &mut ConsumeStream) {
    let sleeps = async {
        while database.sql(SLEEPERS).await.unwrap() != "1" {
            quiet(stream).await;
        }
    };
    patiently("a consumer that sleeps", sleeps).await;
    quiet(stream).await; // it looked once more after it said so
}
