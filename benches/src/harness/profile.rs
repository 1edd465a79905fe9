//! Where the server's time went, by its own count.

use std::io::Write;

use anyhow::Result;
use pgqueue_testserver::Server;

/// Lets the server count. It takes a few percent.
pub(super) async fn start(server: &Server) -> Result<()> {
    for statement in [
        "alter system set track_functions = 'all'",
        "alter system set track_wal_io_timing = on",
        "select pg_reload_conf()",
    ] {
        server.sql("postgres", statement).await?;
    }
    Ok(())
}

/// Forgets what was counted before.
pub(super) async fn reset(server: &Server) -> Result<()> {
    server.sql("postgres", "select pg_stat_reset_shared('wal')").await?;
    Ok(())
}

/// Prints what was counted in a database: the functions' own time, transactions, and flushes of the write-ahead log.
pub(super) async fn print(server: &Server, database: &str, title: &str) -> Result<()> {
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await; // counts come late
    let functions = "
        select string_agg(format('%s calls=%s total=%s ms self=%s ms', rpad(funcname, 18), calls, round(total_time), round(self_time)),
                          e'\\n' order by self_time desc)
        from (select * from pg_stat_user_functions order by self_time desc limit 12) f";
    let transactions =
        format!("select 'transactions=' || xact_commit from pg_stat_database where datname = '{database}'");
    let version: u32 = server.sql(database, "show server_version_num").await?.trim().parse()?;
    let flushes = if version < 180_000 {
        "select wal_sync as flushes, wal_sync_time as flushing from pg_stat_wal"
    } else {
        "select sum(fsyncs) as flushes, sum(fsync_time) as flushing from pg_stat_io where object = 'wal'"
    };
    let wal = format!(
        "select format('wal records=%s full pages=%s bytes=%s flushes=%s flushing=%s ms',
                       wal_records, wal_fpi, wal_bytes, flushes, round(flushing))
         from pg_stat_wal cross join ({flushes}) f"
    );
    let mut err = std::io::stderr();
    writeln!(err, "-- {title}")?;
    for statement in [functions, &transactions, &wal] {
        writeln!(err, "{}", server.sql(database, statement).await?.trim_end())?;
    }
    Ok(())
}
