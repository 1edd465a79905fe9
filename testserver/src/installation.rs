use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Error, Result, account::Account};

/// The oldest major version that is supported.
const OLDEST: u16 = 14;

/// The folders that installations of a known kind live in: a parent, and the start of the name of its children.
const PLACES: [(&str, &str); 4] =
    [("/usr/lib/postgresql", ""), ("/usr", "pgsql-"), ("/opt/homebrew/opt", "postgresql@"), ("/usr/local", "pgsql")];

/// A PostgreSQL on this machine.
#[derive(Debug)]
pub(crate) struct Installation {
    /// The folder of `postgres` and `initdb`.
    pub(crate) bin: PathBuf,
    /// What `postgres --version` says.
    pub(crate) version: String,
    /// The first number in it.
    pub(crate) major: u16,
}

impl Installation {
    /// Finds the first installation of the major version `wanted`, in `only` or else in the order the crate documents.
    pub(crate) fn find(wanted: Option<u16>, only: Option<PathBuf>, account: Account) -> Result<Self> {
        let wanted = match (wanted, env::var("PGQUEUE_POSTGRES_VERSION")) {
            (None, Ok(value)) if !value.is_empty() => Some(value.parse().map_err(|_| Error::BadVersion { value })?),
            _ => wanted,
        };
        let only =
            only.or_else(|| env::var_os("PGQUEUE_POSTGRES_BIN").filter(|bin| !bin.is_empty()).map(PathBuf::from));
        let mut looked_in = Vec::new();
        for bin in only.map_or_else(candidates, |bin| vec![bin]) {
            match Self::at(&bin, wanted, account) {
                Ok(installation) => return Ok(installation),
                Err(reason) => looked_in.push(format!("{} ({reason})", bin.display())),
            }
        }
        if looked_in.is_empty() {
            looked_in.push("the usual folders and PATH".into());
        }
        let wanted = wanted.map_or_else(
            || format!("PostgreSQL of major version {OLDEST} or newer"),
            |major| format!("PostgreSQL of major version {major}"),
        );
        Err(Error::NoPostgres { wanted, looked_in })
    }

    /// The installation in the folder `bin`, or why it is of no use.
    fn at(bin: &Path, wanted: Option<u16>, account: Account) -> Result<Self, String> {
        if let Some(missing) = ["postgres", "initdb"].iter().find(|program| !bin.join(program).is_file()) {
            return Err(format!("has no `{missing}`"));
        }
        if !account.reaches(bin) {
            return Err("closed to the user that runs the server for root".into());
        }
        let output = Command::new(bin.join("postgres")).arg("--version").output().map_err(|error| error.to_string())?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let number = version.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        match number.and_then(|number| numbers(number).first().copied()).map(u16::try_from) {
            Some(Ok(major)) if wanted.map_or(major >= OLDEST, |wanted| major == wanted) => {
                Ok(Self { bin: bin.to_owned(), version, major })
            }
            Some(_) => Err(version),
            None => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

/// The folders that may hold an installation, in the order the crate documents.
fn candidates() -> Vec<PathBuf> {
    let bin = |folder: PathBuf| folder.join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    newest_first(&workspace().join("target/postgres"), "")
        .map(bin)
        .chain(PLACES.into_iter().flat_map(|(parent, prefix)| newest_first(Path::new(parent), prefix)).map(bin))
        .filter(|bin| bin.is_dir())
        .chain(env::split_paths(&path).filter(|folder| folder.join("postgres").is_file()))
        .collect()
}

/// The folder of this workspace.
pub(crate) fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// The visible children of `parent` whose names start with `prefix`, by the numbers in their names.
fn newest_first(parent: &Path, prefix: &str) -> impl Iterator<Item = PathBuf> {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found: Vec<_> = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.retain(|path| name(path).starts_with(prefix) && !name(path).starts_with('.'));
    found.sort_by_key(|path| numbers(&name(path)));
    found.into_iter().rev()
}

/// The numbers in a text, in its order.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|char: char| !char.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_come_first() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["postgresql@9", "postgresql@17.9", "postgresql@17.10", ".postgresql@99", "other@18"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let found: Vec<_> = newest_first(folder.path(), "postgresql@").collect();
        assert_eq!(found, ["postgresql@17.10", "postgresql@17.9", "postgresql@9"].map(|name| folder.path().join(name)));
    }
}
