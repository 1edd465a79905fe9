//! The owner need be nobody special.

use pgqueue_core::{ErrorKind, NewMessage, Publisher, Topic};
use pgqueue_postgres::{Client, PgQueue, Role};
use pgqueue_testserver::Database;

use super::{make_role, queue_of};
use crate::{
    both_clients::on_both_clients,
    catalog,
    common::{assert_says, consume, invoices, next, publish_number},
};

on_both_clients!(
    an_ordinary_role_that_may_create_schemas_owns_a_queue,
    an_ordinary_role_owns_a_queue_in_the_schema_that_was_made_for_it,
    who_does_not_own_the_schema_is_told_who_migrates,
);

async fn works<C: Client>(database: &Database, owner: &PgQueue<C>) {
    owner.migrate().await.unwrap();
    owner.migrate().await.unwrap();
    owner.create_topic(Topic::new("orders")).await.unwrap();
    let (publisher, consumer) = (make_role(database, "publisher").await, make_role(database, "consumer").await);
    owner.grant_to(&publisher, Role::Publisher).await.unwrap();
    owner.grant_to(&consumer, Role::Consumer).await.unwrap();
    let (publisher, consumer) = (queue_of::<C>(database, &publisher).await, queue_of::<C>(database, &consumer).await);
    let mut stream = consume(&consumer, invoices()).await;
    publish_number(&publisher, 1).await;
    next(&mut stream).await.ok().await.unwrap();
    let owners = database
        .sql("select distinct relowner::regrole from pg_class where relnamespace = 'pgqueue'::regnamespace")
        .await;
    assert!(owners.unwrap().ends_with("_owner"));
}

async fn an_ordinary_role_that_may_create_schemas_owns_a_queue<C: Client>() {
    let database = Database::create().await.unwrap();
    let role = make_role(&database, "owner").await;
    database.sql(&format!("grant create on database {} to {role}", database.name())).await.unwrap();
    works(&database, &queue_of::<C>(&database, &role).await).await;
}

async fn an_ordinary_role_owns_a_queue_in_the_schema_that_was_made_for_it<C: Client>() {
    let database = Database::create().await.unwrap();
    let role = make_role(&database, "owner").await;
    let owner = queue_of::<C>(&database, &role).await;
    let refused = owner.migrate().await.unwrap_err();
    assert_says(&refused, ErrorKind::Fatal, &["privilege", "CREATE on the database", "it is as before"]);
    database.sql(&format!("create schema pgqueue authorization {role}")).await.unwrap();
    works(&database, &owner).await;
}

async fn who_does_not_own_the_schema_is_told_who_migrates<C: Client>() {
    let database = Database::create().await.unwrap();
    let owner = PgQueue::<C>::connect(&database.url()).await.unwrap();
    owner.migrate().await.unwrap();
    owner.create_topic(Topic::new("orders")).await.unwrap();
    let role = make_role(&database, "publisher").await;
    owner.grant_to(&role, Role::Publisher).await.unwrap();
    let before = catalog::schema(&database).await;
    // A binary that knows the next version, deployed before its owner migrated.
    let publisher = queue_of::<C>(&database, &role).await;
    let next = "alter table pgqueue.log add column more text; insert into pgqueue.migration (version) values (2);";
    let refused = publisher.migrate_further(&[next]).await.unwrap_err();
    assert_says(&refused, ErrorKind::Fatal, &["version 2", "privilege", "migrate as the owner"]);
    catalog::assert_same("nothing was changed", &before, &catalog::schema(&database).await);
    publisher.publish("orders", vec![NewMessage::new("1")]).await.unwrap();
}
