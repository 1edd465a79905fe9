//! The program `graceful_stop`: one signal drains, a second one cancels, and nothing is lost.
#![cfg(unix)]

mod program;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr},
};

use crate::program::{example, send, soon, summary};

/// How many handlers it runs at a time.
const CONCURRENCY: usize = 4;

/// The program while it runs.
struct Running {
    child: Child,
    stderr: Lines<BufReader<ChildStderr>>,
    /// What it has said so far.
    said: Vec<String>,
}

impl Running {
    fn start(args: &str) -> Self {
        let mut child = example("graceful_stop", args.split(' ')).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stderr, said: Vec::new() }
    }

    /// Waits until it says `what`.
    async fn says(&mut self, what: &str) {
        soon(what, async {
            while !self.said.last().is_some_and(|line| line.contains(what)) {
                let line = self.stderr.next_line().await.unwrap();
                self.said.push(line.unwrap_or_else(|| panic!("it ended without {what:?}: {:?}", self.said)));
            }
        })
        .await;
    }

    /// Waits for its end; returns its summary and what it said.
    async fn ends(mut self) -> (Value, Vec<String>) {
        soon("it ends", async {
            while let Some(line) = self.stderr.next_line().await.unwrap() {
                self.said.push(line);
            }
            let output = self.child.wait_with_output().await.unwrap();
            assert!(output.status.success(), "{:?}: {:?}", output.status, self.said);
            (summary(&output.stdout), self.said)
        })
        .await
    }
}

fn count(said: &[String], what: &str) -> usize {
    said.iter().filter(|line| line.ends_with(what)).count()
}

#[tokio::test]
async fn a_signal_lets_the_handlers_in_flight_finish_and_starts_no_more() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut program = Running::start("--messages 1000 --handle-ms 300");
        program.says("job 5 started").await;
        send(&program.child, signal);
        program.says("stopping").await;

        let started = count(&program.said, "started");
        let (summary, said) = program.ends().await;
        assert_eq!(count(&said, "started"), started, "a job started after the signal: {said:?}");
        assert_eq!(count(&said, "finished"), started, "a job in flight did not finish: {said:?}");
        let expected = json!({"published": 1000, "acked": started, "pending": 1000 - started, "ended": "drained"});
        assert_eq!(summary, expected);
    }
}

#[tokio::test]
async fn a_second_signal_cancels_the_handlers_in_flight() {
    for signals in [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::TERM]] {
        // No patience is enough for a handler.
        let mut program = Running::start("--messages 10 --handle-ms 3600000");
        program.says("job 4 started").await;
        send(&program.child, signals[0]);
        program.says("stopping").await;
        send(&program.child, signals[1]);

        let (summary, said) = program.ends().await;
        assert_eq!((count(&said, "started"), count(&said, "finished")), (CONCURRENCY, 0), "{said:?}");
        assert_eq!(summary, json!({"published": 10, "acked": 0, "pending": 10, "ended": "cancelled"}));
    }
}

#[tokio::test]
async fn without_a_signal_all_jobs_are_done() {
    let (summary, _) = Running::start("--messages 10 --handle-ms 1").ends().await;
    assert_eq!(summary, json!({"published": 10, "acked": 10, "pending": 0, "ended": "done"}));
}
