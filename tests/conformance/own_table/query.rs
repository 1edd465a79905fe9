//! The query by which a consumer gets the messages of a subscription, and what becomes of them.

use std::time::Duration;

use pgqueue_core::{Error, ErrorKind, Order, Result, Subscription};
use pgqueue_postgres::{Client, Command, Locking, PendingQuery, Tracking};

use super::{Counting, rows};

const PENDING: &str = "
    select m.* from messages m
    where m.subscription = (select s.id from subscriptions s where s.name = $1) and m.due_at <= now()";

/// What waits for another try holds back all that comes after it.
const NOTHING_WAITS_BEFORE: &str = "
    and not exists (
      select from messages before
      where before.subscription = m.subscription and before.id < m.id
        and before.is_retry and before.due_at > now())";

const NEXT_DUE: &str =
    "select min(due_at) from messages where subscription = (select s.id from subscriptions s where s.name = $1)";

const SUBSCRIBE: &str = "
    insert into subscriptions as s (name, topic, ordering, base_delay, multiplier, longest_delay, jitter)
    values ($1, $2, $3, $4 * interval '1 ms', $5, $6 * interval '1 ms', $7)
    on conflict (name) do update
    set (base_delay, multiplier, longest_delay, jitter) =
      (excluded.base_delay, excluded.multiplier, excluded.longest_delay, excluded.jitter)
    returning s.topic = $2 and s.ordering = $3";

const EXISTS: &str = "select exists(select from subscriptions where name = $1)";

const OK: &str = "
    delete from messages m using subscriptions s
    where s.id = m.subscription and m.serial = any($1)";

/// By the delay of the answer, or by that of the subscription as it was inserted last. `now()` would be when the delivery began.
const REQUEUE: &str = "
    update messages m set is_retry = true, due_at = statement_timestamp() + coalesce($2 * interval '1 ms',
      least(s.base_delay * power(s.multiplier, least(greatest(m.deliveries, 1), 30) - 1), s.longest_delay)
        * (1 + s.jitter * (2 * random() - 1)))
    from subscriptions s where s.id = m.subscription and m.serial = any($1)";

const REJECT: &str = "
    with gone as (delete from messages where serial = any($1) returning *)
    insert into dead_letters select gone.*, coalesce($2, 'requeued after the last attempt') from gone";

/// What the schema's triggers notify.
const CHANNEL: &str = "messages";

pub(super) fn pending<C: Client>(subscription: &Subscription, counting: Counting) -> Result<PendingQuery<C::Row>> {
    let (locking, condition) = match subscription.order() {
        Order::Unordered => (Locking::Unordered, ""),
        Order::Total => (Locking::Ordered, NOTHING_WAITS_BEFORE),
        order => return Err(Error::new(ErrorKind::Invalid, format!("the tables have no order that is {order}"))),
    };
    let backoff = subscription.backoff();
    let subscribe = Command::new(SUBSCRIBE)
        .with_argument(subscription.name())
        .with_argument(subscription.topic())
        .with_argument(format!("{:?}", subscription.order()))
        .with_argument(millis(backoff.base()))
        .with_argument(backoff.multiplier())
        .with_argument(millis(backoff.cap()))
        .with_argument(backoff.jitter());
    let pending = PendingQuery::new(subscription.name(), format!("{PENDING}{condition} order by m.id"))
        .with_argument(subscription.name())
        .with_key("serial")
        .with_rows(rows::message)
        .with_locking(locking)
        .with_batch(subscription.batch())
        .with_insert(subscribe)
        .with_exists(EXISTS)
        .with_ok(OK)
        .with_requeue(REQUEUE)
        .with_reject(REJECT)
        .with_max_attempts(backoff.max_attempts())
        .with_next_due(NEXT_DUE)
        .with_channel(CHANNEL);
    let tracking =
        Tracking::new("messages").with_last_delivered_at("last_delivered_at").with_last_ack_at("last_ack_at");
    Ok(match counting {
        Counting::On => pending.with_tracking(tracking),
        Counting::Off => pending,
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
