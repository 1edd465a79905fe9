//! [`Progress`]: what is measured at present, for whoever looks on.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often the bar shows that time goes by.
const TICK: Duration = Duration::from_millis(200);

/// Lines on stderr, and on a terminal a bar below them.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), bar: ProgressBar::hidden() }
    }

    /// Begins with something that has so many steps.
    pub(super) fn begin(&mut self, steps: usize) {
        self.end();
        self.bar = ProgressBar::new(steps as u64); // draws nothing where stderr is no terminal
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {bar:30} {pos}/{len} {wide_msg}") {
            self.bar.set_style(style);
        }
        self.bar.enable_steady_tick(TICK);
    }

    /// Says what the step is that begins.
    pub(super) fn step(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// Ends a step.
    pub(super) fn advance(&self) {
        self.bar.inc(1);
    }

    /// Says what is to stay.
    pub(super) fn note(&self, text: &str) {
        let line = format!("{:>6.1} s  {text}", self.began.elapsed().as_secs_f64());
        self.bar.suspend(|| writeln!(std::io::stderr(), "{line}")).ok();
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
