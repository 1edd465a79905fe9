//! Many installers at once, with a writer beside them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pgqueue_postgres::{Client, PgTables, TableWatch, Watched};
use tokio::{
    sync::Barrier,
    time::{Instant, sleep},
};

use crate::{
    both_clients::on_both_clients,
    common::{jobs, patiently},
};

on_both_clients!(installers_at_the_same_moment_do_no_harm);

const INSTALLERS: usize = 4;
const TABLES: usize = 150;
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The pauses of the writer, without which the tables would never be free.
const BREATH: Duration = Duration::from_millis(2);

fn watch(table: usize) -> TableWatch {
    TableWatch::new(format!("jobs_{table}")).with_condition("new.id > 0").with_lock_timeout(LOCK_TIMEOUT)
}

/// 600 installations: all four go for the same table at the same moment, 150 times.
#[expect(clippy::print_stdout, reason = "how long writers waited is worth seeing")]
async fn installers_at_the_same_moment_do_no_harm<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let create = format!(
        "do $$ begin for i in 0..{} loop execute format('create table jobs_%s (id int)', i); end loop; end $$",
        TABLES - 1
    );
    database.sql(&create).await.unwrap();

    let table = Arc::new(AtomicUsize::new(0));
    let writer = tokio::spawn(write::<C>(C::connect(&database.url()).await.unwrap(), Arc::clone(&table)));
    let barrier = Arc::new(Barrier::new(INSTALLERS));
    let mut installers = Vec::new();
    for _ in 0..INSTALLERS {
        let tables = PgTables::<C>::connect(&database.url()).await.unwrap();
        installers.push(tokio::spawn(install(tables, Arc::clone(&barrier), Arc::clone(&table))));
    }
    let (mut installed, mut there, mut polling) = (0, 0, 0);
    for installer in installers {
        for watched in patiently("the installers", installer).await.unwrap() {
            match watched {
                Watched::Installed => installed += 1,
                Watched::AlreadyThere => there += 1,
                Watched::Polling { .. } => polling += 1,
                other => panic!("what is {other:?}?"),
            }
        }
    }
    table.store(TABLES, Ordering::SeqCst);
    let (writes, longest) = patiently("the writer", writer).await.unwrap();
    println!(
        "{installed} installed, {there} already there, {polling} polling; {writes} writes, the longest took {longest:?}"
    );

    assert!(longest < LOCK_TIMEOUT, "a write took {longest:?}");
    assert_eq!(installed + there + polling, INSTALLERS * TABLES);
    assert!(installed > 0);
    for table in 0..TABLES {
        // The writer may have been in the way of all four.
        assert!(tables.ensure_triggers(&watch(table)).await.unwrap().is_healthy(), "jobs_{table}");
    }
    let count = "select count(*), count(distinct tgfoid) from pg_trigger where not tgisinternal";
    assert_eq!(database.sql(count).await.unwrap(), format!("{}\t1", 2 * TABLES));
}

async fn install<C: Client>(tables: PgTables<C>, barrier: Arc<Barrier>, current: Arc<AtomicUsize>) -> Vec<Watched> {
    let mut outcomes = Vec::new();
    for table in 0..TABLES {
        barrier.wait().await;
        current.store(table, Ordering::SeqCst);
        outcomes.push(tables.watch_table(&watch(table)).await.unwrap());
    }
    outcomes
}

/// Writes into the table that is being watched, until there is none. Returns how often, and how long the longest took.
async fn write<C: Client>(client: C, current: Arc<AtomicUsize>) -> (usize, Duration) {
    let (mut writes, mut longest) = (0, Duration::ZERO);
    loop {
        let table = current.load(Ordering::SeqCst);
        if table == TABLES {
            return (writes, longest);
        }
        let since = Instant::now();
        client.query(&format!("insert into jobs_{table} values (1)"), &[]).await.unwrap();
        longest = longest.max(since.elapsed());
        writes += 1;
        sleep(BREATH).await;
    }
}
