//! [`Report`]: the medians, as a table or as JSON.

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{
    Contender, Sample, Target,
    chart::{Chart, Row},
    sample::Costs,
};

#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    lines: Vec<Line>,
}

#[derive(Debug, Default)]
struct Line {
    scenario: String,
    who: &'static str,
    settings: Map<String, Value>,
    rate: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
    wal_bytes: Option<f64>,
    commits: Option<f64>,
    /// In seconds.
    cpu: Option<f64>,
    /// Of this process and of the server, in microseconds a message.
    cpu_each: Option<(f64, f64)>,
    /// The memory of this process at most, in MiB.
    peak: Option<f64>,
    ratio: Option<(String, f64)>,
    target: Option<Target>,
    /// Why nothing was measured.
    absent: Option<&'static str>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, lines: Vec::new() }
    }

    /// Takes in the samples of all rounds, by round and contender. A ratio is the median of those of each round.
    pub(crate) fn add(&mut self, scenario: &str, contenders: &[Contender], rounds: &[Vec<Sample>]) -> Result<()> {
        for (at, contender) in contenders.iter().enumerate() {
            // A line for each comparison, or one without any.
            let alone = contender.against.is_empty().then_some((None, contender.target));
            let comparisons = contender.against.iter().map(|(other, target)| (Some(*other), *target)).chain(alone);
            for (other, target) in comparisons {
                let ratio = other.and_then(|other| {
                    let ratio = |round: &Vec<Sample>| compared(target, &round[at], &round[other]);
                    let to = contenders[other].title();
                    let to = if matches!(target, Some(Target::WalAtMost(_))) { format!("WAL of {to}") } else { to };
                    Some((to, median(rounds.iter().map(ratio).collect::<Option<_>>()?)))
                });
                let samples: Vec<&Sample> = rounds.iter().map(|round| &round[at]).collect();
                let line = Line::new(scenario, contender, &samples, ratio, target);
                self.take(line)?;
            }
        }
        Ok(())
    }

    /// Takes in that somebody cannot do this.
    pub(crate) fn add_absent(&mut self, scenario: &str, who: &'static str, reason: &'static str) -> Result<()> {
        self.take(Line { scenario: scenario.to_owned(), who, absent: Some(reason), ..Line::default() })
    }

    fn take(&mut self, line: Line) -> Result<()> {
        if self.json {
            writeln!(std::io::stdout(), "{}", line.json())?;
        }
        self.lines.push(line);
        Ok(())
    }

    /// Prints the table, unless every line went out as JSON already.
    pub(crate) fn print(&self) -> Result<()> {
        if self.json {
            return Ok(());
        }
        let heads = [
            "scenario", "who", "settings", "msgs/s", "p50 ms", "p99 ms", "WAL B", "commits", "CPU µs", "MiB", "ratio",
            "target", "to",
        ];
        let mut rows = vec![heads.map(str::to_owned)];
        rows.extend(self.lines.iter().map(Line::cells));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        let mut out = std::io::stdout().lock();
        for row in &rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
                3..=10 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            });
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Draws what was measured, a chart for each scenario.
    pub(crate) fn plot(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let mut scenarios: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
        for line in self.lines.iter().filter(|line| line.absent.is_none()) {
            scenarios.entry(&line.scenario).or_default().push(line);
        }
        for (scenario, mut lines) in scenarios {
            // One of those that differ by what they are compared to only.
            lines.dedup_by(|one, other| one.title() == other.title());
            let is_rate = lines.iter().all(|line| line.rate.is_some());
            let series = match is_rate {
                true => vec![("a second", "#336791")],
                false => vec![("p50, ms", "#336791"), ("p99, ms", "#b0b7c3")],
            };
            let values = |line: &Line| if is_rate { vec![line.rate] } else { vec![line.p50, line.p99] };
            let row = |line: &&Line| {
                Some(Row { label: line.title(), values: values(line).into_iter().collect::<Option<_>>()? })
            };
            let chart = Chart { title: scenario.to_owned(), series, rows: lines.iter().filter_map(row).collect() };
            let file = folder.join(format!("{scenario}.svg"));
            fs::write(&file, chart.svg()).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

/// How a sample compares to another, by what the target is about; `None` if that was not measured.
fn compared(target: Option<Target>, sample: &Sample, other: &Sample) -> Option<f64> {
    match target {
        Some(Target::WalAtMost(_)) => {
            Some(sample.costs()?.wal_bytes_per_message() / other.costs()?.wal_bytes_per_message())
        }
        Some(Target::AtLeast(_) | Target::AtMost(_) | Target::P50(_) | Target::Rate(_)) | None => {
            Some(sample.middle() / other.middle())
        }
    }
}

impl Line {
    /// The medians of one contender.
    fn new(
        scenario: &str,
        contender: &Contender,
        samples: &[&Sample],
        ratio: Option<(String, f64)>,
        target: Option<Target>,
    ) -> Self {
        let over = |look: &dyn Fn(&Sample) -> f64| median(samples.iter().map(|sample| look(sample)).collect());
        let costs: Option<Vec<&Costs>> = samples.iter().map(|sample| sample.costs()).collect();
        let cost = |look: &dyn Fn(&Costs) -> Option<f64>| {
            Some(median(costs.as_ref()?.iter().map(|costs| look(costs)).collect::<Option<_>>()?))
        };
        let microseconds = |costs: &Costs, seconds: f64| seconds * 1e6 / costs.messages();
        let client = cost(&|costs| Some(microseconds(costs, costs.cpu()?.client)));
        let server = cost(&|costs| Some(microseconds(costs, costs.cpu()?.server)));
        let is_rate = samples.iter().all(|sample| sample.is_rate());
        Self {
            scenario: scenario.to_owned(),
            who: contender.who,
            settings: contender.settings.clone(),
            rate: is_rate.then(|| over(&Sample::middle)),
            p50: (!is_rate).then(|| over(&|sample| sample.quantile(0.5))),
            p99: (!is_rate).then(|| over(&|sample| sample.quantile(0.99))),
            wal_bytes: cost(&|costs| Some(costs.wal_bytes_per_message())),
            commits: cost(&|costs| Some(costs.commits_per_message())),
            cpu: cost(&|costs| costs.cpu().map(|cpu| cpu.client + cpu.server)),
            cpu_each: client.zip(server),
            peak: cost(&|costs| costs.peak()),
            ratio,
            target,
            absent: None,
        }
    }

    fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("scenario".to_owned(), json!(self.scenario));
        object.insert("who".to_owned(), json!(self.who));
        object.insert("settings".to_owned(), Value::Object(self.settings.clone()));
        let figures = [
            ("msgs_per_s", self.rate),
            ("p50_ms", self.p50),
            ("p99_ms", self.p99),
            ("wal_bytes_per_msg", self.wal_bytes),
            ("commits_per_msg", self.commits),
            ("cpu_s", self.cpu),
            ("client_mib", self.peak),
        ];
        for (name, value) in figures {
            if let Some(value) = value {
                object.insert(name.to_owned(), json!(value));
            }
        }
        if let Some(reason) = self.absent {
            object.insert("absent".to_owned(), json!(reason));
        }
        if let Some((to, ratio)) = &self.ratio {
            object.insert("ratio_to".to_owned(), json!(to));
            object.insert("ratio".to_owned(), json!(ratio));
        }
        Value::Object(object)
    }

    /// Its name and its settings.
    fn title(&self) -> String {
        format!("{} {}", self.who, self.listed_settings())
    }

    fn listed_settings(&self) -> String {
        self.settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    fn cells(&self) -> [String; 13] {
        let number =
            |value: Option<f64>, digits: usize| value.map_or(String::new(), |value| format!("{value:.digits$}"));
        // What is counted in ones, such as the statements of an idle process, says little in whole ones.
        let rate_digits = if self.rate.is_some_and(|rate| rate < 10.0) { 2 } else { 0 };
        [
            self.scenario.clone(),
            self.who.to_owned(),
            self.listed_settings(),
            number(self.rate, rate_digits),
            number(self.p50, 2),
            number(self.p99, 2),
            number(self.wal_bytes, 0),
            number(self.commits, 3),
            self.cpu_each.map_or(String::new(), |(client, server)| format!("{client:.0}+{server:.0}")),
            number(self.peak, 0),
            number(self.ratio.as_ref().map(|(_, ratio)| *ratio), 2),
            self.target.map_or(String::new(), |target| self.goal(target)),
            match (&self.ratio, self.absent) {
                (Some((to, _)), _) => to.clone(),
                (None, Some(reason)) => format!("absent: {reason}"),
                (None, None) => String::new(),
            },
        ]
    }

    /// What is hoped for, and whether it came.
    fn goal(&self, target: Target) -> String {
        let ratio = self.ratio.as_ref().map(|(_, ratio)| *ratio);
        let (goal, is_met) = match target {
            Target::AtLeast(least) => (format!("≥ {least:.2}"), ratio.map(|ratio| ratio >= least)),
            Target::AtMost(most) | Target::WalAtMost(most) => {
                (format!("≤ {most:.2}"), ratio.map(|ratio| ratio <= most))
            }
            Target::P50(ms) => (format!("≤ {ms} ms"), self.p50.map(|p50| p50 <= ms)),
            Target::Rate(most) => (format!("≤ {most}/s"), self.rate.map(|rate| rate <= most)),
        };
        format!("{goal} {}", if is_met == Some(true) { "met" } else { "missed" })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
