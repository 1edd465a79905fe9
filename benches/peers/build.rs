//! Finds the SQL that some peers ship and leave to their users to run.

use std::{env, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A crate, where its SQL is in it, and the variable that tells the program.
const SHIPPED: [(&str, &str, &str); 2] =
    [("fang", "postgres_migrations/migrations", "FANG_SQL"), ("sqlxmq", "migrations", "SQLXMQ_SQL")];

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=Cargo.lock");
    let metadata = Command::new(env::var("CARGO")?)
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", &env::var("TARGET")?])
        .output()?;
    ensure!(metadata.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    for (name, folder, variable) in SHIPPED {
        let package = packages.iter().find(|package| package["name"] == name);
        let manifest = package.and_then(|package| package["manifest_path"].as_str());
        let manifest = manifest.with_context(|| format!("{name} is not there"))?;
        let folder = Path::new(manifest).parent().context("a manifest without a folder")?.join(folder);
        ensure!(folder.is_dir(), "{name} has no {}", folder.display());
        println!("cargo::rustc-env={variable}={}", folder.display());
    }
    Ok(())
}
