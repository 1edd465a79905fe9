//! What every publisher can do, also one that is only known as `dyn Publisher`.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use mockall::{mock, predicate::eq};
use pgqueue_core::{ErrorKind, MessageId, NewMessage, Operation, Publisher, PublisherExt, Result};

mock! {
    Topics {}

    #[async_trait]
    impl Publisher for Topics {
        async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>>;
    }
}

/// A publisher that expects one message with this payload, and returns these ids.
fn publisher(payload: &'static str, ids: Vec<MessageId>) -> MockTopics {
    let mut topics = MockTopics::new();
    let message = vec![NewMessage::new(payload)];
    topics.expect_publish().with(eq("orders"), eq(message)).once().return_once(|_, _| Ok(ids));
    topics
}

#[tokio::test]
async fn one_message_gets_one_id() {
    let id = MessageId::new("7");
    let topics: Arc<dyn Publisher> = Arc::new(publisher("coffee", vec![id.clone()]));
    assert_eq!(topics.publish_one("orders", NewMessage::new("coffee")).await.unwrap(), id);

    let topics = publisher("[\"coffee\",2]", vec![id.clone()]);
    let topics: &dyn Publisher = &topics;
    assert_eq!(topics.publish_json("orders", &("coffee", 2)).await.unwrap(), id);
}

#[tokio::test]
async fn a_message_without_an_id_is_an_error() {
    let error = publisher("coffee", vec![]).publish_one("orders", NewMessage::new("coffee")).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Fatal, Some(Operation::Publish)));
}

#[tokio::test]
async fn what_is_no_json_is_not_published() {
    let nothing_expected = MockTopics::new();
    let keys_that_are_no_text = BTreeMap::from([((1, 2), 3)]);
    let error = nothing_expected.publish_json("orders", &keys_that_are_no_text).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
