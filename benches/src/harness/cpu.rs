//! [`Cpu`]: for how long processes have been at work, as Linux counts it.

use std::fs;

/// The processor time of this process and of a server, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    pub(crate) client: f64,
    pub(crate) server: f64,
}

impl Cpu {
    /// What both have used so far; `None` where there is no `/proc` that says so.
    pub(super) fn read(postmaster: u32) -> Option<Self> {
        let client = Usage::of("self")?.own;
        let postmaster = postmaster.to_string();
        let server = Usage::of(&postmaster)?;
        let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let backends = processes.filter_map(|process| Usage::of(&process)).filter(|usage| usage.parent == postmaster);
        // Those that have ended are counted by their parent.
        let server = server.own + server.of_ended_children + backends.map(|usage| usage.own).sum::<u64>();
        let seconds = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Some(Self { client: seconds(client), server: seconds(server) })
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self { client: self.client - before.client, server: self.server - before.server }
    }
}

/// What one process has used, in ticks of the system's clock.
struct Usage {
    parent: String,
    own: u64,
    of_ended_children: u64,
}

impl Usage {
    fn of(process: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    /// Reads a line of `/proc/PID/stat`: the number, the name in parentheses, the state, the parent, and then figures.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |first: usize| -> Option<u64> {
            fields.get(first..first + 2)?.iter().map(|field| field.parse::<u64>().ok()).sum()
        };
        Some(Self { parent: (*fields.get(1)?).to_owned(), own: ticks(11)?, of_ended_children: ticks(13)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        let line = "42 (a) b) S 7 42 42 0 -1 4194560 100 0 0 0 11 5 3 2 20 0 1 0 100 0 0";
        let usage = Usage::parse(line).unwrap();
        assert_eq!((usage.parent.as_str(), usage.own, usage.of_ended_children), ("7", 16, 5));
    }
}
