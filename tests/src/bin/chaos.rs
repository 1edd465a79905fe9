//! Breaks things at random, or as a scenario says, and audits what came of it.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use pgqueue_tests::{Backing, Report, Scenario, Settings, publish_table, run_part, table};
use tokio::signal::unix::{SignalKind, signal};

/// Kills, freezes and cuts off real processes that publish and consume on a private PostgreSQL server, and audits what they noted.
/// Ends with an error if any promise was broken.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Arguments {
    /// How long the random mix lasts, in minutes.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// What decides about what is random. Default: another one each time, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs these scenarios instead of the random mix.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Runs all scenarios and prints a table of what came of them, in Markdown.
    #[arg(long)]
    table: bool,
    /// Puts the table between its two markers in this file. Means --table.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Runs the long forms of scenarios: more rounds, and an outage of a minute instead of ten seconds.
    #[arg(long)]
    long: bool,
    /// How many times longer than is promised on a quiet machine it may take until what a consumer held is with others.
    #[arg(long, default_value_t = 1, value_name = "TIMES")]
    slack: u32,
    /// The client of the processes. Default: scenarios take turns; the random mix uses both.
    #[arg(long)]
    client: Option<Backing>,
    /// Keeps the logs of all processes below this folder.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
    /// Lists the scenarios.
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let done = match (arguments.next().as_deref(), arguments.next()) {
        (Some("part"), Some(part)) => run_part(&part).await.map(|()| true),
        _ => until_told(Arguments::parse()).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            writeln!(io::stderr(), "chaos: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

/// Whoever is interrupted lets go of what was started, by dropping it.
async fn until_told(arguments: Arguments) -> Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        done = chaos(arguments) => done,
        told = tokio::signal::ctrl_c() => { told?; bail!("interrupted") }
        _ = terminate.recv() => bail!("told to end"),
        _ = hang_up.recv() => bail!("told to end"),
    }
}

async fn chaos(arguments: Arguments) -> Result<bool> {
    let mut out = io::stdout();
    if arguments.list {
        for scenario in Scenario::all() {
            writeln!(out, "{:24}{}", scenario.name(), scenario.about())?;
        }
        return Ok(true);
    }
    let find =
        |name: &String| Scenario::find(name).with_context(|| format!("there is no scenario {name:?}; see --list"));
    let makes_table = arguments.table || arguments.report.is_some();
    let scenarios: Vec<&Scenario> = match &arguments.scenario[..] {
        [] if makes_table => Scenario::all().iter().collect(),
        [] => Scenario::all().last().into_iter().collect(),
        names => names.iter().map(find).collect::<Result<_>>()?,
    };
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    writeln!(io::stderr(), "seed {seed}")?;
    let mut reports: Vec<Report> = Vec::new();
    for (scenario, turn) in scenarios.into_iter().zip([Backing::TokioPostgres, Backing::Sqlx].into_iter().cycle()) {
        writeln!(io::stderr(), "{}: {}", scenario.name(), scenario.about())?;
        let settings = Settings {
            program: std::env::current_exe()?,
            backing: arguments.client.unwrap_or(turn),
            seed,
            long: arguments.long,
            slack: arguments.slack,
            mix: Duration::try_from_secs_f64(arguments.minutes * 60.0).context("--minutes is not a length of time")?,
            logs: arguments.logs.clone(),
        };
        let report = scenario.run(&settings).await.with_context(|| format!("{} could not be run", scenario.name()))?;
        writeln!(io::stderr(), "{report}")?;
        reports.push(report);
    }
    if makes_table {
        let table = table(&reports);
        write!(out, "{table}")?;
        arguments.report.iter().try_for_each(|file| publish_table(&table, file))?;
    }
    let broken = reports.iter().map(|report| report.breaches().len()).sum::<usize>();
    match broken {
        0 => writeln!(io::stderr(), "all promises were kept (seed {seed})")?,
        _ => writeln!(io::stderr(), "{broken} breaches of promises; seed {seed}")?,
    }
    Ok(broken == 0)
}
