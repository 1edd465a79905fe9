//! [`check`]: whether a history keeps every promise.

use crate::{event::Event, model::Model};

/// What is wrong, in a sentence.
pub(crate) type Verdict<T = ()> = Result<T, String>;

macro_rules! ensure {
    ($holds:expr, $($wrong:tt)+) => {
        if !$holds {
            return Err(format!($($wrong)+));
        }
    };
}
pub(crate) use ensure;

/// Says what is wrong with a history, and how many events show it.
pub(crate) fn check(history: &[Event]) -> Result<(), (usize, String)> {
    let mut model = Model::default();
    for (before, event) in history.iter().enumerate() {
        model.apply(event).map_err(|wrong| (before + 1, wrong))?;
    }
    model.check_end().map_err(|wrong| (history.len(), wrong))
}
