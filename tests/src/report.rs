//! [`Report`]: what came of a scenario, and [`table`]: of many.

use std::{fmt, fs, path::Path, time::Duration};

use anyhow::{Context, Result};

use crate::{
    audit::Audit,
    part::Backing,
    recovery::{Recovery, percentile},
};

/// Between these lines of a file stands the table.
const BEGIN: &str = "<!-- chaos: begin -->";
const END: &str = "<!-- chaos: end -->";

/// What came of a scenario.
#[derive(Debug)]
pub struct Report {
    pub(crate) scenario: &'static str,
    pub(crate) backing: Backing,
    pub(crate) committed: usize,
    pub(crate) faults: usize,
    pub(crate) audit: Audit,
    pub(crate) recovery: Recovery,
    /// What else was not as it should be.
    pub(crate) failures: Vec<String>,
}

impl Report {
    /// All that was not as promised.
    #[must_use]
    pub fn breaches(&self) -> Vec<String> {
        self.audit.breaches().chain(self.failures.iter().cloned()).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, backing, committed, faults, audit, recovery, .. } = self;
        writeln!(f, "{scenario} ({backing}): {committed} messages committed, {faults} faults")?;
        writeln!(
            f,
            "  lost {}, out of order {}, zombies accepted {} (refused {}), duplicates {} (unexplained {})",
            audit.lost.len(),
            audit.disorder.len(),
            audit.zombies.len(),
            audit.refused,
            audit.duplicates,
            audit.doubled.len()
        )?;
        let (flow, again) = (Times(&recovery.flow), Times(&recovery.again));
        write!(f, "  deliveries flow again after {flow}; what was in hand comes again after {again} (p50 / p99)")?;
        if !recovery.released.is_empty() {
            write!(f, "\n  stopped consumers released what they held after {:?}", recovery.released)?;
        }
        let breaches = self.breaches();
        breaches.iter().take(20).try_for_each(|breach| write!(f, "\n  BROKEN: {breach}"))?;
        if breaches.len() > 20 {
            write!(f, "\n  and {} more", breaches.len() - 20)?;
        }
        Ok(())
    }
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TokioPostgres => "tokio-postgres",
            Self::Sqlx => "sqlx",
        })
    }
}

/// The median and the 99th percentile.
struct Times<'a>(&'a [Duration]);

impl fmt::Display for Times<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |time: Duration| match time.as_secs_f64() {
            seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1000.0),
            seconds => format!("{seconds:.1} s"),
        };
        match (percentile(self.0, 50), percentile(self.0, 99)) {
            (Some(p50), Some(p99)) => write!(f, "{} / {}", text(p50), text(p99)),
            _ => f.write_str("–"),
        }
    }
}

/// The reports as a table in Markdown.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let mut lines = vec![
        "| scenario | client | messages | faults | lost | out of order | zombies accepted / refused | duplicates | of those \
         unexplained | flows again p50 / p99 | in hand comes again p50 / p99 |"
            .to_owned(),
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|".to_owned(),
    ];
    for Report { scenario, backing, committed, faults, audit, recovery, .. } in reports {
        let (lost, disorder, zombies) = (audit.lost.len(), audit.disorder.len(), audit.zombies.len());
        let (refused, duplicates, doubled) = (audit.refused, audit.duplicates, audit.doubled.len());
        let (flow, again) = (Times(&recovery.flow), Times(&recovery.again));
        lines.push(format!(
            "| `{scenario}` | {backing} | {committed} | {faults} | {lost} | {disorder} | {zombies} / {refused} | {duplicates} | \
             {doubled} | {flow} | {again} |"
        ));
    }
    let released = reports.iter().flat_map(|report| &report.recovery.released);
    if let Some(longest) = released.max() {
        lines.push(format!(
            "\nA consumer that was told to stop released 1,000 messages after {longest:.1?} at the latest."
        ));
    }
    lines.join("\n") + "\n"
}

/// Puts the table between its two markers in a file.
///
/// # Errors
/// If the file cannot be read or written, or has no such markers.
pub fn publish_table(table: &str, file: &Path) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.with_context(|| format!("{} has no lines {BEGIN} and {END}", file.display()))?;
    fs::write(file, format!("{before}{BEGIN}\n{table}{END}{after}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_stands_between_its_markers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("README.md");
        fs::write(&file, format!("before\n{BEGIN}\nold\n{END}\nafter\n")).unwrap();
        publish_table(&table(&[]), &file).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(&format!("before\n{BEGIN}\n| scenario |")), "{text}");
        assert!(text.ends_with(&format!("|\n{END}\nafter\n")) && !text.contains("old"), "{text}");

        fs::write(&file, "nothing").unwrap();
        assert!(publish_table("", &file).unwrap_err().to_string().contains("has no lines"));
    }
}
