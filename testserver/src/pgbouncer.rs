use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    Error, Result,
    account::Account,
    blocking::blocking,
    port::free_port,
    server::url,
    watchdog::{self, Watchdog},
    wire,
};

/// How many ports are tried when somebody else takes the free one first.
const PORT_TRIES: usize = 5;

/// Where a system keeps it, besides `PATH`.
const PLACES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"];

/// From this version on it knows prepared statements, and is told not to.
const PREPARES: (u32, u32) = (1, 21);

/// A private PgBouncer in transaction mode, in front of a [`Server`](crate::Server).
///
/// It is as hard on its clients as such a pooler may be: each transaction of a client gets the server's next session in
/// turn, there are few of them for each database, and prepared statements are not known. The user is `postgres`, who needs
/// no password; the start-up parameters `options` and `extra_float_digits` are ignored.
///
/// Dropping it ends it at once and removes its folder, beside this process. When the process ends without dropping it, the
/// same happens.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    folder: PathBuf,
    /// Locked where blocking is allowed only.
    watchdog: Arc<Mutex<Watchdog>>,
}

impl PgBouncer {
    /// How many sessions it opens at the server for each database; further transactions wait.
    pub const SESSIONS: usize = 8;

    /// Starts one in front of the server at `server_port` of this machine, and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// [`Error::NoPgBouncer`] without a usable one; [`Error::Server`] with the end of its log if it does not start.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn start(server_port: u16) -> Result<Self> {
        blocking(move || Self::start_blocking(server_port)).await
    }

    fn start_blocking(server_port: u16) -> Result<Self> {
        let account = Account::choose()?;
        let program = find(account)?;
        let prepares = version(&program).is_some_and(|version| version >= PREPARES);
        let folder = account.private_folder("pgqueue-pgbouncer-")?;
        let path = folder.path().to_owned();
        let mut watchdog = Watchdog::start(watchdog::OF_POOLER, &path, &program, account)?;
        drop(folder.keep()); // the watchdog removes it

        let mut tries = 1..=PORT_TRIES;
        loop {
            let port = free_port()?;
            configure(&path, port, server_port, prepares)?;
            match watchdog.start_server(port) {
                Ok(_) => return Ok(Self { port, folder: path, watchdog: Arc::new(Mutex::new(watchdog)) }),
                Err(Error::Server { log, .. }) if log.contains("listen") && tries.next().is_some() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The port of 127.0.0.1 that it listens on, for as long as it lives.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its settings and its log (`log`).
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The address of a database of the server, through it, for the superuser `postgres`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        url(self.port, database)
    }

    /// Runs statements in a database through it; see [`Server::sql`](crate::Server::sql).
    ///
    /// # Errors
    ///
    /// As [`Server::sql`](crate::Server::sql).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not interrupt the statements.
    pub async fn sql(&self, database: &str, text: &str) -> Result<String> {
        let (port, database, text) = (self.port, database.to_owned(), text.to_owned());
        blocking(move || wire::query(port, &database, &text)).await
    }

    /// Kills it, as a crash does, and starts it again on the same port: its clients lose their connections, and the server
    /// ends what they had in progress. Waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// With the end of its log if it does not start within a minute.
    pub async fn crash(&self) -> Result<()> {
        let (port, watchdog) = (self.port, Arc::clone(&self.watchdog));
        blocking(move || {
            let mut watchdog = watchdog.lock().unwrap_or_else(PoisonError::into_inner);
            watchdog.kill_server()?;
            watchdog.start_server(port).map(drop)
        })
        .await
    }
}

/// Finds the program that `account` can run.
fn find(account: Account) -> Result<PathBuf> {
    let named = env::var_os("PGQUEUE_PGBOUNCER").filter(|program| !program.is_empty()).map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates = || env::split_paths(&path).chain(PLACES.map(PathBuf::from)).map(|folder| folder.join("pgbouncer"));
    let mut looked_in = Vec::new();
    for program in named.clone().map_or_else(|| candidates().collect(), |program| vec![program]) {
        if !program.is_file() {
            continue;
        }
        if program.parent().is_some_and(|folder| account.reaches(folder)) {
            return Ok(program);
        }
        looked_in.push(format!("{} (closed to the user that runs it for root)", program.display()));
    }
    if looked_in.is_empty() {
        looked_in
            .push(named.map_or_else(|| format!("PATH, {}", PLACES.join(", ")), |named| named.display().to_string()));
    }
    Err(Error::NoPgBouncer { looked_in })
}

/// The first two numbers of what `pgbouncer --version` says.
fn version(program: &Path) -> Option<(u32, u32)> {
    let said = Command::new(program).arg("--version").output().ok()?;
    numbers_of(&String::from_utf8_lossy(&said.stdout))
}

fn numbers_of(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.strip_prefix("PgBouncer ")?.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Writes the settings.
fn configure(folder: &Path, port: u16, server_port: u16, prepares: bool) -> Result<()> {
    let users = folder.join("users");
    let unprepared = if prepares { "max_prepared_statements = 0\n" } else { "" };
    let settings = format!(
        "[databases]\n\
         * = host=127.0.0.1 port={server_port}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = trust\n\
         auth_file = {}\n\
         pool_mode = transaction\n\
         default_pool_size = {}\n\
         server_round_robin = 1\n\
         server_idle_timeout = 2\n\
         max_client_conn = 2000\n\
         ignore_startup_parameters = extra_float_digits, options\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         {unprepared}",
        users.display(),
        PgBouncer::SESSIONS,
    );
    fs::write(folder.join("pgbouncer.ini"), settings)
        .and_then(|()| fs::write(users, "\"postgres\" \"\"\n"))
        .map_err(Error::io(format!("write the settings in {}", folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(numbers_of("PgBouncer 1.18.0\nlibevent 2.1.12-stable\n"), Some((1, 18)));
        assert_eq!(numbers_of("PgBouncer 1.25.1\n"), Some((1, 25)));
        assert_eq!(numbers_of("pgcat 1.2"), None);
    }
}
