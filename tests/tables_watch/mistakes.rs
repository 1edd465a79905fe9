//! Mistakes are errors that name the table, and leave nothing behind.

use pgqueue_core::ErrorKind;
use pgqueue_postgres::{Client, TableName, TableWatch};

use crate::{
    both_clients::on_both_clients,
    common::{jobs, triggers},
};

on_both_clients!(what_cannot_be_watched_is_an_error, conditions_that_the_server_refuses_are_errors);

async fn what_cannot_be_watched_is_an_error<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    database
        .sql(
            "create view seen as select * from jobs; create sequence numbers; \
             create materialized view snapshot as select * from jobs; \
             create foreign data wrapper wire; create server away foreign data wrapper wire; \
             create foreign table far (id int) server away",
        )
        .await
        .unwrap();
    let elsewhere = TableName::new("jobs").in_schema("nowhere");
    for name in
        ["orders", "Jobs", "seen", "numbers", "snapshot", "far"].map(TableName::new).into_iter().chain([elsewhere])
    {
        let watch = TableWatch::new(name.clone());
        for error in [
            tables.watch_table(&watch).await.unwrap_err(),
            tables.ensure_triggers(&watch).await.unwrap_err(),
            tables.triggers_healthy(&watch).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Fatal, "{error}");
            assert!(error.to_string().contains(&name.to_string()), "{error}");
        }
    }
    let error = tables.watch_table(&TableWatch::new("a".repeat(64))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = tables.watch_table(&TableWatch::new("jobs").with_channel("c".repeat(64))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

async fn conditions_that_the_server_refuses_are_errors<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let conditions = [
        "",
        "new.status = = 'a'",
        "new.stats = 'pending'",
        "new.id",
        "new.id = 'many'",
        "new.status = nothing(1)",
        "new.id = 1::nothing",
        "old.status = 'pending'",
        "new.id = (select 1)",
        "true) execute function nothing() --",
    ];
    for (number, condition) in conditions.into_iter().enumerate() {
        // A table each, as one that failed is told so before the server has cleaned up after it.
        let table = TableName::new(format!("jobs_{number}"));
        database.sql(&format!("create table {table} (like jobs)")).await.unwrap();
        let watch = TableWatch::new(table.clone()).with_condition(condition);
        let error = tables.watch_table(&watch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{condition:?}: {error}");
        assert!(error.to_string().contains(&table.to_string()), "{condition:?}: {error}");
        assert!(std::error::Error::source(&error).is_some());
    }
    assert_eq!(triggers(&database).await, [""; 0]);
    assert_eq!(database.sql("select count(*) from pg_proc where proname = 'pgqueue_notify'").await.unwrap(), "0");
}
