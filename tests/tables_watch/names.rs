//! Names that do not fit, or need quotes.

use pgqueue_postgres::{Client, PgTables, TableName, TableWatch, Watched};
use pgqueue_testserver::Database;

use crate::{
    both_clients::on_both_clients,
    common::{listen, rings, triggers},
};

on_both_clients!(tables_of_any_name_wake, long_names_that_begin_alike_stay_apart);

async fn tables_of_any_name_wake<C: Client>() {
    let database = Database::create().await.unwrap();
    let tables = PgTables::<C>::connect(&database.url()).await.unwrap();
    let schema = r#"It's "a" schema; -- \ %I"#;
    let names = ["a".repeat(63), "ü".repeat(31), "漢".repeat(21), r#"Jo"bs'; \ $watch$ %s 1"#.into()];
    database.sql(&format!("create schema \"{}\"", schema.replace('"', "\"\""))).await.unwrap();
    for name in names {
        let table = TableName::new(&name).in_schema(schema);
        database.sql(&format!("create table {table} (id int, status text)")).await.unwrap();
        let watch = TableWatch::new(table.clone()).with_condition("new.status = 'pending'");
        assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::Installed, "{name}");
        assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::AlreadyThere, "{name}");
        let mut notices = listen(&tables, &watch).await;
        database.sql(&format!("insert into {table} values (1, 'pending')")).await.unwrap();
        assert_eq!(rings(&database, &mut notices).await, 1, "{name}");
        database.sql(&format!("update {table} set id = 2")).await.unwrap();
        assert_eq!(rings(&database, &mut notices).await, 1, "{name}");
    }
    assert_eq!(triggers(&database).await.len(), 8);
}

async fn long_names_that_begin_alike_stay_apart<C: Client>() {
    let database = Database::create().await.unwrap();
    let tables = PgTables::<C>::connect(&database.url()).await.unwrap();
    let [one, two] = ["1", "2"].map(|end| TableWatch::new(format!("{}{end}", "a".repeat(62))));
    for watch in [&one, &two] {
        database.sql(&format!("create table {} (id int)", watch.table())).await.unwrap();
        assert_eq!(tables.watch_table(watch).await.unwrap(), Watched::Installed);
    }
    let (mut of_one, mut of_two) = (listen(&tables, &one).await, listen(&tables, &two).await);
    database.sql(&format!("insert into {} values (1)", one.table())).await.unwrap();
    assert_eq!(rings(&database, &mut of_one).await, 1);
    assert_eq!(rings(&database, &mut of_two).await, 0);
}
