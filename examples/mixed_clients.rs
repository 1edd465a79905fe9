//! How do a row and its message commit together, and an effect and its OK, whichever clients my services have?
//!
//! A shop takes orders through tokio-postgres: the row of an order and its message are one transaction. A warehouse packs
//! them through sqlx, in order within each customer: the row of a parcel and the OK are one transaction. Some orders are
//! withdrawn before they commit, some must wait, and some parcels break. In the end every order has one parcel:
//!
//! ```text
//! cargo run --release --example mixed_clients
//! cargo run --release --example mixed_clients -- --database-url 'postgres://me@localhost/test?sslmode=disable'
//! ```
//!
//! Without a URL it starts a server of its own that goes with the program. What is in a database that it is given stays as
//! it is: topic, subscription and the schema of the tables have a new name in every run (`mixed_clients_…`), and are deleted
//! at the end unless the program is interrupted. The schema `pgqueue` is made if it is missing, and stays.
//!
//! The last line on stdout is a summary as JSON.
#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use std::time::Duration;

use clap::Parser;
use futures::{FutureExt, try_join};
use pgqueue_core::{Ack, Backoff, BoxError, Job, NewMessage, Result, Subscription, Topic, Worker, subscribe};
use pgqueue_examples::{database_url, name_of_this_run};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::{sync::oneshot, time::sleep};
use tokio_postgres::{Client, Config, NoTls};

/// How many orders are placed.
const ORDERS: i64 = 300;

/// How many customers place them in turn.
const CUSTOMERS: i64 = 20;

const TABLES: &str = "
    create table orders (number bigint primary key, customer text not null);
    create table parcel (
      id bigint generated always as identity, number bigint not null, customer text not null, attempt int not null
    );
";

const AUDIT: &str = "
    select
      (select count(*) from orders) as orders,
      (select count(*) from parcel) as parcels,
      (select count(*) from parcel where attempt > 1) as retried,
      (select count(*) from orders where number not in (select number from parcel)) as missing,
      (select count(*) - count(distinct number) from parcel) as repeated,
      (select count(*) from parcel where number not in (select number from orders)) as withdrawn,
      (
        select count(*) filter (where number < latest) from (
          select number, max(number) over (partition by customer order by id) as latest from parcel
        ) parcel
      ) as order_breaks
";

/// Takes orders through one client and packs them through another.
#[derive(Parser)]
struct Options {
    /// The database to work in, over connections without TLS [default: that of a private server]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Order {
    number: i64,
    customer: String,
}

#[derive(Serialize)]
struct Summary {
    orders: i64,
    parcels: i64,
    /// Parcels that took more than one attempt.
    retried: i64,
    /// Orders without a parcel.
    missing: i64,
    /// Parcels beyond the first of an order.
    repeated: i64,
    /// Parcels of orders that were withdrawn.
    withdrawn: i64,
    /// Parcels that were packed after one of a later order of the same customer.
    order_breaks: i64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = database_url(Options::parse().database_url).await?;
    let name = name_of_this_run("mixed_clients");
    let queue = pgqueue_tokio_postgres::PgQueue::connect(&url).await?;
    queue.migrate().await?;
    queue.create_topic(Topic::new(&name)).await?;

    // The shop's own connections, which find its tables in the schema of this run.
    let config = url.parse::<Config>()?.options(format!("-c search_path={name}")).to_owned();
    let (mut client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    let pool = PgPool::connect_with(url.parse::<PgConnectOptions>()?.options([("search_path", &name)])).await?;

    client.batch_execute(&format!("create schema {name}")).await?;
    let done = run(&name, &queue, &mut client, &pool).await;
    let deleted = queue.delete_topic(&name).await;
    let dropped = client.batch_execute(&format!("drop schema {name} cascade")).await;

    println!("{}", serde_json::to_string(&done?)?);
    deleted?;
    Ok(dropped?)
}

async fn run(
    name: &str,
    queue: &pgqueue_tokio_postgres::PgQueue,
    client: &mut Client,
    pool: &PgPool,
) -> anyhow::Result<Summary> {
    client.batch_execute(TABLES).await?;

    let warehouse = pgqueue_sqlx::PgQueue::new(pool.clone()); // over the pool that the service has already
    let backoff = Backoff::fixed(Duration::from_millis(20));
    let by_key = Subscription::new(name, name).with_order(pgqueue_core::Order::ByKey).with_backoff(backoff);
    let stream = subscribe(warehouse.subscription(by_key)).await?;

    let (all_packed, stop) = oneshot::channel();
    let packing = Worker::new(stream.until(stop.map(drop)), |job| pack(job, &warehouse, pool)).run();
    let placing = async {
        for number in 1..=ORDERS {
            let order = Order { number, customer: format!("customer {}", number % CUSTOMERS) };
            place(order, name, queue, client).await?;
        }
        until_idle(queue, name).await?;
        all_packed.send(()).ok();
        anyhow::Ok(())
    };
    try_join!(placing, packing.map(|packed| Ok(packed?)))?;
    audit(client).await
}

/// Takes an order: its row and its message are there together, or neither.
async fn place(
    order: Order,
    topic: &str,
    queue: &pgqueue_tokio_postgres::PgQueue,
    client: &mut Client,
) -> anyhow::Result<()> {
    let mut transaction = client.transaction().await?;
    let row = "insert into orders (number, customer) values ($1, $2)";
    transaction.execute(row, &[&order.number, &order.customer]).await?;
    let message = NewMessage::json(&order)?.with_key(&order.customer);
    queue.publish_in(&mut transaction, topic, vec![message]).await?;
    if order.number % 10 == 9 {
        return Ok(transaction.rollback().await?); // the customer changed their mind
    }
    Ok(transaction.commit().await?)
}

/// Packs a parcel: its row and the OK are there together, or neither, and then the order comes again.
async fn pack(job: Job<Order>, queue: &pgqueue_sqlx::PgQueue, pool: &PgPool) -> Result<Ack, BoxError> {
    let attempt = job.message().attempt();
    if attempt == 1 && job.value.number % 7 == 0 {
        return Ok(Ack::requeue()); // out of boxes
    }
    let (order, delivery) = job.take_delivery()?;
    let mut transaction = pool.begin().await?;
    sqlx::query("insert into parcel (number, customer, attempt) values ($1, $2, $3)")
        .bind(order.number)
        .bind(&order.customer)
        .bind(i32::try_from(attempt)?)
        .execute(&mut *transaction)
        .await?;
    queue.ok_in(delivery, &mut transaction).await?;
    if attempt == 1 && order.number % 5 == 0 {
        return Err("the parcel broke".into()); // the transaction is dropped, which rolls it back
    }
    transaction.commit().await?;
    Ok(Ack::Ok) // counts for nothing, since the delivery is answered
}

/// Waits until a subscription has nothing left to do.
async fn until_idle(queue: &pgqueue_tokio_postgres::PgQueue, subscription: &str) -> Result<()> {
    loop {
        let stats = queue.stats(subscription).await?;
        if stats.waiting + stats.in_flight + stats.retrying == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn audit(client: &Client) -> anyhow::Result<Summary> {
    let row = client.query_one(AUDIT, &[]).await?;
    Ok(Summary {
        orders: row.try_get("orders")?,
        parcels: row.try_get("parcels")?,
        retried: row.try_get("retried")?,
        missing: row.try_get("missing")?,
        repeated: row.try_get("repeated")?,
        withdrawn: row.try_get("withdrawn")?,
        order_breaks: row.try_get("order_breaks")?,
    })
}
