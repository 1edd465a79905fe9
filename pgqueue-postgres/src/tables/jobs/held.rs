//! [`Held`]: the jobs that a consumer has, and the answers that were given to them.

use std::collections::HashMap;

use pgqueue_core::Result;
use tokio::sync::watch;

use super::verdict::Verdict;
use crate::{Row, value::RowExt};

/// One claim of one job. The same job, claimed again, is another: its attempts were counted on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    /// The id in PostgreSQL's binary format.
    pub(super) id: Vec<u8>,
    pub(super) attempt: i64,
}

impl Claim {
    /// Reads an id and an attempt.
    pub(super) fn read<R: Row>(row: &R, id: usize, attempt: usize) -> Result<Self> {
        let id = row.column(id).unwrap_or_default().to_vec();
        Ok(Self { id, attempt: row.get(attempt)? })
    }
}

/// A job in hand.
struct Job {
    /// Tells when it is somebody else's.
    lost: watch::Sender<bool>,
    /// Whether it was answered: from then on it says nothing.
    is_answered: bool,
}

#[derive(Default)]
pub(super) struct Held {
    jobs: HashMap<Claim, Job>,
    /// Answers that wait for the consumer's task.
    answers: Vec<(Claim, Verdict)>,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(super) fn claims(&self) -> Vec<Claim> {
        self.jobs.keys().cloned().collect()
    }

    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// The answers that wait, of those that are still wanted.
    pub(super) fn answers(&mut self) -> Vec<(Claim, Verdict)> {
        self.answers.retain(|(claim, _)| self.jobs.contains_key(claim));
        self.answers.clone()
    }

    pub(super) fn push(&mut self, claim: Claim) -> watch::Receiver<bool> {
        // What was given back is the same claim when it is made again.
        self.answers.retain(|(answered, _)| *answered != claim);
        let lost = watch::Sender::new(false);
        let hears = lost.subscribe();
        self.jobs.insert(claim, Job { lost, is_answered: false });
        hears
    }

    /// Notes that a job is being answered; whether it is still held.
    pub(super) fn begin_answer(&mut self, claim: &Claim) -> bool {
        let job = self.jobs.get_mut(claim);
        job.map(|job| job.is_answered = true).is_some()
    }

    /// Leaves an answer to the consumer's task.
    pub(super) fn leave_answer(&mut self, claim: Claim, verdict: Verdict) {
        if self.begin_answer(&claim) {
            self.answers.push((claim, verdict));
        }
    }

    /// Notes that a job is out of hand, as its answer is durable or cannot be.
    pub(super) fn remove(&mut self, claim: &Claim) {
        self.jobs.remove(claim);
    }

    /// Notes that somebody else has a job by now.
    pub(super) fn lost(&mut self, claim: &Claim) {
        // Of what is being answered, that answer will say so.
        if self.jobs.get(claim).is_some_and(|job| !job.is_answered)
            && let Some(job) = self.jobs.remove(claim)
        {
            job.lost.send_replace(true);
        }
    }

    /// Tells every handler that its job may be somebody else's by now.
    pub(super) fn doubt_all(&self) {
        for job in self.jobs.values().filter(|job| !job.is_answered) {
            job.lost.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(attempt: i64) -> Claim {
        Claim { id: vec![7], attempt }
    }

    #[test]
    fn what_is_lost_is_told_unless_it_is_being_answered() {
        let mut held = Held::default();
        let (lost, answered) = (held.push(claim(1)), held.push(claim(2)));
        assert!(held.begin_answer(&claim(2)));
        held.lost(&claim(1));
        held.lost(&claim(2)); // the server may say so before it says that the answer took effect
        assert!(*lost.borrow() && !*answered.borrow());
        assert!(!held.begin_answer(&claim(1)) && held.begin_answer(&claim(2)));
        held.doubt_all();
        assert!(!*answered.borrow());
    }

    #[test]
    fn an_answer_to_an_earlier_claim_is_not_one_to_the_same_claim_made_again() {
        let mut held = Held::default();
        held.push(claim(1));
        held.leave_answer(claim(1), Verdict::GivenBack);
        assert_eq!(held.answers().len(), 1);
        held.push(claim(1));
        assert!(held.answers().is_empty());
    }
}
