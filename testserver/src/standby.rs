//! What a standby leaves behind that is gone for good: a replication slot that holds vacuum's horizon.

use std::{
    io::{self, BufReader, ErrorKind},
    net::TcpStream,
    time::Duration,
};

use crate::{
    Error, Result, Server,
    blocking::blocking,
    port::local,
    wire::{self, invalid, receive, send},
};

/// How often, and how many times, the slot is looked at until it has heard what the standby said.
const GLANCE: Duration = Duration::from_millis(20);
const GLANCES: usize = 500;

impl Server {
    /// Makes a physical replication slot that holds all that is visible now, as of a standby with `hot_standby_feedback` that was
    /// switched off. Drop it with `pg_drop_replication_slot`.
    ///
    /// # Errors
    ///
    /// As [`sql`](Self::sql), and [`Error::Io`] if the server does not take the standby's word.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the slot.
    pub async fn leave_slot(&self, name: &str) -> Result<()> {
        let (port, name) = (self.port(), name.to_owned());
        blocking(move || leave_slot(port, &name)).await
    }
}

fn leave_slot(port: u16, name: &str) -> Result<()> {
    let make = format!(
        "select pg_create_physical_replication_slot('{name}', true) is null, pg_snapshot_xmin(pg_current_snapshot()), pg_current_wal_flush_lsn()"
    );
    let made = wire::query(port, "postgres", &make)?;
    let columns: Vec<&str> = made.split('\t').collect();
    let failed = || Error::io(format!("leave the replication slot {name}"));
    let [_, xmin, position] = columns.as_slice() else { return Err(failed()(invalid("such an answer"))) };
    let xmin: u64 = xmin.parse().map_err(|_| failed()(invalid("such a transaction id")))?;
    let mut standby = stream(port, name, position).map_err(failed())?;
    send(&mut standby, Some(b'd'), &[&feedback(xmin)]).map_err(failed())?;
    let heard = format!("select count(*) from pg_replication_slots where slot_name = '{name}' and xmin is not null");
    for _ in 0..GLANCES {
        if wire::query(port, "postgres", &heard)? == "1" {
            return Ok(());
        }
        std::thread::sleep(GLANCE);
    }
    Err(failed()(io::Error::from(ErrorKind::TimedOut)))
}

/// Connects as a standby, and begins to be sent what is written from `position` on.
fn stream(port: u16, slot: &str, position: &str) -> io::Result<BufReader<TcpStream>> {
    let mut connection = BufReader::new(TcpStream::connect(local(port))?);
    let startup = "user\0postgres\0database\0postgres\0replication\0database\0application_name\0standby\0\0";
    send(&mut connection, None, &[&(3_i32 << 16).to_be_bytes(), startup.as_bytes()])?;
    wait_for(&mut connection, b'Z')?;
    let start = format!("START_REPLICATION SLOT {slot} PHYSICAL {position}\0");
    send(&mut connection, Some(b'Q'), &[start.as_bytes()])?;
    wait_for(&mut connection, b'W')?;
    Ok(connection)
}

fn wait_for(connection: &mut BufReader<TcpStream>, wanted: u8) -> io::Result<()> {
    loop {
        match receive(connection)? {
            (kind, _) if kind == wanted => return Ok(()),
            (b'E', body) => return Err(io::Error::other(String::from_utf8_lossy(&body).into_owned())),
            _ => {}
        }
    }
}

/// Hot standby feedback: when it was said, the oldest transaction that is needed, of which epoch, and none of the catalogs.
fn feedback(xmin: u64) -> Vec<u8> {
    let (epoch, xmin) = (xmin >> 32, xmin & u64::from(u32::MAX));
    let mut said = vec![b'h'];
    said.extend(0_u64.to_be_bytes());
    for number in [xmin, epoch, 0, 0] {
        said.extend(&number.to_be_bytes()[4..]);
    }
    said
}
