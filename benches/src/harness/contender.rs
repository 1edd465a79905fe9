//! [`Contender`]: something that is measured.

use std::fmt;

use anyhow::Result;
use futures::future::{BoxFuture, FutureExt};
use serde_json::{Map, Value};

use super::{Measurement, Sample};

/// Something that is measured, with a name and settings.
pub struct Contender {
    pub(crate) who: &'static str,
    pub(crate) settings: Map<String, Value>,
    pub(crate) run: Box<dyn Fn(Measurement) -> BoxFuture<'static, Result<Sample>> + Send + Sync>,
    /// Which contenders of the same comparison it is measured against, by their place, and what is hoped for.
    pub(crate) against: Vec<(usize, Option<Target>)>,
    /// What is hoped for by itself.
    pub(crate) target: Option<Target>,
}

/// What is hoped for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// The ratio.
    AtLeast(f64),
    /// The ratio.
    AtMost(f64),
    /// The ratio of what they write to the write-ahead log, a message.
    WalAtMost(f64),
    /// The median.
    P50(f64),
    /// The rate, of what should be rare.
    Rate(f64),
}

impl Contender {
    /// What measures itself by `run`, once a round.
    pub fn new<F>(who: &'static str, run: impl Fn(Measurement) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Sample>> + Send + 'static,
    {
        let run = Box::new(move |measurement| run(measurement).boxed());
        Self { who, settings: Map::new(), run, against: Vec::new(), target: None }
    }

    /// Says how it is set up.
    #[must_use]
    pub fn with(mut self, setting: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(setting.to_owned(), value.into());
        self
    }

    /// Compares it to another, by its place among the contenders.
    #[must_use]
    pub fn against(mut self, other: usize) -> Self {
        self.against.push((other, None));
        self
    }

    /// Says what is hoped for, of the last comparison if there is one.
    pub(crate) fn hopes_for(mut self, target: Target) -> Self {
        match self.against.last_mut() {
            Some((_, hoped)) => *hoped = Some(target),
            None => self.target = Some(target),
        }
        self
    }

    /// Its name.
    #[must_use]
    pub fn who(&self) -> &'static str {
        self.who
    }

    /// Its name and its settings.
    pub(crate) fn title(&self) -> String {
        let settings = self.settings.iter().map(|(name, value)| format!(" {name}={value}"));
        self.who.to_owned() + &settings.collect::<String>()
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contender").field("who", &self.who).field("settings", &self.settings).finish_non_exhaustive()
    }
}
