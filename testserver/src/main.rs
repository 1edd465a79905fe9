//! Starts a private server, says where it is, and runs until its input ends (Ctrl-D), or until it is killed.
//!
//! `cargo run -p pgqueue-testserver`, or with `-- --pgbouncer` for a pooler in transaction mode in front of it.

use std::io::{self, Write};

use pgqueue_testserver::{PgBouncer, Server};
use tokio::io::AsyncReadExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pooled = match std::env::args().skip(1).collect::<Vec<_>>()[..] {
        [] => false,
        [ref flag] if flag == "--pgbouncer" => true,
        _ => return Err("usage: pgqueue-testserver [--pgbouncer]".into()),
    };
    let server = Server::start().await?;
    let pid = server.pid().await?.map_or_else(String::new, |pid| pid.to_string());
    writeln!(io::stdout(), "url {}\npid {pid}\nfolder {}", server.url("postgres"), server.folder().display())?;
    let pooler = if pooled { Some(PgBouncer::start(server.port()).await?) } else { None };
    if let Some(pooler) = &pooler {
        writeln!(
            io::stdout(),
            "pgbouncer url {}\npgbouncer folder {}",
            pooler.url("postgres"),
            pooler.folder().display()
        )?;
    }
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}
