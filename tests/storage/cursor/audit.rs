//! The end of a run: everything is drained, and nothing may be left.

use std::time::Duration;

use tokio::time::Instant;

use crate::{model::Phase, world::World};

/// A session of a consumer.
const CONSUMER: usize = 5;
/// So many looks at nothing in a row, and nothing comes any more: more than there are lanes.
const LOOKS: usize = 6;
/// How long it may take until the log is empty, once all is settled.
const EMPTIED: Duration = Duration::from_secs(5);

impl World<'_> {
    /// Claims and settles all that is left, and looks at what the tables still have.
    pub(crate) async fn audit(&mut self) -> Result<(), String> {
        for holding in 0..self.model.holdings.len() {
            if !self.model.holdings[holding].ids.is_empty() {
                self.finish(CONSUMER, holding).await?;
            }
        }
        for subscription in 0..self.model.subscriptions.len() {
            self.drain(subscription).await?;
            if !self.model.subscriptions[subscription].dead().is_empty() {
                self.revive(subscription).await?;
                self.drain(subscription).await?;
            }
            self.everything_came(subscription)?;
        }
        self.nothing_is_left().await
    }

    async fn drain(&mut self, subscription: usize) -> Result<(), String> {
        let mut idle = 0;
        while idle < LOOKS {
            self.step += 1;
            let before = self.model.holdings.len();
            let claim = self.claim(CONSUMER, subscription, Some(100)).await?;
            let is_idle = before == self.model.holdings.len() && !self.model.claims[claim].busy;
            idle = if is_idle { idle + 1 } else { 0 };
            for holding in before..self.model.holdings.len() {
                self.finish(CONSUMER, holding).await?;
            }
        }
        Ok(())
    }

    fn everything_came(&self, number: usize) -> Result<(), String> {
        let subscription = &self.model.subscriptions[number];
        let messages = self.model.messages.iter().enumerate();
        let mut ours = messages.filter(|(payload, message)| {
            message.topic == subscription.topic
                && message.committed.is_some()
                && subscription.selects.gets(*payload, message)
        });
        let is_done =
            |payload: &usize| subscription.states.get(payload).is_some_and(|state| state.phase == Phase::Done);
        match ours.find(|(payload, _)| !is_done(payload)) {
            Some((payload, message)) => {
                let state = subscription.states.get(&payload);
                Err(format!("message {} never came to its end in {}: {state:?}", message.id, subscription.name))
            }
            None => Ok(()),
        }
    }

    async fn nothing_is_left(&mut self) -> Result<(), String> {
        // Looks that find nothing move the cursors, once in a while; what is left of old ones goes with every sixteenth move. In stable
        // total order none passes what is in progress elsewhere on the server.
        let patience = Instant::now() + EMPTIED;
        loop {
            if Instant::now() > patience {
                return Err("the log is never emptied, or pulses never say that there is nothing".to_owned());
            }
            for subscription in 0..self.model.subscriptions.len() {
                self.grow_old().await?;
                self.drain(subscription).await?;
            }
            let mut is_restless = false;
            for subscription in 0..self.model.subscriptions.len() {
                is_restless |= self.has_news(subscription).await?;
            }
            if is_restless {
                continue;
            }
            while self.control.ask("select pgqueue.trim()").await?[0][0].as_deref() != Some("0") {}
            if self.control.ask("select from pgqueue.log limit 1").await?.is_empty() {
                break;
            }
        }
        for subscription in 0..self.model.subscriptions.len() {
            let count = format!(
                "select lane, count(*) from pgqueue.cursor where subscription = {} group by lane having count(*) > 17",
                self.model.subscriptions[subscription].id
            );
            let crowded = self.control.ask(&count).await?;
            if !crowded.is_empty() {
                return Err(format!("cursors pile up: {crowded:?}"));
            }
        }
        for table in ["kept", "settled", "lease", "dead_letter"] {
            let left = self.control.ask(&format!("select count(*) from pgqueue.{table}")).await?;
            if left[0][0].as_deref() != Some("0") {
                let left = self.control.ask(&format!("select x::text from pgqueue.{table} x limit 3")).await?;
                return Err(format!("{table} still has {left:?}"));
            }
        }
        for topic in &self.topics {
            self.control.ask(&format!("select pgqueue.delete_topic('{topic}')")).await?;
        }
        Ok(())
    }
}
