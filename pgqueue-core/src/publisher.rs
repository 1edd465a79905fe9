//! [`Publisher`]: where messages come from.

use std::{future::Future, sync::Arc};

use async_trait::async_trait;
use serde::Serialize;

use crate::{Error, ErrorKind, MessageId, NewMessage, Operation, Result};

/// Appends messages to topics. What users call is in [`PublisherExt`] too.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Publishes all of `messages`, in order, or none; durable once it returns. Every subscription of the topic gets each.
    ///
    /// Returns their ids in the same order; for a repeated [dedup id](NewMessage::with_dedup_id) that of the first.
    /// No messages is fine, and so is a topic without subscriptions.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a message over a limit, [`NotFound`](ErrorKind::NotFound) for an unknown topic.
    /// Nothing was published then.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome: all were published or none.
    async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>>;
}

macro_rules! forward_to_pointee {
    ($pointer:ty) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<P: Publisher + ?Sized> Publisher for $pointer {
            async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
                (**self).publish(topic, messages).await
            }
        }
    };
}

forward_to_pointee!(Arc<P>);
forward_to_pointee!(Box<P>);
forward_to_pointee!(&P);

/// Ways to publish that every [`Publisher`] has.
pub trait PublisherExt: Publisher {
    /// Publishes one message and returns its id.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome: it was published or not.
    fn publish_one(&self, topic: &str, message: NewMessage) -> impl Future<Output = Result<MessageId>> + Send {
        async move {
            let ids = self.publish(topic, vec![message]).await?;
            ids.into_iter().next().ok_or_else(|| {
                Error::new(ErrorKind::Fatal, "the publisher returned no id for a message").during(Operation::Publish)
            })
        }
    }

    /// Publishes `value` as JSON and returns the message's id.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if the value cannot be written as JSON; else as [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome: it was published or not.
    fn publish_json<T: Serialize + Sync + ?Sized>(
        &self,
        topic: &str,
        value: &T,
    ) -> impl Future<Output = Result<MessageId>> + Send {
        async move { self.publish_one(topic, NewMessage::json(value)?).await }
    }
}

impl<P: Publisher + ?Sized> PublisherExt for P {}
