//! What can be broken in a [`World`], and is noted.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::{consumer, publisher, world::World};

/// How long consumers of the load work on a message, so that some are always in hand.
const WORK: Duration = Duration::from_millis(10);

impl World {
    /// Two publishers and so many consumers.
    pub(crate) fn load(&mut self, consumers: usize) -> Result<()> {
        for _ in 0..2 {
            self.publish(self.publisher())?;
        }
        for _ in 0..consumers {
            self.consume(self.consumer())?;
        }
        Ok(())
    }

    /// A publisher of the load.
    pub(crate) fn publisher(&self) -> publisher::Conduct {
        publisher::Conduct {
            first_writer: 0,
            writers: 2,
            pause: Duration::from_millis(10),
            in_transactions: 20,
            held_open: Duration::from_millis(200),
            seed: self.settings.seed,
        }
    }

    /// A consumer of the load.
    pub(crate) fn consumer(&self) -> consumer::Conduct {
        consumer::Conduct { shape: self.shape, concurrency: 20, work: WORK, requeue_one_of: 10, hold: false }
    }

    /// Kills a consumer as `kill -9` does, and starts another like those of the load.
    pub(crate) async fn kill_consumer(&mut self, which: usize) -> Result<()> {
        let mut consumer = self.consumers.remove(which);
        self.fault("consumer killed", Some(&consumer.name));
        consumer.kill().await?;
        self.consume(self.consumer())
    }

    /// Puts others in the place of consumers that died; returns how many did.
    pub(crate) fn replace_the_dead(&mut self) -> Result<usize> {
        let mut died = 0;
        for mut consumer in std::mem::take(&mut self.consumers) {
            if consumer.has_ended()? {
                died += 1;
                self.fault("consumer aborted", Some(&consumer.name));
                self.consume(self.consumer())?;
            } else {
                self.consumers.push(consumer);
            }
        }
        Ok(died)
    }

    /// Lets a consumer stop, and starts another. That is no fault: it leaves nothing that comes twice.
    pub(crate) async fn replace_consumer(&mut self, which: usize) -> Result<()> {
        self.consumers.remove(which).stop().await?;
        self.consume(self.consumer())
    }

    /// Kills a publisher, and starts another.
    pub(crate) async fn kill_publisher(&mut self, which: usize) -> Result<()> {
        let mut publisher = self.publishers.remove(which);
        self.fault("publisher killed", Some(&publisher.name));
        publisher.kill().await?;
        self.publish(self.publisher())
    }

    /// Freezes a consumer for so long.
    pub(crate) async fn freeze_consumer(&mut self, which: usize, time: Duration) -> Result<()> {
        let name = self.consumers[which].name.clone();
        self.broken("consumer frozen", Some(&name));
        self.consumers[which].freeze()?;
        sleep(time).await;
        self.consumers[which].thaw()?;
        self.healed();
        Ok(())
    }

    /// Kills the server as a crash does, and starts it again.
    pub(crate) async fn kill_server(&mut self) -> Result<()> {
        self.broken("server killed", None);
        self.server.kill().await?;
        self.server.restart().await?;
        self.healed();
        Ok(())
    }

    /// Shuts the server down for so long.
    pub(crate) async fn outage(&mut self, time: Duration) -> Result<()> {
        self.broken("database out", None);
        self.server.stop().await?;
        sleep(time).await;
        self.server.restart().await?;
        self.healed();
        Ok(())
    }

    /// Terminates one backend of the clients.
    pub(crate) async fn terminate_backend(&mut self) -> Result<()> {
        let clients = "datname = 'queue' and backend_type = 'client backend'";
        let one = format!("select pid from pg_stat_activity where {clients} order by random() limit 1");
        self.fault("backend terminated", None);
        self.server.sql("postgres", &format!("select pg_terminate_backend(pid) from ({one}) one")).await?;
        Ok(())
    }

    /// Delays whatever is sent, for so long.
    pub(crate) async fn delay(&mut self, delay: Duration, time: Duration) -> Result<()> {
        self.broken("network delayed", None);
        self.proxy.set_delay(delay);
        sleep(time).await;
        self.proxy.set_delay(Duration::ZERO);
        self.healed();
        Ok(())
    }

    /// Cuts all connections, and refuses others for so long.
    pub(crate) async fn cut(&mut self, time: Duration) -> Result<()> {
        self.broken("network cut", None);
        self.proxy.cut().await;
        sleep(time).await;
        self.proxy.restore().await?;
        self.healed();
        Ok(())
    }

    /// Lets nothing through for so long.
    pub(crate) async fn black_hole(&mut self, time: Duration) -> Result<()> {
        self.broken("network black-holed", None);
        self.proxy.black_hole(true);
        sleep(time).await;
        self.proxy.black_hole(false);
        self.healed();
        Ok(())
    }

    /// Ends all connections on the side of the clients only.
    pub(crate) fn half_close(&mut self) {
        self.fault("network half closed", None);
        self.proxy.half_close();
    }

    /// Lets the server do what it is asked to, and nobody hear of it, for so long; then all connections are cut.
    pub(crate) async fn lose_answers(&mut self, time: Duration) -> Result<()> {
        self.broken("answers lost", None);
        self.proxy.hold_answers(true);
        sleep(time).await;
        self.proxy.cut().await;
        self.proxy.hold_answers(false);
        self.proxy.restore().await?;
        self.healed();
        Ok(())
    }

    /// Makes a standby that every commit waits for, kills the primary, and promotes the standby.
    pub(crate) async fn fail_over(&mut self) -> Result<()> {
        // Making one stops the primary for a moment.
        self.broken("server restarted", None);
        let standby = self.server.start_standby().await?;
        self.healed();
        self.server.sql("postgres", "alter system set synchronous_standby_names = '*'").await?;
        self.server.sql("postgres", "select pg_reload_conf()").await?;
        self.until_synchronous().await?;
        self.flow(200).await?;

        self.broken("primary lost", None);
        self.server.kill().await?;
        standby.sql("postgres", "select pg_promote()").await?;
        self.proxy.redirect(standby.port());
        self.server = standby;
        self.healed();
        Ok(())
    }

    async fn until_synchronous(&mut self) -> Result<()> {
        let state = "select coalesce(max(sync_state), 'no standby') from pg_stat_replication";
        let synchronous = async {
            while self.server.sql("postgres", state).await? != "sync" {
                sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(crate::world::PATIENCE, synchronous).await.context("no synchronous standby")?
    }
}
