//! The program `axum_service`: orders go in by HTTP and come out of the worker, and a signal stops it gracefully.

mod program;

use std::process::Output;

use pgqueue_testserver::Database;
use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStderr},
};

use crate::program::{example, send, soon};

/// The program, and what it says.
struct Service {
    child: Child,
    said: BufReader<ChildStderr>,
    address: String,
}

impl Service {
    async fn start(args: &[&str], url: Option<&str>) -> Self {
        let mut program = example("axum_service", ["--listen", "127.0.0.1:0"].iter().chain(args));
        match url {
            Some(url) => program.env("DATABASE_URL", url),
            None => program.env_remove("DATABASE_URL"),
        };
        let mut child = program.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let listens = soon("it listens", line_with(&mut said, "listening on http://")).await;
        let address = listens.trim().rsplit('/').next().unwrap().to_owned();
        Self { child, said, address }
    }

    /// Asks, and returns the status and the JSON of the answer.
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    async fn says(&mut self, words: &str) -> String {
        soon(words, line_with(&mut self.said, words)).await
    }

    async fn end(self) -> Output {
        soon("it ends", self.child.wait_with_output()).await.unwrap()
    }
}

/// The next line that has these words.
async fn line_with(said: &mut BufReader<ChildStderr>, words: &str) -> String {
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert!(said.read_line(&mut line).await.unwrap() > 0, "it ended and never said {words:?}");
    }
    line
}

const ORDER: &str = r#"{"customer": "Ada", "amount": 5}"#;

#[tokio::test]
async fn what_is_ordered_is_mailed_and_health_says_so() {
    for driver in ["tokio-postgres", "sqlx"] {
        let mut service = Service::start(&["--driver", driver], None).await;
        let (status, answer) = service.ask("POST", "/orders", ORDER).await;
        assert!(status == 202 && answer["id"].is_string(), "{status} {answer}");
        service.says("mailed Ada: 5").await;
        let (status, health) = service.ask("GET", "/health", "").await;
        assert_eq!((status, &health["waiting"], &health["dead"]), (200, &Value::from(0), &Value::from(0)), "{health}");
        let (status, _) = service.ask("POST", "/orders", r#"{"customer": 1}"#).await;
        assert_eq!(status, 422, "what is no order is refused");
        send(&service.child, Signal::TERM);
        service.says("stopped").await;
        assert!(service.end().await.status.success());
    }
}

#[tokio::test]
async fn what_is_being_handled_at_the_signal_is_finished() {
    let mut service = Service::start(&["--handle-ms", "700"], None).await;
    service.ask("POST", "/orders", ORDER).await;
    service.says("mailing Ada").await;
    assert_eq!(service.ask("GET", "/health", "").await.1["in_flight"], 1);
    send(&service.child, Signal::TERM);
    service.says("stopping").await;
    service.says("mailed Ada: 5").await;
    service.says("stopped").await;
    assert!(service.end().await.status.success());
}

#[tokio::test]
async fn what_takes_longer_than_the_deadline_waits_for_the_next_process() {
    let database = Database::create().await.unwrap();
    let url = database.url();
    let mut service = Service::start(&["--handle-ms", "60000", "--deadline", "1"], Some(&url)).await;
    service.ask("POST", "/orders", ORDER).await;
    service.says("mailing Ada").await;
    assert_eq!(service.ask("GET", "/health", "").await.1["in_flight"], 1);
    send(&service.child, Signal::TERM);
    service.says("the deadline is over").await;
    assert!(!service.end().await.status.success());

    let mut next = Service::start(&["--driver", "sqlx"], Some(&url)).await;
    next.says("mailed Ada: 5").await;
    send(&next.child, Signal::INT);
    assert!(next.end().await.status.success());
}
