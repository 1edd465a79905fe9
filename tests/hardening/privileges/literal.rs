//! Names and texts that try to be more: stored and returned as they were, or refused; nothing else changes.

use futures::{StreamExt, future::join_all};
use pgqueue_core::{
    CheckpointStore, Error, ErrorKind, NewMessage, Order, Position, Publisher, Selector, Start, Subscription, Topic,
};
use pgqueue_postgres::{Client, Notice, PgTables, TableName, TableWatch};

use crate::{
    both_clients::on_both_clients,
    catalog,
    common::{consume, next, patiently, queue_without_topic},
};

on_both_clients!(
    texts_are_stored_as_they_are_or_refused,
    positions_are_positions_or_refused,
    channels_are_heard_as_they_are_or_refused,
    names_of_tables_are_names,
);

/// What is meant to end a literal, a statement, or more.
fn attempts() -> Vec<String> {
    let mut texts: Vec<_> = [
        "'; drop schema pgqueue cascade; --",
        "\"; drop schema pgqueue cascade; --",
        "$$; drop schema pgqueue cascade; $$",
        "$body$; drop schema pgqueue cascade; $body$",
        "\\'; drop schema pgqueue cascade; --",
        "\\\"; drop table pgqueue.log; --",
        "a\nb\r\n\tc\u{b}\u{c}\u{1b}[31m\u{7f}",
        "*/ drop table pgqueue.log /*",
        "%s%n%I%L%1$s",
        "${HOME} $(id) `id`",
        "{\"and\": []}",
        "{\"a\",NULL,{x}}",
        "[1:1]={a}",
        "(,,)",
        "\u{202e}evil\u{2066}",
        "e\u{301}é\u{fe0f}\u{200d}👩‍🚀",
        "\u{feff}bom",
        "pg_temp",
        "pgqueue.log",
        "null",
        "0",
        "-1",
        "1e309",
        "\\x00",
        "\\u0000",
        "E'\\x41'",
        "U&\"d\\0061t\\+000061\"",
        "' or '1'='1",
        ":name $1 ? @p",
    ]
    .map(str::to_owned)
    .into();
    texts.extend([63, 64, 65, 254, 255, 256].map(|length| "x".repeat(length)));
    texts.extend([
        "é".repeat(32),
        "☃".repeat(85),
        "🦀".repeat(64),
        "\0".into(),
        "a\0; drop table pgqueue.log".into(),
        String::new(),
    ]);
    texts
}

/// A refusal is typed, and of the caller's input.
#[track_caller]
fn assert_of_input(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound), "{error:?}");
}

async fn texts_are_stored_as_they_are_or_refused<C: Client>() {
    let (database, queue) = queue_without_topic::<C>().await;
    let before = catalog::everything(&database).await;
    let queue = &queue;
    let stored = join_all(attempts().into_iter().map(|text| async move {
        if let Err(refused) = queue.create_topic(Topic::new(&*text)).await {
            assert_of_input(&refused);
            assert!(text.is_empty() || text.len() > 255 || text.contains('\0'), "{text:?}");
            return 0;
        }
        let subscription = Subscription::new(&*text, &*text).with_order(Order::StableTotal).with_selector(
            Selector::key(&*text).and(Selector::tags_all([&*text])).and(!Selector::kind_like(format!("{text}x"))),
        );
        let mut stream = consume(queue, subscription.clone()).await;
        let message = NewMessage::new(text.clone())
            .with_key(&*text)
            .with_kind(&*text)
            .with_tag(&*text)
            .with_header(&*text, &*text)
            .with_dedup_id(&*text);
        let ids = queue.publish(&text, vec![message.clone(), message]).await.unwrap();
        assert_eq!(ids[0], ids[1], "{text:?}");
        let delivery = next(&mut stream).await;
        let message = delivery.message();
        assert_eq!((message.topic(), message.key(), message.kind()), (&*text, Some(&*text), Some(&*text)));
        assert_eq!((message.tags(), &message.headers()[&text]), (&[text.clone()][..], &text));
        assert_eq!(message.payload(), text.as_bytes());
        assert!(queue.advance_checkpoint(&text, message.position()).await.unwrap());
        assert_eq!(queue.checkpoint(&text).await.unwrap().unwrap().name, text);
        delivery.settle(pgqueue_core::Ack::reject(text.clone())).await.unwrap();
        assert_eq!(queue.dead_letters(&text).await.unwrap()[0].reason, text);
        assert_eq!(queue.find_subscription(&text).await.unwrap().unwrap().selector(), subscription.selector());
        assert_eq!(queue.topic(&text).await.unwrap().name(), text);
        1
    }));
    let stored: usize = patiently("all texts", stored).await.into_iter().sum();
    assert_eq!(stored, attempts().len() - 5, "all but what is empty, too long, or has a NUL");
    catalog::assert_same("nothing else changed", &before, &catalog::everything(&database).await);

    // What names nothing finds nothing, and deletes nothing.
    for text in attempts().iter().map(|text| format!("{text}'")) {
        for refused in [
            queue.delete_topic(&text).await.unwrap_err(),
            queue.delete_subscription(&text).await.unwrap_err(),
            queue.publish(&text, vec![NewMessage::new("1")]).await.unwrap_err(),
            queue.seek(&text, &Start::Beginning).await.unwrap_err(),
            queue.redrive(&text).await.unwrap_err(),
        ] {
            assert_of_input(&refused);
        }
    }
    assert_eq!(queue.topics().await.unwrap().len(), stored);
    for topic in queue.topics().await.unwrap() {
        queue.delete_topic(topic.name()).await.unwrap();
    }
    assert_eq!(queue.subscriptions().await.unwrap(), []);
    catalog::assert_same("nothing else changed", &before, &catalog::everything(&database).await);
}

async fn positions_are_positions_or_refused<C: Client>() {
    let (database, queue) = queue_without_topic::<C>().await;
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let before = catalog::everything(&database).await;
    for text in attempts() {
        let position = Position::new(text.clone());
        for order in [Order::Unordered, Order::StableTotal] {
            let subscription =
                Subscription::new("s", "orders").with_order(order).with_start(Start::After(position.clone()));
            // Some are numbers, which are places before the first message.
            match queue.insert_subscription(&subscription).await {
                Ok(()) => queue.delete_subscription("s").await.unwrap(),
                Err(refused) => assert_of_input(&refused),
            }
        }
        assert_of_input(&queue.advance_checkpoint("c", &position).await.unwrap_err());
    }
    assert_eq!(queue.checkpoints().await.unwrap().len(), 0);
    catalog::assert_same("nothing else changed", &before, &catalog::everything(&database).await);
}

async fn channels_are_heard_as_they_are_or_refused<C: Client>() {
    let (database, queue) = queue_without_topic::<C>().await;
    let before = catalog::everything(&database).await;
    let (database_of_all, queue) = (&database, &queue);
    join_all(attempts().into_iter().map(|text| async move {
        let fits = !text.is_empty() && text.len() <= 63 && !text.contains('\0');
        let mut notices = match queue.listener().subscribe(&text).await {
            Ok(notices) if fits => notices,
            Err(refused) if !fits => return assert_of_input(&refused),
            other => panic!("{text:?}: {:?}", other.err()),
        };
        assert_eq!(notices.channel(), text);
        let ring = format!("select pg_notify('{}', 'for {}')", text.replace('\'', "''"), text.len());
        database_of_all.sql(&ring).await.unwrap();
        let heard = patiently("a notification", notices.next()).await.unwrap();
        assert_eq!(heard, Notice::Notified(format!("for {}", text.len())), "{text:?}");
    }))
    .await;
    catalog::assert_same("nothing else changed", &before, &catalog::everything(&database).await);
}

async fn names_of_tables_are_names<C: Client>() {
    let (database, queue) = queue_without_topic::<C>().await;
    let tables: PgTables<C> = queue.tables();
    let before = catalog::everything(&database).await;
    for text in attempts() {
        for name in
            [TableName::new(&*text), TableName::new("t").in_schema(&*text), TableName::new(&*text).in_schema("public")]
        {
            let refused = tables.ensure_triggers(&TableWatch::new(name)).await.unwrap_err();
            assert!(
                matches!(refused.kind(), ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Fatal),
                "{refused:?}"
            );
        }
    }
    catalog::assert_same("nothing was made", &before, &catalog::everything(&database).await);
}
