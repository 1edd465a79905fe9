//! Counts and times, through the `metrics` crate; without the feature of that name they are not even looked at.

#[cfg(feature = "metrics")]
mod macros {
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

    pub(crate) use {count, time};
}

#[cfg(not(feature = "metrics"))]
mod macros {
    macro_rules! count {
        ($name:literal, $count:expr $(, $label:literal => $value:expr)*) => {
            let _ = || ($count, $($value),*);
        };
    }

    pub(crate) use {count, count as time};
}

pub(crate) use macros::{count, time};
