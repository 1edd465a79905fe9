//! [`Work`]: what the workers of a pool do, whatever their driver and their handler.

use std::{future::Future, time::Duration};

use async_trait::async_trait;
use tokio::time::sleep;

use crate::{
    ConsumeStream, Operation, PoolStop, Result, SubscriptionDriver, call::call_driver, retry::DEFAULT_TIME_LIMIT,
    subscribe,
};

#[async_trait]
pub(crate) trait Work: Send + Sync + 'static {
    /// Inserts the subscription.
    async fn insert(&self) -> Result<()>;

    /// Is one worker, from its subscribing after `pause` to its end.
    async fn run(&self, pause: Duration, stop: PoolStop) -> Result<()>;
}

/// The two closures that a pool is made of.
pub(crate) struct Closures<M, R> {
    pub(crate) driver: M,
    pub(crate) run: R,
}

#[async_trait]
impl<M, D, R, Fut> Work for Closures<M, R>
where
    M: Fn() -> D + Send + Sync + 'static,
    D: SubscriptionDriver,
    R: Fn(ConsumeStream<PoolStop>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    async fn insert(&self) -> Result<()> {
        let inserting = async {
            let driver = (self.driver)();
            driver.insert_subscription().await
        };
        call_driver(Operation::Insert, DEFAULT_TIME_LIMIT, inserting).await
    }

    async fn run(&self, pause: Duration, mut stop: PoolStop) -> Result<()> {
        let subscribing = async {
            sleep(pause).await;
            subscribe((self.driver)()).await
        };
        let stream = tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            stream = subscribing => stream?,
        };
        (self.run)(stream.until(stop)).await
    }
}
