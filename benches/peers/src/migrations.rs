//! Running the SQL that a peer ships.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use pgqueue_bench::Measurement;

/// Runs what a folder has for going up, in the order of the names: files `*.up.sql`, or a file `up.sql` in each folder.
pub(crate) async fn migrate(m: &Measurement, folder: &str) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {folder}"))?;
    let mut entries = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    entries.sort();
    for entry in entries {
        let file = if entry.is_dir() { entry.join("up.sql") } else { entry };
        if is_up(&file) {
            let sql = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            m.sql(&sql).await?;
        }
    }
    Ok(())
}

fn is_up(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == "up.sql" || name.to_string_lossy().ends_with(".up.sql"))
}
