//! [`Recovery`]: how long it took until things went on after faults.

use std::time::Duration;

use crate::{event::Moment, history::History};

/// Times to recover, by fault and by message.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// From the end of each fault to the next delivery of anything.
    pub(crate) flow: Vec<Duration>,
    /// For each message that was in hand when a fault happened and came again: until it did, from the end of that fault, or from
    /// its beginning if it did not wait for the end.
    pub(crate) again: Vec<Duration>,
    /// From when consumers were told to stop until they had released what they held.
    pub(crate) released: Vec<Duration>,
}

impl Recovery {
    pub(crate) fn of(history: &History) -> Self {
        let mut moments: Vec<Moment> =
            history.handed.iter().filter(|handed| !handed.is_stale()).map(|handed| handed.at).collect();
        moments.sort_unstable();
        let next = |after: Moment| moments.get(moments.partition_point(|at| *at <= after)).copied();
        let flow = history.faults.iter().filter_map(|fault| Some(micros(next(fault.end())? - fault.end())));

        let mut again = Vec::new();
        for sent in history.sent.values() {
            for pair in history.deliveries(sent).windows(2) {
                let [held, came] = pair else { continue };
                let concerns =
                    |process: &Option<String>| process.as_ref().is_none_or(|process| *process == held.process);
                let fault = history.faults.iter().rev().find(|fault| fault.from < came.at && concerns(&fault.process));
                if let Some(fault) = fault.filter(|fault| !held.was_given_back() && held.at < fault.end()) {
                    let since = if fault.end() < came.at { fault.end() } else { fault.from };
                    again.push(micros(came.at - since));
                }
            }
        }
        let mut recovery = Self { flow: flow.collect(), again, released: Vec::new() };
        recovery.flow.sort_unstable();
        recovery.again.sort_unstable();
        recovery
    }
}

/// The smallest of some sorted times that so many percent do not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

fn micros(micros: Moment) -> Duration {
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Entry, Event};

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<_> = (1..=100).map(Duration::from_secs).collect();
        let seconds = |times: &[Duration], percent| percentile(times, percent).map(|time| time.as_secs());
        assert_eq!([50, 99, 100].map(|percent| seconds(&times, percent)), [Some(50), Some(99), Some(100)]);
        assert_eq!((seconds(&times[..1], 50), seconds(&[], 99)), (Some(1), None));
    }

    #[test]
    fn what_came_again_is_measured_from_the_end_of_the_fault() {
        let mut history = History::default();
        let delivered = |n, serial| Event::Delivered { n, serial, attempt: 1, before: None };
        let outage = Event::Fault { name: "outage".to_owned(), process: None, lasts: true };
        for (at, process, event) in [
            (10, "p", Event::Began { n: 1, key: None, poison: false }),
            (20, "c", delivered(1, 0)),
            (30, "harness", outage),
            (80, "harness", Event::Healed),
            (100, "c", delivered(2, 1)),
            (120, "d", delivered(1, 0)),
        ] {
            history.add(process, Entry { at, event });
        }
        let recovery = Recovery::of(&history);
        assert_eq!(recovery.flow, [Duration::from_micros(20)]);
        assert_eq!(recovery.again, [Duration::from_micros(40)]);
    }
}
