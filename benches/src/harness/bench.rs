//! [`Bench`]: the server, and contenders that take turns on it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use pgqueue_testserver::Server;

use super::{Contender, Measurement, Sample, meter, profile, progress::Progress, report::Report};
use crate::arguments::Arguments;

/// A private server, contenders that take turns on it, and a report of how they did.
#[derive(Debug)]
pub struct Bench {
    /// What it was told.
    pub arguments: Arguments,
    server: Arc<Server>,
    report: Report,
    /// How many databases there were.
    databases: usize,
    progress: Progress,
}

impl Bench {
    /// Starts a server as PostgreSQL ships it, with all its durability.
    ///
    /// # Errors
    ///
    /// When there is no PostgreSQL, or it does not start.
    pub async fn start(arguments: Arguments) -> Result<Self> {
        let server = Arc::new(Server::start().await?);
        if arguments.profile {
            profile::start(&server).await?;
        }
        let report = Report::new(arguments.json);
        Ok(Self { arguments, server, report, databases: 0, progress: Progress::new() })
    }

    /// Measures contenders in turns, A B A B, each time in a database of its own, and reports the medians.
    ///
    /// # Errors
    ///
    /// When a contender fails; nothing is reported then.
    pub async fn compare(&mut self, scenario: &str, contenders: &[Contender]) -> Result<()> {
        self.take_turns(scenario, None, contenders).await
    }

    /// As [`compare`](Self::compare), each time in a copy of one database that is stocked once.
    pub(crate) async fn compare_stocked<F: Future<Output = Result<()>>>(
        &mut self,
        scenario: &str,
        stock: impl FnOnce(Measurement) -> F,
        contenders: &[Contender],
    ) -> Result<()> {
        self.progress.note(&format!("{scenario}: stocking"));
        let name = self.name();
        self.server.create_database(&name).await?;
        stock(Measurement::new(Arc::clone(&self.server), name.clone(), Duration::ZERO, false)).await?;
        self.take_turns(scenario, Some(&name), contenders).await?;
        Ok(self.server.drop_database(&name).await?)
    }

    async fn take_turns(&mut self, scenario: &str, stocked: Option<&str>, contenders: &[Contender]) -> Result<()> {
        let is_quick = self.arguments.quick;
        let warm_ups = if is_quick { 0 } else { 1 };
        self.progress.begin(contenders.len() * (self.arguments.rounds() + warm_ups));
        for contender in contenders.iter().filter(|_| !is_quick) {
            self.progress.step(&format!("{scenario}: warm-up: {}", contender.title()));
            self.measure(contender, stocked, true).await.with_context(|| format!("{scenario}: {}", contender.who))?;
            self.progress.advance();
        }
        let mut rounds: Vec<Vec<Sample>> = Vec::new();
        for round in 1..=self.arguments.rounds() {
            self.server.sql("postgres", "checkpoint").await?;
            let mut samples = Vec::new();
            for contender in contenders {
                self.progress.step(&format!("{scenario}: round {round}: {}", contender.title()));
                let sample = self.measure(contender, stocked, false).await;
                let sample = sample.with_context(|| format!("{scenario}: {}", contender.who))?;
                self.progress.note(&format!("{scenario}: round {round}: {}: {sample}", contender.title()));
                self.progress.advance();
                samples.push(sample);
            }
            rounds.push(samples);
        }
        self.progress.end();
        self.report.add(scenario, contenders, &rounds)
    }

    async fn measure(&mut self, contender: &Contender, stocked: Option<&str>, is_warm_up: bool) -> Result<Sample> {
        let name = self.name();
        match stocked {
            Some(stocked) => {
                self.server.sql("postgres", &format!("create database {name} template {stocked}")).await?;
            }
            None => self.server.create_database(&name).await?,
        }
        if self.arguments.profile {
            profile::reset(&self.server).await?;
        }
        let duration = if is_warm_up { Duration::from_millis(100) } else { self.arguments.duration() };
        let measurement = Measurement::new(Arc::clone(&self.server), name.clone(), duration, is_warm_up);
        let mut sample = (contender.run)(measurement).await;
        if let Ok(sample) = &mut sample {
            sample.count_commits(meter::commits_in_all(&self.server, &name).await?);
        }
        if self.arguments.profile && !is_warm_up {
            profile::print(&self.server, &name, &contender.title()).await?;
        }
        self.server.drop_database(&name).await?;
        sample
    }

    /// The name of one more database.
    fn name(&mut self) -> String {
        self.databases += 1;
        format!("bench_{}", self.databases)
    }

    /// Reports that somebody cannot do what is measured, and why.
    ///
    /// # Errors
    ///
    /// When it cannot be printed.
    pub fn absent(&mut self, scenario: &str, who: &'static str, reason: &'static str) -> Result<()> {
        self.report.add_absent(scenario, who, reason)
    }

    /// Prints the report, and draws it if that is asked for.
    ///
    /// # Errors
    ///
    /// When it cannot be printed, or a file cannot be written.
    pub fn finish(&self) -> Result<()> {
        self.report.print()?;
        self.arguments.plot.as_deref().map_or(Ok(()), |folder| self.report.plot(folder))
    }
}
