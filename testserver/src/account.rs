use std::{
    env, fs, io,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{Error, Result};

/// The users that run the server for root, best first.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// Who runs the server: the current user, or, since PostgreSQL refuses root, another one for root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    /// The user and group to change to; nothing for the current user.
    other: Option<(u32, u32)>,
}

impl Account {
    /// The user of this process.
    pub(crate) fn current() -> Self {
        Self { other: None }
    }

    /// Chooses the account for this process.
    pub(crate) fn choose() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::current());
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(Error::io("read /etc/passwd"))?;
        let other = UNPRIVILEGED.iter().find_map(|name| ids_of(name, &passwd)).ok_or(Error::NoAccount)?;
        Ok(Self { other: Some(other) })
    }

    /// The id of the user that runs the server.
    pub(crate) fn uid(self) -> u32 {
        self.other.map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid)
    }

    /// Makes `command` run as this account.
    pub(crate) fn run(self, command: &mut Command) -> &mut Command {
        match self.other {
            Some((uid, gid)) => command.uid(uid).gid(gid),
            None => command,
        }
    }

    /// Gives `path` to this account.
    pub(crate) fn give(self, path: &Path) -> io::Result<()> {
        match self.other {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// Whether this account can enter `folder`. Another account has the permissions of everybody.
    pub(crate) fn reaches(self, folder: &Path) -> bool {
        let open = |folder: &Path| fs::metadata(folder).is_ok_and(|data| data.mode() & 0o001 != 0);
        self.other.is_none() || fs::canonicalize(folder).is_ok_and(|folder| folder.ancestors().all(open))
    }

    /// Makes a folder that belongs to this account, and to nobody else.
    pub(crate) fn private_folder(self, prefix: &str) -> Result<TempDir> {
        let parent = self.temporary_folder();
        let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(&parent);
        let folder = folder.map_err(Error::io(format!("make a folder in {}", parent.display())))?;
        let path = folder.path();
        self.give(path).map_err(Error::io(format!("give {} to the server", path.display())))?;
        Ok(folder)
    }

    /// The folder that clusters are made in: the one that was asked for, or one for temporary files that this account can enter.
    fn temporary_folder(self) -> PathBuf {
        if let Some(folder) = env::var_os("PGQUEUE_POSTGRES_FOLDER") {
            return folder.into();
        }
        let folder = env::temp_dir();
        if self.reaches(&folder) { folder } else { PathBuf::from("/tmp") }
    }
}

/// The user and group ids of `name` in the text of a passwd file.
fn ids_of(name: &str, passwd: &str) -> Option<(u32, u32)> {
    // Some systems write the ids of `nobody` as -2.
    let id = |text: &str| text.parse::<i64>().ok().and_then(|id| u32::try_from(id & 0xffff_ffff).ok());
    passwd.lines().find_map(|line| match line.split(':').collect::<Vec<_>>()[..] {
        [user, _, uid, gid, ..] if user == name => Some((id(uid)?, id(gid)?)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::ids_of;

    #[test]
    fn ids_are_read_from_a_passwd_file() {
        let passwd = "# users\nroot:x:0:0:root:/root:/bin/sh\nnobody:*:-2:-2:Nobody:/:/bin/false\nx\n";
        assert_eq!(ids_of("root", passwd), Some((0, 0)));
        assert_eq!(ids_of("nobody", passwd), Some((u32::MAX - 1, u32::MAX - 1)));
        assert_eq!(ids_of("postgres", passwd), None);
    }
}
