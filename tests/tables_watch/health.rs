//! What is amiss is seen, and repaired where it is ours.

use pgqueue_postgres::{Client, TableWatch, TriggerState, Watched, WhyPolling};

use crate::{
    both_clients::on_both_clients,
    common::{jobs, listen, pending, rings, triggers},
};

on_both_clients!(
    missing_trigger_alone_is_created,
    disabled_triggers_are_unhealthy_and_repaired,
    foreign_triggers_are_reported_and_left_alone,
    replaced_body_of_the_function_is_foreign,
    foreign_trigger_does_not_keep_the_other_from_its_repair,
    dropped_and_recreated_table_is_repaired,
    repair_can_be_switched_off,
);

async fn missing_trigger_alone_is_created<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending();
    tables.watch_table(&watch).await.unwrap();
    let before = triggers(&database).await;
    let [insert, update] = watch.trigger_names();
    database.sql(&format!("drop trigger {insert} on jobs")).await.unwrap();
    let health = tables.triggers_healthy(&watch).await.unwrap();
    let states = (health.function, health.insert, health.update);
    assert_eq!(states, (TriggerState::Healthy, TriggerState::Missing, TriggerState::Healthy));

    assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::Installed);
    let after = triggers(&database).await;
    assert_eq!(after.len(), 2);
    assert_ne!(after[0], before[0], "{insert} is new");
    assert_eq!(after[1], before[1], "{update} was healthy");
}

async fn disabled_triggers_are_unhealthy_and_repaired<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending();
    tables.watch_table(&watch).await.unwrap();
    let before = triggers(&database).await;
    let [insert, update] = watch.trigger_names();
    let mut notices = listen(&tables, &watch).await;
    for how in ["disable", "enable replica"] {
        database.sql(&format!("alter table jobs {how} trigger {insert}")).await.unwrap();
        let health = tables.triggers_healthy(&watch).await.unwrap();
        assert!(!health.is_healthy());
        assert_eq!((health.insert, health.update), (TriggerState::Disabled, TriggerState::Healthy), "{how}");
        database.sql("insert into jobs select 1 + count(*), 'pending' from jobs").await.unwrap();
        assert_eq!(rings(&database, &mut notices).await, 0, "{how}");

        assert!(tables.ensure_triggers(&watch).await.unwrap().is_healthy(), "{how}");
        database.sql("insert into jobs select 1 + count(*), 'pending' from jobs").await.unwrap();
        assert_eq!(rings(&database, &mut notices).await, 1, "{how}");
        assert_eq!(triggers(&database).await, before);
    }
    database.sql(&format!("alter table jobs enable always trigger {update}")).await.unwrap();
    assert!(tables.triggers_healthy(&watch).await.unwrap().is_healthy(), "one that always fires, fires");
}

async fn foreign_triggers_are_reported_and_left_alone<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending();
    tables.watch_table(&watch).await.unwrap();
    let [insert, _] = watch.trigger_names();
    let ours = "select pg_get_triggerdef(oid) from pg_trigger where tgname like 'pgqueue_insert%'";
    let ours = database.sql(ours).await.unwrap();
    let other_function = "create function other() returns trigger language plpgsql as 'begin return null; end'";
    database.sql(other_function).await.unwrap();
    for (what, theirs) in [
        ("another function", ours.replace("pgqueue_notify(", "other(")),
        ("another event too", ours.replace("AFTER INSERT", "AFTER INSERT OR UPDATE")),
        ("another moment", ours.replace("AFTER INSERT", "BEFORE INSERT")),
        ("a moment of its own", ours.replace("CREATE TRIGGER", "CREATE CONSTRAINT TRIGGER")),
        ("another channel", ours.replace("'pgqueue_jobs'", "'elsewhere'")),
        ("no condition", ours.replace(&ours[ours.find("WHEN").unwrap()..ours.find("EXECUTE").unwrap()], "")),
        (
            "a trigger as somebody writes one by hand",
            format!(
                "create trigger {insert} after insert on jobs for each row when (new.status = 'never') \
                 execute function pgqueue_notify('pgqueue_jobs')"
            ),
        ),
    ] {
        assert_ne!(theirs, ours, "{what}");
        database.sql(&format!("drop trigger {insert} on jobs; {theirs}")).await.unwrap();
        let before = triggers(&database).await;
        let health = tables.triggers_healthy(&watch).await.unwrap();
        assert_eq!((health.insert, health.update), (TriggerState::Foreign, TriggerState::Healthy), "{what}");
        assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::Polling { why: WhyPolling::Foreign }, "{what}");
        assert!(!tables.ensure_triggers(&watch).await.unwrap().is_healthy());
        assert_eq!(triggers(&database).await, before, "{what}");
    }
    let [_, update] = watch.trigger_names();
    let some_columns =
        database.sql("select pg_get_triggerdef(oid) from pg_trigger where tgname like 'pgqueue_update%'");
    let some_columns = some_columns.await.unwrap().replace("AFTER UPDATE", "AFTER UPDATE OF status");
    database.sql(&format!("drop trigger {update} on jobs; {some_columns}")).await.unwrap();
    assert_eq!(tables.triggers_healthy(&watch).await.unwrap().update, TriggerState::Foreign);

    let other_condition = TableWatch::new("jobs").with_condition("new.status = 'pending'");
    let health = tables.triggers_healthy(&other_condition).await.unwrap();
    assert_eq!((health.insert, health.update), (TriggerState::Foreign, TriggerState::Foreign));
}

async fn replaced_body_of_the_function_is_foreign<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending();
    tables.watch_table(&watch).await.unwrap();
    let theirs =
        "create or replace function pgqueue_notify() returns trigger language plpgsql as 'begin return null; end'";
    database.sql(theirs).await.unwrap();
    let health = tables.triggers_healthy(&watch).await.unwrap();
    let states = [health.function, health.insert, health.update];
    assert_eq!(states, [TriggerState::Foreign; 3]);

    let [insert, _] = watch.trigger_names();
    database.sql(&format!("drop trigger {insert} on jobs")).await.unwrap();
    assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::Polling { why: WhyPolling::Foreign });
    assert_eq!(triggers(&database).await.len(), 1, "no trigger that calls it was created");

    database.sql("drop function pgqueue_notify cascade").await.unwrap();
    assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::Installed);
}

async fn foreign_trigger_does_not_keep_the_other_from_its_repair<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending();
    tables.watch_table(&watch).await.unwrap();
    let [insert, update] = watch.trigger_names();
    database
        .sql(&format!(
            "drop trigger {insert} on jobs; drop trigger {update} on jobs; \
             create trigger {insert} after insert on jobs for each row execute function pgqueue_notify('elsewhere')"
        ))
        .await
        .unwrap();
    assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::Polling { why: WhyPolling::Foreign });
    let health = tables.triggers_healthy(&watch).await.unwrap();
    assert_eq!((health.insert, health.update), (TriggerState::Foreign, TriggerState::Healthy));
}

async fn dropped_and_recreated_table_is_repaired<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending();
    tables.watch_table(&watch).await.unwrap();
    let mut notices = listen(&tables, &watch).await;
    database.sql("drop table jobs").await.unwrap();
    tables.ensure_triggers(&watch).await.unwrap_err();
    database.sql("create table jobs (id int, status text)").await.unwrap();
    assert!(tables.ensure_triggers(&watch).await.unwrap().is_healthy());
    database.sql("insert into jobs values (1, 'pending')").await.unwrap();
    assert_eq!(rings(&database, &mut notices).await, 1);
}

async fn repair_can_be_switched_off<C: Client>() {
    let (database, tables) = jobs::<C>().await;
    let watch = pending().with_repair(false);
    assert_eq!(tables.ensure_triggers(&watch).await.unwrap().insert, TriggerState::Missing);
    assert_eq!(tables.watch_table(&watch).await.unwrap(), Watched::Installed);
    let [insert, _] = watch.trigger_names();
    database.sql(&format!("drop trigger {insert} on jobs")).await.unwrap();
    assert_eq!(tables.ensure_triggers(&watch).await.unwrap().insert, TriggerState::Missing);
    assert_eq!(triggers(&database).await.len(), 1);
}
