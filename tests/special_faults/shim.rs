//! [`Shim`]: what stands between a process and the operating system, to shift its clock and to fill its disk.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use pgqueue_testserver::Server;

/// A folder that everybody may read.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/tmp/pgqueue-{name}-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path }
    }

    /// Makes programs that do something before they become a server's own, which are then `$program`.
    pub(crate) async fn wrap(&self, plain: &Server, before: &str) {
        let binaries = plain.sql("postgres", "select setting from pg_config where name = 'BINDIR'").await.unwrap();
        for program in ["postgres", "initdb"] {
            let path = self.path.join(program);
            let script = format!("#!/bin/sh\nprogram='{binaries}/{program}'\n{before}\nexec \"$program\" \"$@\"\n");
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).ok();
    }
}

/// A library that is loaded before all others, and the file that it reads. Linux only, like the way it is loaded.
pub(crate) struct Shim {
    folder: Folder,
    state: fs::File,
}

impl Shim {
    /// Compiles it, into a folder of its own.
    pub(crate) fn new() -> Self {
        let folder = Folder::new("shim");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("special_faults/shim.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([folder.path.join("shim.so"), source])
            .output()
            .expect("`cc`, which Rust needs too");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let path = folder.path.join("state");
        let state = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let shim = Self { folder, state };
        shim.shift(0);
        shim.fill_disk(false);
        shim
    }

    /// Makes the wall clock of all that it is loaded into show so many seconds more.
    pub(crate) fn shift(&self, seconds: i64) {
        self.state.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// While it is full, no file of a database takes another byte.
    pub(crate) fn fill_disk(&self, is_full: bool) {
        self.state.write_all_at(&i64::from(is_full).to_ne_bytes(), 8).unwrap();
    }

    /// What loads it into a process.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        [("LD_PRELOAD", "shim.so"), ("PGQUEUE_SHIM", "state")]
            .map(|(name, file)| (name.to_owned(), self.folder.path.join(file).display().to_string()))
            .into()
    }

    /// Starts a server that it is loaded into.
    pub(crate) async fn server(&self) -> Server {
        let plain = Server::start().await.unwrap();
        let load: String =
            self.environment().iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect();
        self.folder.wrap(&plain, &load).await;
        Server::builder().with_binaries(&self.folder.path).start().await.unwrap()
    }
}
