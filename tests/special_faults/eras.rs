//! A database that is dumped and restored on another server, whose transaction ids have nothing to do with those of the first.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use pgqueue_core::{
    CheckpointStore, ConsumeStream, Delivery, ErrorKind, NewMessage, Order, Position, Publisher, PublisherExt,
    Retention, Start, Subscription, Topic,
};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_tests::OUTSIDE_OF_STRETCHES;
use pgqueue_testserver::Server;
use tokio::process::Command;

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{SHORT_LEASE, assert_says, consume, next, number, patiently, publish_number, quiet, try_consume},
    shim::Folder,
};

on_both_clients!(
    copied_queue_goes_on_where_transaction_ids_are_lower,
    copied_queue_goes_on_where_transaction_ids_are_higher,
    dumped_queue_goes_on_on_another_server,
);

const ORDERS: [Order; 4] = [Order::Unordered, Order::ByKey, Order::Total, Order::StableTotal];

/// Those of transactions that come late, or later than others of higher ids, where these decide.
const OUT_OF_LINE: [u64; 3] = [6, 7, 14];

/// How far apart the transaction ids of the two servers are.
const APART: u32 = 5000;

/// A queue as it was left, and what is owed to each of the [`ORDERS`].
struct Left<C: Client> {
    server: Server,
    queue: PgQueue<C>,
    /// What each was handed out and has answered.
    answered: Vec<Vec<u64>>,
    /// A position of each.
    positions: Vec<Position>,
}

/// Draws so many transaction ids.
async fn draw(server: &Server, database: &str) {
    let draw = format!("do $$ begin for i in 1..{APART} loop perform pg_current_xact_id(); commit; end loop; end $$");
    server.sql(database, &draw).await.unwrap();
}

fn of(order: Order) -> Subscription {
    Subscription::new(order.to_string(), "orders").with_order(order).with_lease(SHORT_LEASE)
}

async fn publish<C: Client>(queue: &PgQueue<C>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let message = NewMessage::json(&number).unwrap().with_key("key");
        queue.publish("orders", vec![message]).await.unwrap();
    }
}

async fn leave<C: Backend>(is_old: bool) -> Left<C> {
    let server = Server::start().await.unwrap();
    server.create_database("queue").await.unwrap();
    if is_old {
        draw(&server, "queue").await;
    }
    let queue = PgQueue::<C>::connect(&server.url("queue")).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders").with_retention(Retention::everything())).await.unwrap();
    let mut streams = Vec::new();
    for order in ORDERS {
        streams.push(consume(&queue, of(order)).await);
    }
    publish(&queue, 0..6).await;
    // What comes late: its transaction draws its ids, and others are handed out before it commits.
    let mut late = C::open(&server.url("queue")).await;
    let messages = (6..8).map(|number| NewMessage::json(&number).unwrap().with_key("key")).collect();
    queue.publish_in(&mut late, "orders", messages).await.unwrap();
    publish(&queue, 8..12).await;
    let (mut answered, mut positions, mut held) = (vec![Vec::new(); ORDERS.len()], Vec::new(), Vec::new());
    for (n, stream) in streams.iter_mut().enumerate() {
        let count = if ORDERS[n] == Order::StableTotal { 5 } else { 9 };
        for _ in 0..count {
            let delivery = next(stream).await;
            answered[n].push(number(&delivery));
            if answered[n].len() == 4 {
                positions.push(delivery.message().position().clone());
            }
            delivery.ok().await.unwrap();
        }
        held.push(next(stream).await); // in hand when the server goes
    }
    queue.advance_checkpoint("projection", &positions[3]).await.unwrap();
    // Nobody claims any more; then the late ones are there, and some that are new.
    server.sql("queue", "revoke all on function pgqueue.claim from public").await.unwrap();
    for order in ORDERS {
        queue.expire_leases(&order.to_string()).await.ok();
    }
    drop((held, streams));
    patiently("consumers that leave", queue.consumers_gone()).await;
    C::commit(late).await;
    // One of a call is one of another transaction, as when both publish at the same time.
    let messages = (12..16).map(|number| NewMessage::json(&number).unwrap().with_key("key")).collect();
    queue.publish("orders", messages).await.unwrap();
    let between = "update pgqueue.log set xact = (xact::text::bigint + 1)::text::xid8, stretch_end = id \
                   where convert_from(payload, 'UTF8') = '14'";
    server.sql("queue", between).await.unwrap();
    Left { server, queue, answered, positions }
}

/// Takes what is owed, and checks that it is that, each once, and in order where there is one.
async fn settle_up(stream: &mut ConsumeStream, order: Order, answered: &[u64], upto: u64) -> Vec<Position> {
    let owed: Vec<u64> = (0..upto).filter(|number| !answered.contains(number)).collect();
    let mut came: Vec<Delivery> = Vec::new();
    let mut numbers = Vec::new();
    let mut positions = Vec::new();
    while numbers.len() < owed.len() {
        came.push(next(stream).await);
        let delivery = came.pop().unwrap();
        numbers.push(number(&delivery));
        positions.push(delivery.message().position().clone());
        delivery.ok().await.unwrap();
    }
    if order == Order::StableTotal {
        assert!(positions.is_sorted(), "{positions:?}");
    }
    let late: Vec<u64> = numbers.iter().copied().filter(|number| [6, 7].contains(number)).collect();
    assert!(late.is_sorted(), "{order}: {numbers:?}");
    let others: Vec<u64> = numbers.iter().copied().filter(|number| !OUT_OF_LINE.contains(number)).collect();
    assert!(order == Order::Unordered || others.is_sorted(), "{order}: {numbers:?}");
    numbers.sort_unstable();
    assert_eq!(numbers, owed, "{order}");
    quiet(stream).await;
    positions
}

async fn goes_on<C: Backend>(left: Left<C>, restored: Server, is_foreign: bool) {
    let Left { server, queue: _first, answered, positions } = left;
    drop(server);
    let queue = PgQueue::<C>::connect(&restored.url("queue")).await.unwrap();
    // Before anybody has looked after it, nobody is served wrongly.
    let refused = queue.publish_json("orders", &99).await.unwrap_err();
    assert_says(&refused, ErrorKind::Fatal, &["restored from another server", "call `migrate`"]);
    let mut stream = try_consume(&queue, of(Order::Total)).await.unwrap();
    assert_says(&crate::common::end(&mut stream).await, ErrorKind::Fatal, &["restored from another server", "migrate"]);
    drop(stream);
    queue.migrate().await.unwrap();
    queue.migrate().await.unwrap(); // once more changes nothing
    assert_eq!(restored.sql("queue", OUTSIDE_OF_STRETCHES).await.unwrap(), "0");

    publish(&queue, 16..20).await;
    let mut again = Vec::new();
    for (n, order) in ORDERS.into_iter().enumerate() {
        let mut stream = consume(&queue, of(order)).await;
        again.push(settle_up(&mut stream, order, &answered[n], 20).await.pop().unwrap());
    }
    for (n, order) in ORDERS.into_iter().enumerate() {
        // A position of now can be started from, and misses nothing.
        let start = |name: &str, after: &Position| {
            let subscription = Subscription::new(format!("{name} {order}"), "orders").with_order(order);
            subscription.with_start(Start::After(after.clone()))
        };
        let mut behind = consume(&queue, start("behind", &again[n])).await;
        publish_number(&queue, 20 + n as u64).await;
        until_number(&mut behind, 20 + n as u64).await;
        // One of the first server is refused where it would mean something else.
        let started = try_consume(&queue, start("old", &positions[n])).await;
        if is_foreign {
            assert_says(&started.unwrap_err(), ErrorKind::Invalid, &["the position", "beyond"]);
        } else {
            until_number(&mut started.unwrap(), 20 + n as u64).await;
        }
    }
    // A checkpoint of the first server goes forward.
    let mut stable = consume(&queue, of(Order::StableTotal)).await;
    publish_number(&queue, 50).await;
    loop {
        let delivery = next(&mut stable).await;
        assert!(queue.advance_checkpoint("projection", delivery.message().position()).await.unwrap());
        let number = number(&delivery);
        delivery.ok().await.unwrap();
        if number == 50 {
            break;
        }
    }
    drop(stable);

    // When this server's transactions reach those of the first, nothing of then comes again.
    draw(&restored, "queue").await;
    draw(&restored, "queue").await;
    publish_number(&queue, 51).await;
    for order in ORDERS {
        let mut stream = consume(&queue, of(order)).await;
        let came = until_number(&mut stream, 51).await;
        assert!(came.iter().all(|number| *number >= 20), "{order}: {came:?}");
        quiet(&mut stream).await;
    }
}

/// Takes what comes until that comes.
async fn until_number(stream: &mut ConsumeStream, last: u64) -> Vec<u64> {
    let mut came = Vec::new();
    while came.last() != Some(&last) {
        let delivery = next(stream).await;
        came.push(number(&delivery));
        delivery.ok().await.unwrap();
    }
    came
}

/// A server of another identifier. Those that start as they come are copies of one that was made once, so this says that it is of
/// another installation.
async fn elsewhere() -> Server {
    let plain = Server::start().await.unwrap();
    let folder = Folder::new("elsewhere");
    folder.wrap(&plain, "if [ \"$1\" = --version ]; then echo \"$(\"$program\" --version) elsewhere\"; exit; fi").await;
    let server = Server::builder().with_binaries(&folder.path).start().await.unwrap();
    let identifier = "select system_identifier from pg_control_system()";
    assert_ne!(plain.sql("postgres", identifier).await.unwrap(), server.sql("postgres", identifier).await.unwrap());
    server
}

/// Copies every table of the schema to another server's, over files that both can read.
async fn copy(from: &Server, to: &Server) {
    const TABLES: &str =
        "select c.relname from pg_class c where c.relnamespace = 'pgqueue'::regnamespace and c.relkind = 'r'
        order by c.relname <> 'topic', c.relname";
    const SEQUENCES: &str =
        "select c.relname from pg_class c where c.relnamespace = 'pgqueue'::regnamespace and c.relkind = 'S'";
    let tables = from.sql("queue", TABLES).await.unwrap();
    let tables: Vec<_> = tables.lines().collect();
    let all = tables.iter().map(|table| format!("pgqueue.{table}")).collect::<Vec<_>>().join(", ");
    to.sql("queue", &format!("truncate {all}")).await.unwrap();
    let file = |table: &str| from.folder().join(table).display().to_string();
    for table in &tables {
        from.sql("queue", &format!("copy pgqueue.{table} to '{}'", file(table))).await.unwrap();
    }
    for table in &tables {
        to.sql("queue", &format!("copy pgqueue.{table} from '{}'", file(table))).await.unwrap();
    }
    for sequence in from.sql("queue", SEQUENCES).await.unwrap().lines() {
        let state = from.sql("queue", &format!("select last_value || ', ' || is_called from pgqueue.{sequence}")).await;
        to.sql("queue", &format!("select setval('pgqueue.{sequence}', {})", state.unwrap())).await.unwrap();
    }
}

async fn another<C: Client>(is_old: bool) -> Server {
    let server = elsewhere().await;
    server.create_database("queue").await.unwrap();
    if is_old {
        draw(&server, "queue").await;
    }
    PgQueue::<C>::connect(&server.url("queue")).await.unwrap().migrate().await.unwrap();
    server
}

async fn copied_queue_goes_on_where_transaction_ids_are_lower<C: Backend>() {
    let left = leave::<C>(true).await;
    let restored = another::<C>(false).await;
    copy(&left.server, &restored).await;
    goes_on(left, restored, true).await;
}

async fn copied_queue_goes_on_where_transaction_ids_are_higher<C: Backend>() {
    let left = leave::<C>(false).await;
    let restored = another::<C>(true).await;
    copy(&left.server, &restored).await;
    goes_on(left, restored, false).await;
}

async fn dumped_queue_goes_on_on_another_server<C: Backend>() {
    let left = leave::<C>(true).await;
    let restored = elsewhere().await;
    let binaries =
        PathBuf::from(restored.sql("postgres", "select setting from pg_config where name = 'BINDIR'").await.unwrap());
    let (dump, psql) = (binaries.join("pg_dump"), binaries.join("psql"));
    if !dump.is_file() || !psql.is_file() {
        say_loudly(&format!("pg_dump | psql was NOT tried: {} has no pg_dump and psql", binaries.display()));
        return;
    }
    restored.create_database("queue").await.unwrap();
    let dumped = output(&dump, &[&left.server.url("queue")], Stdio::null()).await;
    let file = std::env::temp_dir().join(format!("pgqueue-dump-{}-{}.sql", std::process::id(), restored.port()));
    std::fs::write(&file, dumped).unwrap();
    let input = std::fs::File::open(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let url = restored.url("queue");
    output(&psql, &["--quiet", "--set=ON_ERROR_STOP=1", "--file=-", &url], input.into()).await;
    goes_on(left, restored, true).await;
}

async fn output(program: &Path, arguments: &[&str], input: Stdio) -> Vec<u8> {
    let output = Command::new(program).args(arguments).stdin(input).kill_on_drop(true).output();
    let output = patiently("a program's end", output).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Says something that is not captured with a test's output.
fn say_loudly(what: &str) {
    let mut shown = std::io::stderr();
    shown.write_all(format!("\n!!! {what} !!!\n").as_bytes()).unwrap();
}
