//! What luck brings about too seldom: publishers that pass each other while a claim looks, and claims that pass each other.

use std::ops::RangeInclusive;

use crate::{
    model::Order,
    world::{GATES_OF_A_LOOK, World},
};

/// A claim of more than these publish.
const MOST: usize = 100;
/// The first gate of a look behind its scan.
const SCANNED: u32 = 2;
/// The gates of a claim about where it locks its first lane.
const BEFORE_THE_LANE: RangeInclusive<u32> = 11..=17;

impl World<'_> {
    /// One publisher draws its transaction's number first and the higher id, and is committed first. Somewhere in between
    /// a claim begins to look, and goes on before the other is committed or after.
    pub(crate) async fn pass_each_other(&mut self) -> Result<(), String> {
        let all = self.model.subscriptions.iter().enumerate();
        // Lanes in order are often blocked.
        let unordered =
            all.filter(|(_, subscription)| subscription.order == Order::Unordered).map(|(number, _)| number);
        let subscription = match self.rng.choice(unordered.collect::<Vec<_>>()) {
            Some(number) if self.rng.bool() => number,
            _ => self.rng.usize(..self.model.subscriptions.len()),
        };
        let topic = self.model.subscriptions[subscription].topic;
        let (begins, gate, goes_on) = match self.rng.u8(0..4) {
            0 => (0, self.rng.u32(..SCANNED), 0),
            1 => (2, SCANNED, 1),
            _ => (self.rng.u8(0..3), self.rng.u32(..GATES_OF_A_LOOK), self.rng.u8(0..3)),
        };
        let (trims, swaps) = (self.rng.bool(), self.rng.u8(0..4) == 0);
        let count = if self.rng.bool() { 1 } else { self.rng.usize(2..8) };

        self.make_way(subscription).await?;
        let Some(first) = self.idle_publisher() else { return Ok(()) };
        self.begin_with(first, true).await?;
        let Some(second) = self.idle_publisher() else { return Ok(()) };
        let mut claiming = None;

        if begins == 0 {
            claiming = self.begin_to_look(subscription, gate).await?;
        }
        self.step += 1;
        self.begin_with(second, !swaps).await?;
        self.publish_in(second, topic, 1).await?;
        if begins == 1 {
            claiming = self.begin_to_look(subscription, gate).await?;
        }
        self.step += 1;
        self.publish_in(first, topic, count).await?;
        self.step += 1;
        self.end(first, true).await?;
        if begins == 2 {
            claiming = self.begin_to_look(subscription, gate).await?;
        }
        if let (0, Some(claiming)) = (goes_on, claiming) {
            self.step += 1;
            self.let_on(claiming).await?;
        }
        self.step += 1;
        self.end(second, true).await?;
        if let (1, Some(claiming)) = (goes_on, claiming) {
            self.step += 1;
            self.let_on(claiming).await?;
        }
        if trims {
            self.step += 1;
            self.trim().await?;
        }
        Ok(())
    }

    /// One claim begins and is held before it has its lane, another moves the cursor, and the first goes on.
    pub(crate) async fn claim_beside(&mut self) -> Result<(), String> {
        let subscription = self.rng.usize(..self.model.subscriptions.len());
        let topic = self.model.subscriptions[subscription].topic;
        let Some(publisher) = self.idle_publisher() else { return Ok(()) };
        self.begin_with(publisher, false).await?;
        self.publish_in(publisher, topic, 1).await?;
        self.step += 1;
        self.end(publisher, true).await?;
        self.make_way(subscription).await?;
        let mut sessions = [None; 2];
        for (number, stop) in [Some(self.rng.u32(BEFORE_THE_LANE)), None].into_iter().enumerate() {
            let Some(session) = self.idle_consumer() else { break };
            self.step += 1;
            self.hold(session, "claim", stop).await;
            self.claim(session, subscription, Some(MOST)).await?;
            sessions[number] = Some(session);
        }
        if let [Some(first), Some(_)] = sessions {
            self.step += 1;
            self.let_on(first).await?;
        }
        Ok(())
    }

    /// Lets the claims of a subscription come to their end: they have its lanes.
    async fn make_way(&mut self, subscription: usize) -> Result<(), String> {
        for session in self.claiming(subscription) {
            self.step += 1;
            self.let_on(session).await?;
        }
        Ok(())
    }

    /// Has a consumer begin a claim, and returns its session if there is one.
    async fn begin_to_look(&mut self, subscription: usize, gate: u32) -> Result<Option<usize>, String> {
        let Some(session) = self.idle_consumer() else { return Ok(None) };
        self.step += 1;
        self.hold(session, "look", Some(gate + 1)).await;
        self.claim(session, subscription, Some(MOST)).await?;
        Ok(Some(session))
    }
}
