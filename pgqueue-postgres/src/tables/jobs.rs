//! [`JobDriver`]: the jobs of a table as deliveries.

mod acker;
mod asking;
mod consumer;
mod held;
mod keeping;
mod names;
mod shape;
mod sql;
mod table;
mod verdict;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use pgqueue_core::{Delivery, Result, SubscriptionDriver, Wakeups};

use self::consumer::Consumer;
pub use self::table::JobTable;
use crate::{Client, PgTables, tables::waking::Waking};

/// One consumer of a [`JobTable`], as [`PgTables::jobs`] makes it: the driver for [`subscribe`](pgqueue_core::subscribe).
///
/// - **A claim is one statement** that takes the next job that is due and that nobody has locked, so no two consumers ever have the
///   same one, and no transaction is open while a handler runs.
/// - **A lease** says how long a silent consumer keeps its jobs. One that lives renews all that it has in hand three times a lease,
///   however long its handlers take; one whose row somebody keeps locked for a lease may be taken over when that lock is gone.
///   Twice a lease each looks for jobs of silent ones: these come again, or have failed if that was their last attempt, or if
///   nobody looked for as long as [`with_give_up_after`](JobTable::with_give_up_after) says.
/// - **An answer** counts only for the claim it is for: whoever lost a job cannot end it, even if it was given the same one again.
///   An answer that does not reach the server is [`Unknown`](pgqueue_core::ErrorKind::Unknown), and is repeated while the job is not
///   somebody else's.
/// - **Attempts** are counted by the claim. What is requeued, dropped or left by a dead consumer is over after
///   [`max_attempts`](pgqueue_core::Backoff::max_attempts). A job that was claimed and never handed out gets its attempt back.
/// - **It looks** when a notification comes, when a lost connection is back, when the next job is due, when it put one back itself,
///   and with every poll. All of these go by the server's clock.
///
/// A message is the job: its id and position are the job's id, its topic is the table's name. It is delivered alone, never in a
/// batch. Jobs whose table is dropped are gone; a table that is missing has no jobs, which is logged, and one that is made again is
/// consumed on.
///
/// One tokio task serves it. It begins with the first fetch, and ends when the driver and its deliveries are gone; before the process
/// ends, wait for that: [`consumers_gone`](PgTables::consumers_gone).
pub struct JobDriver<C: Client> {
    consumer: Arc<Consumer<C>>,
}

impl<C: Client> PgTables<C> {
    /// Makes one consumer of the jobs in a table. Several share the jobs, in one process or in many.
    ///
    /// ```
    /// # async fn example<C: pgqueue_postgres::Client>(tables: pgqueue_postgres::PgTables<C>) -> pgqueue_core::Result<()> {
    /// use std::time::Duration;
    /// use pgqueue_core::{Ack, BoxError, Job, Worker, subscribe};
    /// use pgqueue_postgres::JobTable;
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct SendMail {
    ///     recipient: String,
    /// }
    ///
    /// let jobs = subscribe(tables.jobs(JobTable::new("send_mail_jobs"))).await?;
    /// let worker = Worker::new(jobs, async |job: Job<SendMail>| {
    ///     println!("a mail to {}", job.value.recipient);
    ///     Ok::<_, BoxError>(Ack::Ok)
    /// });
    /// worker.with_timeout(Duration::from_secs(60)).run().await
    /// # }
    /// ```
    #[must_use]
    pub fn jobs(&self, table: JobTable) -> JobDriver<C> {
        JobDriver { consumer: Consumer::new(Arc::clone(&self.shared), table) }
    }
}

impl<C: Client> JobDriver<C> {
    /// Lets this consumer die as its process would: nothing is given back, and dropping its deliveries releases nothing. They go
    /// to others after [the lease](JobTable::with_lease). For tests of what happens then.
    pub fn crash(&self) {
        self.consumer.crash();
    }
}

#[async_trait]
impl<C: Client> SubscriptionDriver for JobDriver<C> {
    /// Checks that the table can serve; it makes nothing.
    ///
    /// # Errors
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound) for a table that does not exist, [`Invalid`](pgqueue_core::ErrorKind::Invalid)
    /// for a column that is missing or of a type that cannot serve, naming it, and for options that cannot be used.
    async fn insert_subscription(&self) -> Result<()> {
        self.consumer.look_up().await
    }

    async fn listen(&self) -> Result<Wakeups> {
        let Consumer { shared, table, changed, .. } = &*self.consumer;
        let tables = PgTables::from_shared(Arc::clone(shared));
        let (rings, changed) = (table.rings.clone(), changed.subscribe());
        Waking::listen(tables, Arc::clone(&self.consumer), rings, changed, table.poll_interval).await
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        self.consumer.fetch().await
    }
}

impl<C: Client> Drop for JobDriver<C> {
    fn drop(&mut self) {
        self.consumer.close();
    }
}

impl<C: Client> fmt::Debug for JobDriver<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobDriver").field("table", &self.consumer.table).finish_non_exhaustive()
    }
}
