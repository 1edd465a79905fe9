//! The statements that the queue sends: calls of its functions, one round trip each.

pub(crate) const PUBLISH: &str = "select pgqueue.publish_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

pub(crate) const CLAIM: &str = "\
    select lease, lane, id, scheduled, attempt, suspect, place, delivered_at, requeued_at, published_at, key, kind, tags, headers, \
           payload, busy, more, writers, wait_ms, batch, prefetch, lease_ms \
    from pgqueue.claim($1, $2, $3, $4, $5, $6, $7, $8, $9)";

pub(crate) const SETTLE: &str = "select refused_lease, refused_token, dead_id from pgqueue.settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

/// Settles nothing, and rings for lanes that were freed without.
pub(crate) const RING: &str = "select pgqueue.settle($1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')";

pub(crate) const SETTLE_IN: &str = "select pgqueue.settle_in($1, $2, $3)";

pub(crate) const OUTCOME: &str = "select outcome, dead_ids from pgqueue.outcome($1, $2, $3, $4)";

pub(crate) const BEAT: &str = "select lease, token, state from pgqueue.beat($1, $2, $3, $4, $5, $6, $7)";

pub(crate) const PULSE: &str = "select who, what, wait_ms from pgqueue.pulse($1, $2, $3, $4, $5, $6, $7)";

pub(crate) const LEAVE: &str = "select pgqueue.leave($1)";

pub(crate) const ARM: &str = "select pgqueue.arm($1, $2)";

pub(crate) const BURY_OWNERS: &str = "select dead_owner, subscription, topic, dead_ids from pgqueue.bury_owners()";

pub(crate) const PUBLISH_SCHEDULED: &str = "select pgqueue.publish_scheduled()";

pub(crate) const KEEP_STUCK: &str = "select pgqueue.keep_stuck()";

pub(crate) const TRIM: &str = "select pgqueue.trim()";

pub(crate) const SWEEP: &str = "select dead_owner, subscription, topic, dead_ids from pgqueue.sweep()";

pub(crate) const CREATE_TOPIC: &str = "select buckets from pgqueue.create_topic($1, $2, $3, $4, $5, $6, $7)";

pub(crate) const DELETE_TOPIC: &str = "select pgqueue.delete_topic($1)";

pub(crate) const DESCRIBE_TOPIC: &str = "\
    select name, buckets, dedup_window_ms, retain_ms, retain_messages, retain_bytes, cuts from pgqueue.describe_topic($1)";

pub(crate) const INSERT_SUBSCRIPTION: &str = "\
    select topic, ordering, selector \
    from pgqueue.insert_subscription($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)";

pub(crate) const DELETE_SUBSCRIPTION: &str = "select pgqueue.delete_subscription($1)";

pub(crate) const SEEK: &str = "select pgqueue.seek($1, $2)";

pub(crate) const DESCRIBE_SUBSCRIPTION: &str = "\
    select id, name, topic, ordering, batch, prefetch, lease_ms, max_attempts, base_ms, multiplier, cap_ms, jitter, topic_id, channel, \
           selector, consumers, workers \
    from pgqueue.describe_subscription($1)";

pub(crate) const DEAD_LETTERS: &str = "\
    select id, scheduled, attempts, reason, delivered_at, requeued_at, died_at, published_at, key, kind, tags, headers, payload, \
           place \
    from pgqueue.dead_letters($1)";

pub(crate) const REDRIVE: &str = "select pgqueue.redrive($1, $2)";

pub(crate) const PURGE: &str = "select pgqueue.purge($1)";

pub(crate) const EXPIRE_LEASES: &str = "select pgqueue.expire_leases($1)";

pub(crate) const STATS: &str = "\
    select waiting, waiting_is_exact, oldest_ms, in_flight, retrying, dead, consumers, held_back, cut from pgqueue.stats($1)";

pub(crate) const HORIZON_HOLDER: &str = "select what, who, age_xids, since from pgqueue.horizon_holder()";

pub(crate) const CHECKPOINTS: &str = "select name, position, moved_at from pgqueue.checkpoints($1)";

pub(crate) const ADVANCE_CHECKPOINT: &str = "select pgqueue.advance_checkpoint($1, $2)";

pub(crate) const RESET_CHECKPOINT: &str = "select pgqueue.reset_checkpoint($1, $2, $3)";

pub(crate) const GRANT_PUBLISHER: &str = "select pgqueue.grant_publisher($1)";

pub(crate) const GRANT_CONSUMER: &str = "select pgqueue.grant_consumer($1)";

pub(crate) const GRANT_ADMIN: &str = "select pgqueue.grant_admin($1)";

pub(crate) const REVOKE_ALL: &str = "select pgqueue.revoke_all($1)";
