use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::{Error, Result, account::Account, installation::Installation, installation::workspace};

/// A finished cluster which is copied instead of made again.
///
/// It lives below the workspace's `target`, so tests of all processes share it and `cargo clean` removes it. Processes
/// never see a half-made one: it appears by being renamed, and who comes second drops his own.
#[derive(Debug)]
pub(crate) struct Template {
    folder: PathBuf,
}

impl Template {
    /// The template for clusters of `installation` that belong to `account`.
    pub(crate) fn of(installation: &Installation, account: Account) -> Self {
        let plain = |char: char| if char.is_ascii_alphanumeric() || char == '.' { char } else { '-' };
        let version: String = installation.version.chars().map(plain).collect();
        Self { folder: workspace().join("target/postgres-templates").join(format!("{version}-uid{}", account.uid())) }
    }

    /// Copies the template to `data`, for `account`; `false` if there is none.
    pub(crate) fn copy_to(&self, data: &Path, account: Account) -> Result<bool> {
        if !self.folder.is_dir() {
            return Ok(false);
        }
        copy(&self.folder, data, account).map_err(Error::io(format!(
            "copy the cluster {} to {} (remove the former if it is damaged)",
            self.folder.display(),
            data.display()
        )))?;
        Ok(true)
    }

    /// Makes `data` the template. Without room for one, the next cluster is made again.
    pub(crate) fn save(&self, data: &Path) {
        let Some(parent) = self.folder.parent() else { return };
        let mut unfinished = tempfile::Builder::new();
        let unfinished = unfinished.prefix(".unfinished-");
        let Ok(unfinished) = fs::create_dir_all(parent).and_then(|()| unfinished.tempdir_in(parent)) else { return };
        let copied = unfinished.path().join("data");
        if copy(data, &copied, Account::current()).is_ok() {
            drop(fs::rename(&copied, &self.folder));
        }
    }
}

/// Copies a folder of folders and files, as PostgreSQL wants it: closed to everybody but `account`.
pub(crate) fn copy(from: &Path, to: &Path, account: Account) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    account.give(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&from, &to, account)?;
        } else {
            fs::copy(&from, &to)?;
            account.give(&to)?;
        }
    }
    Ok(())
}
