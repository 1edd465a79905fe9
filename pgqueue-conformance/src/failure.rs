//! [`CaseFailure`]: what a case saw instead of what was promised; and the checks that end a case with one.

use std::{error::Error as StdError, fmt, iter, panic::Location};

/// What a case, and each of its steps, ends with.
pub(crate) type CaseResult<T = ()> = Result<T, CaseFailure>;

/// What was promised, what was seen instead, and where in the kit.
#[derive(Clone, Debug)]
pub struct CaseFailure {
    promised: String,
    seen: String,
    at: &'static Location<'static>,
}

impl CaseFailure {
    #[track_caller]
    pub(crate) fn new(seen: impl Into<String>) -> Self {
        Self { promised: String::new(), seen: seen.into(), at: Location::caller() }
    }

    /// Names the place instead of the helper that noticed it.
    pub(crate) fn at(mut self, at: &'static Location<'static>) -> Self {
        self.at = at;
        self
    }

    /// Says which promise was not kept: the sentence that names the case.
    pub(crate) fn of(mut self, case: &str) -> Self {
        let (_, promise) = case.split_once("::").unwrap_or_default();
        self.promised = promise.replace('_', " ");
        self
    }
}

impl fmt::Display for CaseFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { promised, seen, at } = self;
        write!(f, "promised: {promised}\nseen: {seen}\nat {}:{}", at.file(), at.line())
    }
}

impl StdError for CaseFailure {}

impl From<pgqueue_core::Error> for CaseFailure {
    #[track_caller]
    fn from(error: pgqueue_core::Error) -> Self {
        Self::new(format!("an error: {}", chain(&error)))
    }
}

/// Writes an error and all its causes on one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Ends the case unless a condition holds, saying what was seen.
macro_rules! check {
    ($holds:expr, $($seen:tt)+) => {
        if !$holds {
            return Err($crate::CaseFailure::new(format!($($seen)+)));
        }
    };
}

/// Ends the case unless what was seen is what was promised.
macro_rules! check_eq {
    ($seen:expr, $promised:expr, $what:literal) => {
        match (&$seen, &$promised) {
            (seen, promised) => {
                $crate::failure::check!(*seen == *promised, concat!($what, " is {:?}, not {:?}"), seen, promised)
            }
        }
    };
}

pub(crate) use {check, check_eq};
