//! [`HealthReport`]: how the subscriptions of a store stand, seen from one process.

use std::fmt;

use crate::Finding;

/// What [`Registry::health`](crate::Registry::health) found.
///
/// Its `Display` output is `healthy`, or one line a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive] // so that fields can be added
pub struct HealthReport {
    /// What is amiss, by the subscription's name, and last what concerns all of them.
    pub findings: Vec<Finding>,
}

/// Whether anything is amiss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // it may come to be graded
pub enum HealthStatus {
    /// Nothing was found.
    Healthy,
    /// Something was found.
    Degraded,
}

impl HealthReport {
    /// Returns whether anything is amiss.
    #[must_use]
    pub fn status(&self) -> HealthStatus {
        if self.findings.is_empty() { HealthStatus::Healthy } else { HealthStatus::Degraded }
    }
}

impl fmt::Display for HealthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.findings.split_first() else { return self.status().fmt(f) };
        first.fmt(f)?;
        others.iter().try_for_each(|finding| write!(f, "\n{finding}"))
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_line_for_each_finding_or_says_that_all_is_well() {
        assert_eq!(HealthReport::default().to_string(), "healthy");
        let stale = |name: &str| Finding::Stale { subscription: name.into() };
        let report = HealthReport { findings: vec![stale("a"), stale("b")] };
        assert_eq!(report.status(), HealthStatus::Degraded);
        assert_eq!(report.to_string().lines().count(), 2);
    }
}
