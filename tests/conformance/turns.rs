//! The kit in halves: of two ways that differ little, each tries every other case, unless `PGQUEUE_LONG` asks for all of both.

use libtest_mimic::Trial;

const LONG: &str = "PGQUEUE_LONG";

/// Leaves the trials of one's turn, and shows the others as ignored.
pub(crate) fn every_other(trials: Vec<Trial>, turn: usize) -> Vec<Trial> {
    if std::env::var_os(LONG).is_some_and(|value| !value.is_empty()) {
        return trials;
    }
    let leave = |(number, trial): (usize, Trial)| {
        if number % 2 == turn || trial.has_ignored_flag() {
            return trial;
        }
        let kind = format!("{}: the other client's turn, {LONG}=1 runs it", trial.kind());
        trial.with_kind(kind).with_ignored_flag(true)
    };
    trials.into_iter().enumerate().map(leave).collect()
}
