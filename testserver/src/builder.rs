use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Error, Result, Server,
    account::Account,
    blocking::blocking,
    installation::Installation,
    port::free_port,
    template::{Template, copy},
    watchdog::{self, Watchdog},
};

/// How many ports are tried when somebody else takes the free one first.
const PORT_TRIES: usize = 5;

/// Who may connect: everybody on this machine by TCP, standbys too, and whoever can enter the server's folder by its socket.
const TRUST: &str = "local all all trust\nhost all,replication all 127.0.0.1/32 trust\n";

/// How to start a [`Server`].
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until it starts"]
pub struct ServerBuilder {
    /// What goes to postgresql.conf, in order; the last of a name wins.
    settings: Vec<(String, String)>,
    /// The major version, if it matters.
    version: Option<u16>,
    /// The folder of the binaries, if it is known.
    binaries: Option<PathBuf>,
    /// The data that it begins with, of a server that is stopped, whose standby it becomes.
    copied: Option<PathBuf>,
}

impl ServerBuilder {
    /// Sets a parameter of postgresql.conf. Default: PostgreSQL's defaults, with 500 connections.
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Asks for a major version, such as 17. Default: `PGQUEUE_POSTGRES_VERSION`, or any from 14.
    pub fn with_version(mut self, major: Option<u16>) -> Self {
        self.version = major;
        self
    }

    /// Takes `postgres` and `initdb` from this folder only. Default: the order that the [crate](crate) documents.
    pub fn with_binaries(mut self, folder: impl Into<PathBuf>) -> Self {
        self.binaries = Some(folder.into());
        self
    }

    /// Makes it a standby of the server at `port`, which is stopped now and has its data in `data`.
    pub(crate) fn standby_of(self, port: u16, data: PathBuf) -> Self {
        let primary = format!("host=127.0.0.1 port={port} user=postgres");
        Self { copied: Some(data), ..self.with_setting("primary_conninfo", primary) }
    }

    /// Starts the server and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// [`Error::NoPostgres`] without a usable PostgreSQL; [`Error::Server`] with the end of its log if it does not start,
    /// for example because of a setting.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind: a server that is being started is removed as soon as it has.
    pub async fn start(self) -> Result<Server> {
        blocking(move || self.start_blocking()).await
    }

    fn start_blocking(self) -> Result<Server> {
        let account = Account::choose()?;
        let installation = Installation::find(self.version, self.binaries, account)?;
        let folder = account.private_folder("pgqueue-server-")?;
        let path = folder.path().to_owned();
        let mut watchdog = Watchdog::start(watchdog::OF_SERVER, &path, &installation.bin, account)?;
        drop(folder.keep()); // the watchdog removes it

        let data = path.join("data");
        let template = Template::of(&installation, account);
        if let Some(copied) = &self.copied {
            let signal = data.join("standby.signal");
            copy(copied, &data, account)
                .and_then(|()| fs::write(&signal, ""))
                .and_then(|()| account.give(&signal))
                .map_err(Error::io(format!("copy the cluster {} to {}", copied.display(), data.display())))?;
        } else if !template.copy_to(&data, account)? {
            watchdog.init()?;
            template.save(&data);
        }
        configure(&path, &data, &self.settings)?;

        let mut tries = 1..=PORT_TRIES;
        loop {
            let port = free_port()?;
            match watchdog.start_server(port) {
                Ok(pid) => return Ok(Server::new(port, installation.major, path, pid, watchdog)),
                Err(Error::Server { log, .. }) if log.contains("could not bind") && tries.next().is_some() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Writes who may connect, and the settings.
fn configure(folder: &Path, data: &Path, settings: &[(String, String)]) -> Result<()> {
    let socket = folder.to_string_lossy();
    let ours = [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", &socket),
        ("max_connections", "500"),
        // Files of the cluster, so that a killed server leaves none elsewhere.
        ("dynamic_shared_memory_type", "mmap"),
    ];
    let all = ours.into_iter().chain(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let lines: String = all.map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''"))).collect();
    let file = data.join("postgresql.conf");
    fs::read_to_string(&file)
        .and_then(|defaults| fs::write(&file, format!("{defaults}\n{lines}")))
        .and_then(|()| fs::write(data.join("pg_hba.conf"), TRUST))
        .map_err(Error::io(format!("write the settings in {}", data.display())))
}
