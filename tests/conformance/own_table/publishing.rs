//! Publishing by plain SQL, in one transaction.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pgqueue_conformance::Uncommitted;
use pgqueue_core::{Due, Error, MessageId, NewMessage, Result};
use pgqueue_postgres::{Client, OwnedTransaction, Parameter};
use serde_json::json;

use super::{broken, refused, rows};

const KNOWN: &str = "select from topics where name = $1";

const NEXT_ID: &str = "select nextval('message_ids')";

/// Returns the id of the first message with this dedup id, which may be this one.
const FIRST: &str = "
    insert into dedup_ids as first values ($1, $2, $3, clock_timestamp())
    on conflict (topic, dedup_id) do update set (message, published_at) = (
      select case when is_over then excluded.message else first.message end,
             case when is_over then excluded.published_at else first.published_at end
      from (select first.published_at + dedup_window < excluded.published_at as is_over from topics where name = $1) topic)
    returning message";

const COPY: &str = "
    insert into messages (subscription, id, topic, payload, key, kind, tags, headers, due_at)
    select s.id, $1, $2, $3, $4, $5, $6::jsonb, $7::jsonb,
           coalesce($8, clock_timestamp() + coalesce($9, 0) * interval '1 ms')
    from subscriptions s where s.topic = $2";

/// Inserts all of `messages`, and returns the transaction with their ids.
pub(super) async fn publish<C: Client>(
    client: &C,
    topic: &str,
    messages: Vec<NewMessage>,
) -> Result<(C::Transaction, Vec<MessageId>)> {
    messages.iter().try_for_each(NewMessage::validate)?;
    let mut transaction = client.begin().await.map_err(refused)?;
    if transaction.query(KNOWN, &[topic.into()]).await.map_err(refused)?.is_empty() {
        return Err(Error::topic_not_found(topic));
    }
    let mut ids = Vec::new();
    for message in &messages {
        ids.push(MessageId::new(publish_one(&mut transaction, topic, message).await?.to_string()));
    }
    Ok((transaction, ids))
}

async fn publish_one(transaction: &mut impl OwnedTransaction, topic: &str, message: &NewMessage) -> Result<i64> {
    let id = number(transaction, NEXT_ID, &[]).await?;
    if let Some(dedup_id) = message.dedup_id() {
        let first = number(transaction, FIRST, &[topic.into(), dedup_id.into(), id.into()]).await?;
        if first != id {
            return Ok(first);
        }
    }
    let (at, delay) = match message.due() {
        Some(Due::At(time)) => (Some(time), None),
        Some(Due::After(delay)) => (None, Some(delay)),
        _ => (None::<SystemTime>, None),
    };
    let copy: [Parameter; 9] = [
        id.into(),
        topic.into(),
        message.payload()[..].into(),
        message.key().into(),
        message.kind().into(),
        json!(message.tags()).to_string().into(),
        json!(message.headers()).to_string().into(),
        at.into(),
        delay.map(|delay: Duration| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)).into(),
    ];
    transaction.execute(COPY, &copy).await.map_err(refused)?;
    Ok(id)
}

async fn number(transaction: &mut impl OwnedTransaction, statement: &str, bound: &[Parameter]) -> Result<i64> {
    let rows = transaction.query(statement, bound).await.map_err(refused)?;
    rows::id(&rows[0]).map_err(broken)
}

/// Messages that nobody sees yet.
pub(super) struct Open<T>(pub(super) T);

#[async_trait]
impl<T: OwnedTransaction> Uncommitted for Open<T> {
    async fn commit(self: Box<Self>) -> Result<()> {
        self.0.commit().await.map_err(refused)
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        self.0.rollback().await.map_err(refused)
    }
}
