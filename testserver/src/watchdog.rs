use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{Error, Result, account::Account};

/// The watchdog of a server.
pub(crate) const OF_SERVER: &str = include_str!("watchdog.sh");

/// The watchdog of a pooler, which takes no `init` and no `stop`.
pub(crate) const OF_POOLER: &str = include_str!("pgbouncer.sh");

/// Starts the program in `$1` beside this process rather than below it, so that nobody has to wait for its end.
const DETACH: &str = r#"exec 3<&0; sh -c "$1" pgqueue-watchdog "$2" "$3" <&3 3<&- &"#;

/// How many lines of the server's log an error shows.
const LINES_SHOWN: usize = 20;

/// The shell beside this process that runs the server, and outlives this process just long enough to remove it.
///
/// It does as its standard input says, and when that closes, because this is dropped or because the process ended in
/// whatever way, it ends the server and removes its folder. All methods block.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Where orders go. Its end is the end of the server.
    orders: ChildStdin,
    /// Where answers come from.
    answers: BufReader<ChildStdout>,
    /// The server's folder.
    folder: PathBuf,
}

impl Watchdog {
    /// Starts `program` as a watchdog over `folder`, which belongs to it from now on, with the binaries in `bin`.
    pub(crate) fn start(program: &str, folder: &Path, bin: &Path, account: Account) -> Result<Self> {
        let failed = || Error::io(format!("start the watchdog of {}", folder.display()));
        let log = fs::File::create(folder.join("log")).map_err(failed())?;
        account.give(&folder.join("log")).map_err(failed())?;
        let mut command = Command::new("sh");
        account.run(&mut command).args(["-c", DETACH, "sh", program]).arg(folder).arg(bin);
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        // In a group of its own, it is not hit by what a terminal or a test runner sends to ours.
        command.env("LC_ALL", "C").current_dir(folder).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(failed())?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let status = child.wait().map_err(failed())?;
        match pipes {
            Some((orders, answers)) if status.success() => {
                Ok(Self { orders, answers: BufReader::new(answers), folder: folder.to_owned() })
            }
            _ => Err(failed()(io::Error::other(format!("sh ended with {status}")))),
        }
    }

    /// Makes the cluster.
    pub(crate) fn init(&mut self) -> Result<()> {
        self.order("make the cluster", "init").map(drop)
    }

    /// Starts the server and waits until it accepts connections. Returns the postmaster's process id.
    pub(crate) fn start_server(&mut self, port: u16) -> Result<u32> {
        let doing = "await the start";
        let pid = self.order(doing, &format!("start {port}"))?;
        pid.parse().map_err(|_| self.failed(doing, pid))
    }

    /// Shuts the server down, if it runs, and waits for its end.
    pub(crate) fn stop_server(&mut self) -> Result<()> {
        self.order("await the stop", "stop").map(drop)
    }

    /// Kills all processes of the server, if it runs, and waits for their end.
    pub(crate) fn kill_server(&mut self) -> Result<()> {
        self.order("await the death", "kill").map(drop)
    }

    /// Gives an order and returns the rest of an answer that starts with `ok`.
    fn order(&mut self, doing: &'static str, order: &str) -> Result<String> {
        let mut answer = String::new();
        writeln!(self.orders, "{order}")
            .and_then(|()| self.answers.read_line(&mut answer))
            .map_err(Error::io(format!("{doing} of the server in {}", self.folder.display())))?;
        match answer.trim().strip_prefix("ok") {
            Some(rest) => Ok(rest.trim().to_owned()),
            None if answer.is_empty() => Err(self.failed(doing, "its watchdog is gone".into())),
            None => Err(self.failed(doing, answer.trim().to_owned())),
        }
    }

    fn failed(&self, doing: &'static str, answer: String) -> Error {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
        Error::Server { doing, answer, log }
    }
}
