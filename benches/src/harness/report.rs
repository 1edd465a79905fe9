//! [`Report`]: the medians, as a table or as JSON.

use std::io::Write;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{Contender, Sample, Target};

pub(crate) struct Report {
    json: bool,
    lines: Vec<Line>,
}

struct Line {
    scenario: String,
    who: &'static str,
    settings: Map<String, Value>,
    rate: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
    ratio: Option<(String, f64)>,
    target: Option<Target>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, lines: Vec::new() }
    }

    /// Takes in the samples of all rounds, by round and contender. A ratio is the median of those of each round.
    pub(crate) fn add(&mut self, scenario: &str, contenders: &[Contender], rounds: &[Vec<Sample>]) -> Result<()> {
        for (at, contender) in contenders.iter().enumerate() {
            let over = |look: &dyn Fn(&[Sample]) -> f64| median(rounds.iter().map(|samples| look(samples)).collect());
            let is_rate = rounds.iter().all(|samples| matches!(samples[at], Sample::Rate(_)));
            // A line for each comparison, or one without any.
            let alone = contender.against.is_empty().then_some((None, contender.target));
            let comparisons = contender.against.iter().map(|(other, target)| (Some(*other), *target)).chain(alone);
            for (other, target) in comparisons {
                let ratio = other.map(|other| {
                    let ratio = over(&|samples| samples[at].middle() / samples[other].middle());
                    (contenders[other].title(), ratio)
                });
                let line = Line {
                    scenario: scenario.to_owned(),
                    who: contender.who,
                    settings: contender.settings.clone(),
                    rate: is_rate.then(|| over(&|samples| samples[at].middle())),
                    p50: (!is_rate).then(|| over(&|samples| samples[at].quantile(0.5))),
                    p99: (!is_rate).then(|| over(&|samples| samples[at].quantile(0.99))),
                    ratio,
                    target,
                };
                if self.json {
                    writeln!(std::io::stdout(), "{}", line.json())?;
                }
                self.lines.push(line);
            }
        }
        Ok(())
    }

    /// Prints the table, unless every line went out as JSON already.
    pub(crate) fn print(&self) -> Result<()> {
        if self.json {
            return Ok(());
        }
        let heads = ["scenario", "who", "settings", "msgs/s", "p50 ms", "p99 ms", "ratio", "target", "to"];
        let mut rows = vec![heads.map(str::to_owned)];
        rows.extend(self.lines.iter().map(Line::cells));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        let mut out = std::io::stdout().lock();
        for row in &rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
                3..=6 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            });
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

impl Line {
    fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("scenario".to_owned(), json!(self.scenario));
        object.insert("who".to_owned(), json!(self.who));
        object.insert("settings".to_owned(), Value::Object(self.settings.clone()));
        for (name, value) in [("msgs_per_s", self.rate), ("p50_ms", self.p50), ("p99_ms", self.p99)] {
            if let Some(value) = value {
                object.insert(name.to_owned(), json!(value));
            }
        }
        if let Some((to, ratio)) = &self.ratio {
            object.insert("ratio_to".to_owned(), json!(to));
            object.insert("ratio".to_owned(), json!(ratio));
        }
        Value::Object(object)
    }

    fn cells(&self) -> [String; 9] {
        let settings =
            self.settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
        let number =
            |value: Option<f64>, digits: usize| value.map_or(String::new(), |value| format!("{value:.digits$}"));
        let target = match self.target {
            Some(Target::AtLeast(ratio)) => format!("≥ {ratio:.2} {}", met(self.ratio.as_ref().map(|r| r.1 >= ratio))),
            Some(Target::AtMost(ratio)) => format!("≤ {ratio:.2} {}", met(self.ratio.as_ref().map(|r| r.1 <= ratio))),
            Some(Target::P50(ms)) => format!("≤ {ms} ms {}", met(self.p50.map(|p50| p50 <= ms))),
            None => String::new(),
        };
        [
            self.scenario.clone(),
            self.who.to_owned(),
            settings,
            number(self.rate, 0),
            number(self.p50, 2),
            number(self.p99, 2),
            number(self.ratio.as_ref().map(|(_, ratio)| *ratio), 2),
            target,
            self.ratio.as_ref().map_or(String::new(), |(to, _)| to.clone()),
        ]
    }
}

fn met(is_met: Option<bool>) -> &'static str {
    if is_met == Some(true) { "met" } else { "missed" }
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
