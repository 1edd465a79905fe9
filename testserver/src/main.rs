//! Starts a private server, says where it is, and runs until its input ends (Ctrl-D), or until it is killed.
//!
//! `cargo run -p pgqueue-testserver`

use std::io::{self, Write};

use pgqueue_testserver::Server;
use tokio::io::AsyncReadExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::start().await?;
    let pid = server.pid().await?.map_or_else(String::new, |pid| pid.to_string());
    writeln!(io::stdout(), "url {}\npid {pid}\nfolder {}", server.url("postgres"), server.folder().display())?;
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}
