//! The task of a consumer: it claims, renews, recovers, and makes durable what was left to it.

use std::{sync::Arc, time::Duration};

use pgqueue_core::{Error, Result};
use tokio::time::{Instant, timeout_at};

use super::consumer::{Agenda, Consumer};
use crate::{Client, presence::Presence};

/// After how long to try again what failed, at most.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until the consumer ends. One thing after the other, what is most urgent first.
pub(super) async fn run<C: Client>(consumer: Arc<Consumer<C>>, _presence: Presence) {
    let lease = consumer.table.lease;
    let pause = PAUSE.min(lease / 10);
    let began = Instant::now();
    let mut renewed_at = began;
    let mut renew_at = began + lease / 3;
    let mut is_renewed = true;
    let mut recover_at = began;
    let mut settle_at = began;
    // When to give back what the server may have given without an answer.
    let mut give_back_at = None;
    loop {
        let Agenda { is_done, has_jobs, has_answers, has_lookers } = consumer.agenda();
        if is_done {
            return;
        }
        let now = Instant::now();
        // Who could not renew must not take its own jobs for somebody else's that were left.
        let may_recover = is_renewed || !has_jobs;
        if renew_at <= now {
            is_renewed = succeeds("jobs in hand could not be renewed", &consumer.renew().await);
            renew_at = now + if is_renewed { lease / 3 } else { pause };
            if is_renewed {
                renewed_at = now;
            } else if renewed_at.elapsed() > lease {
                consumer.doubt_all();
            }
        } else if has_answers && settle_at <= now {
            if !succeeds("answers could not be made durable", &consumer.settle_left().await) {
                settle_at = Instant::now() + pause;
            }
        } else if give_back_at.is_some_and(|then| then <= now) {
            let is_done = succeeds("claims without an answer could not be given back", &consumer.give_back().await);
            give_back_at = (!is_done).then(|| Instant::now() + pause);
        } else if recover_at <= now && may_recover {
            let recovered = consumer.recover().await;
            let soon = recovered.as_ref().is_err_and(Error::is_transient);
            succeeds("jobs of silent consumers could not be looked for", &recovered);
            recover_at = now + if soon { pause } else { lease / 2 };
        } else if has_lookers {
            if consumer.look().await {
                give_back_at = Some(Instant::now() + pause);
            }
        } else {
            let answers = has_answers.then_some(settle_at);
            let recovery = may_recover.then_some(recover_at);
            let next = [answers, recovery, give_back_at].into_iter().flatten().fold(renew_at, Instant::min);
            timeout_at(next, consumer.to_do.notified()).await.ok();
        }
    }
}

/// Says what failed; it is tried again.
fn succeeds(what: &'static str, done: &Result<()>) -> bool {
    if let Err(error) = done {
        tracing::warn!(%error, "{what}");
    }
    done.is_ok()
}
