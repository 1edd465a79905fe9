//! Counts and times, through the `metrics` crate; without the feature of that name they are not even looked at.

#[cfg(feature = "metrics")]
mod macros {
    use std::time::Duration;

    use tokio::time::Instant;

    macro_rules! count {
        ($name:literal, $count:expr $(, $label:literal => $value:expr)*) => {
            metrics::counter!($name $(, $label => String::from($value))*).increment($count)
        };
    }

    macro_rules! time {
        ($name:literal, $time:expr $(, $label:literal => $value:expr)*) => {
            metrics::histogram!($name $(, $label => String::from($value))*).record($time.as_secs_f64())
        };
    }

    /// Since when something goes on.
    #[derive(Clone, Copy)]
    pub(crate) struct Stopwatch(Instant);

    impl Stopwatch {
        pub(crate) fn start() -> Self {
            Self(Instant::now())
        }

        pub(crate) fn elapsed(self) -> Duration {
            self.0.elapsed()
        }
    }

    pub(crate) use {count, time};
}

#[cfg(not(feature = "metrics"))]
mod macros {
    macro_rules! count {
        ($name:literal, $count:expr $(, $label:literal => $value:expr)*) => {
            let _ = || ($count, $($value),*);
        };
    }

    /// Asks no clock, which takes longer than much else of a delivery.
    #[derive(Clone, Copy)]
    pub(crate) struct Stopwatch;

    impl Stopwatch {
        pub(crate) fn start() -> Self {
            Self
        }

        pub(crate) fn elapsed(self) {}
    }

    pub(crate) use {count, count as time};
}

pub(crate) use macros::{Stopwatch, count, time};
