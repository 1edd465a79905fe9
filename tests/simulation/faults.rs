//! [`Faulty`]: a driver whose store is far away, so that calls are slow, fail or hang, and wake-ups get lost.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use fastrand::Rng;
use futures::future::BoxFuture;
use pgqueue_core::{Ack, Acker, Delivery, Result, SubscriptionDriver, Wakeups};

use crate::{
    link::{Link, Mishap, Way},
    lossy,
};

/// How likely faults are, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Faults {
    /// That a wake-up is lost, late or repeated.
    pub(crate) losses: f64,
    /// That a wake-up is the last one.
    pub(crate) breaks: f64,
    /// That a call is slow, fails or hangs.
    pub(crate) calls: f64,
    /// That a fetch ends the stream.
    pub(crate) dooms: f64,
}

impl Faults {
    pub(crate) const NONE: Self = Self { losses: 0.0, breaks: 0.0, calls: 0.0, dooms: 0.0 };

    /// Faults of each sort may be absent, so that the others are seen alone.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut upto = |most: f64| if rng.bool() { 0.0 } else { rng.f64() * most };
        Self { losses: upto(0.6), breaks: upto(0.3), calls: upto(0.4), dooms: upto(0.02) }
    }

    /// Only such that every stream makes up for by itself.
    pub(crate) fn draw_harmless(rng: &mut Rng) -> Self {
        Self { losses: 0.0, dooms: 0.0, ..Self::draw(rng) }
    }
}

/// How often in a row a fetch hangs at most: as often as every stream survives.
pub(crate) const MOST_HANGS: u32 = 2;

pub(crate) struct Faulty<D> {
    driver: D,
    link: Link,
    /// How often a fetch has hung since one succeeded.
    hangs: AtomicU32,
}

struct FaultyAcker {
    inner: Delivery,
    delivery: u32,
    link: Link,
}

impl<D> Faulty<D> {
    pub(crate) fn new(driver: D, link: Link) -> Self {
        Self { driver, link, hangs: AtomicU32::new(0) }
    }

    fn mishap(&self) -> Mishap {
        match self.link.mishap() {
            Mishap::Hangs(_) if self.hangs.fetch_add(1, Ordering::Relaxed) >= MOST_HANGS => Mishap::None,
            mishap => mishap,
        }
    }
}

#[async_trait]
impl<D: SubscriptionDriver> SubscriptionDriver for Faulty<D> {
    async fn insert_subscription(&self) -> Result<()> {
        self.driver.insert_subscription().await
    }

    async fn listen(&self) -> Result<Wakeups> {
        Ok(lossy::wakeups(self.driver.listen().await?, self.link.clone()))
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        let link = &self.link;
        if link.strikes(link.faults.dooms) {
            return Err(link.doom());
        }
        let mishap = self.mishap();
        link.pass(Way::There, mishap).await?;
        let fetched = self.driver.fetch_pending().await?;
        let delivery = link.history.latest_delivery_to(link.consumer);
        if fetched.is_some() && matches!(mishap, Mishap::Fails(_) | Mishap::Hangs(_)) {
            link.garbled(delivery);
        }
        link.pass(Way::Back, mishap).await?;
        self.hangs.store(0, Ordering::Relaxed);
        let Some(inner) = fetched else { return Ok(None) };
        Delivery::batch(inner.messages().to_vec(), FaultyAcker { inner, delivery, link: link.clone() }).map(Some)
    }
}

#[async_trait]
impl Acker for FaultyAcker {
    async fn settle(self: Box<Self>, ack: Ack) -> Result<()> {
        let Self { inner, delivery, link } = *self;
        let mishap = link.mishap();
        if mishap != Mishap::None {
            link.garbled(delivery);
        }
        link.pass(Way::There, mishap).await?;
        inner.settle(ack).await?;
        link.pass(Way::Back, mishap).await
    }

    fn lease_lost(&self) -> BoxFuture<'static, ()> {
        self.inner.lease_lost()
    }
}
