//! The hot statements, all of them: what a publisher, a consumer and its housekeeping send again and again.
//!
//! Not among them is what somebody asks for once in a while and reads what it returns or removes: `dead_letters`, `purge`, redriving
//! everything, `expire_leases`, `seek`, creating and deleting.

use crate::{
    scene::{ORDERS, SELECTIVE},
    session::Session,
};

/// The owner of all that is in hand.
const OWNER: &str = "00000000-0000-0000-0000-000000000001";
/// What the subscription of latecomers is handed out by, page by page.
const LATE: u32 = 300;

/// A statement, as it is now.
pub(crate) struct Hot {
    pub(crate) what: String,
    pub(crate) sql: String,
    /// The indexes that it goes by.
    pub(crate) by: Vec<&'static str>,
    /// Whether it reads as much of a large log as of a small one.
    pub(crate) is_flat: bool,
    /// How many rows it copies one by one, each through three indexes that are higher in a large log.
    pub(crate) copies: i64,
    /// The table of which it may read all.
    pub(crate) reads_all_of: Option<&'static str>,
}

impl Hot {
    fn new(what: impl Into<String>, sql: impl Into<String>, by: &[&'static str]) -> Self {
        Self { what: what.into(), sql: sql.into(), by: by.to_vec(), is_flat: true, copies: 0, reads_all_of: None }
    }

    fn with_size(mut self) -> Self {
        self.is_flat = false;
        self
    }

    fn copying(mut self, rows: i64) -> Self {
        self.copies = rows;
        self
    }

    /// Counts all that the subscription has in hand and for later.
    fn reading_leases(mut self) -> Self {
        self.reads_all_of = Some("lease");
        self.with_size()
    }
}

pub(crate) fn claim(subscription: i64, most: u32) -> String {
    // Lane 0 comes first: by key, the lane of what has no key is another matter.
    format!("select * from pgqueue.claim({subscription}, '{OWNER}', gen_random_uuid(), {most}, false, true, 1, false)")
}

/// Of a consumer that sleeps, and whose arming is swept already.
fn pulse(subscription: i64) -> String {
    format!(
        "select * from pgqueue.pulse('{{{OWNER}}}', '{{{subscription}}}', '{{60000}}', '{{true}}', '{{true}}', '{{0}}', 1000)"
    )
}

/// Claims and settling in each order. From the first on there is somebody at work who may come late.
pub(crate) fn claims() -> Vec<Hot> {
    let mut hot = Vec::new();
    for (subscription, order) in ORDERS {
        let fresh = match order {
            "by key" => "log_by_bucket",
            "stable total" => "log_by_xact",
            _ => "log_pkey",
        };
        let lease = if subscription == 1 { "lease_ready" } else { "lease_lane" };
        let by = ["log_by_xact", fresh, "cursor_pkey", lease];
        hot.push(Hot::new(format!("a claim {order}"), claim(subscription, 100), &by));
        let by = ["cursor_pkey", if order == "stable total" { "log_by_xact" } else { "log_pkey" }];
        hot.push(Hot::new(format!("a pulse {order}"), pulse(subscription), &by));
    }
    for (subscription, what, _) in SELECTIVE {
        let by = if what == "a key" { "log_by_bucket" } else { "log_pkey" };
        hot.push(Hot::new(format!("a claim of {what}"), claim(subscription, 10), &["log_by_xact", by, "cursor_pkey"]));
    }
    hot
}

/// Makes what each of the others needs, and returns them. `number` is new for each call.
pub(crate) async fn others(session: &Session, beside: &Session, number: usize) -> Vec<Hot> {
    let (retried, late) = retries_and_latecomers(session, beside, number).await;
    session
        .run(
            "delete from pgqueue.scheduled where due_at < now(); \
             insert into pgqueue.scheduled (topic, due_at, payload) select 1, now() - interval '1 second', 'x' from generate_series(1, 5); \
             insert into pgqueue.dedup (topic, dedup_id, message, expires_at) \
             select 1, gen_random_uuid(), '1', now() - interval '1 second' from generate_series(1, 5); \
             select count(*) from pgqueue.publish_batch('passed', array_fill('x'::bytea, array[200]))",
        )
        .await;
    session.run("delete from pgqueue.lease where owner is not null").await;
    session.run(&claim(1, 100)).await;
    session.run("update pgqueue.lease set claimed_at = now() - interval '1 hour' where owner is not null").await;
    // Of one that has all, but for what somebody may publish who is at work.
    let drained = format!(
        "select id from pgqueue.insert_subscription('drained {number}', 'passed', 'unordered', 100, 100, 60000, 20, 1000, 2, 60000, 0)"
    );
    let drained = session.run(&drained).await[0][0].parse().unwrap();
    let held = session.run("select id, token, i[1], i[2], i[3] from pgqueue.lease cross join pgqueue.unpacked(ids) i where owner is not null and subscription = 1 limit 1").await;
    let [lease, token, first, second, third] = held[0].as_slice() else { unreachable!("five columns") };
    let dead =
        &session.run("select id from pgqueue.dead_letter where subscription = 3 order by id desc limit 1").await[0][0];

    let mut hot = vec![
        // First: a minute later, what the others claim is stuck as well.
        Hot::new("keeping what is stuck", "select pgqueue.keep_stuck()", &["lease_first", "log_pkey"]).copying(100),
        Hot::new("publishing", "select pgqueue.publish('t', 'x', 'a key')", &["sleeper_topic_armed_until_idx"]),
        Hot::new(
            "publishing a batch",
            "select pgqueue.publish_batch('t', array_fill('x'::bytea, array[100]), array_fill('a key'::text, array[100]))",
            &["sleeper_topic_armed_until_idx"],
        ),
        Hot::new("publishing once", "select pgqueue.publish('t', 'x', v_dedup_id => 'once')", &["dedup_pkey"]),
        Hot::new(
            "publishing for later",
            "select pgqueue.publish('t', 'x', v_due_at => now() + interval '1 hour')",
            &[],
        ),
        Hot::new("a pulse of who has all", pulse(drained), &["cursor_pkey", "log_pkey", "log_by_xact"]),
        Hot::new("a claim of retries", claim(retried, 100), &["lease_ready", "lease_pkey", "log_pkey"]),
        Hot::new("a claim of a giant latecomer", claim(late, 100), &["log_by_xact", "log_pkey", "cursor_pkey"]),
        Hot::new(
            "settling a run",
            format!(
                "select * from pgqueue.settle(1, '{{{lease}}}', '{{{token}}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')"
            ),
            &["lease_pkey"],
        ),
        Hot::new(
            "settling one by one",
            format!(
                "select * from pgqueue.settle(1, '{{}}', '{{}}', '{{{lease},{lease},{lease}}}', '{{{token},{token},{token}}}', \
                 '{{{first},{second},{third}}}', '{{0,1,2}}', '{{1,2,3}}', '{{null,null,null}}', '{{null,null,bad}}')"
            ),
            &["lease_pkey", "log_pkey"],
        ),
        Hot::new(
            "settling in a transaction",
            format!("select pgqueue.settle_in({lease}, '{token}', '{{{first}}}')"),
            &["lease_pkey"],
        ),
        Hot::new(
            "the outcome of a transaction",
            format!("select pgqueue.outcome({lease}, '{token}', '{{{first}}}', null)"),
            &["settled_pkey", "lease_pkey"],
        ),
        Hot::new(
            "a beat",
            format!("select * from pgqueue.beat('{OWNER}', 1, 60000, {lease}, '{{{lease}}}', '{{{token}}}', '{{1}}')"),
            &["owner_pkey", "lease_pkey"],
        ),
        Hot::new("leaving", format!("select pgqueue.leave('{OWNER}')"), &["lease_owner"]),
        Hot::new("arming", "select pgqueue.arm(1, 1000)", &[]),
        Hot::new("burying owners", "select pgqueue.bury_owners()", &[]),
        Hot::new("publishing what is due", "select pgqueue.publish_scheduled()", &["scheduled_due_at_id_idx"])
            .with_size(),
        Hot::new("trimming", "select pgqueue.trim(100)", &["log_pkey"]),
        Hot::new("sweeping", "select pgqueue.sweep()", &["dedup_expires_at_idx", "lease_owner"]).with_size(),
        Hot::new("redriving one", format!("select pgqueue.redrive(3, {dead})"), &["dead_letter_pkey"]),
        Hot::new("describing a subscription", "select * from pgqueue.describe_subscription('unordered')", &[]),
        Hot::new("who holds the horizon", "select * from pgqueue.horizon_holder()", &[]),
        Hot::new(
            "advancing a checkpoint",
            "select pgqueue.advance_checkpoint('a', '00000000000000000001.0000000000000000001')",
            &[],
        ),
        Hot::new(
            "a subscription that begins now",
            "select * from pgqueue.insert_subscription('new', 't', 'by key', 100, 100, 60000, 20, 1000, 2, 60000, 0)",
            &["log_pkey"],
        ),
        Hot::new(
            "a subscription that begins with all",
            "select * from pgqueue.insert_subscription('new', 't', 'total', 100, 100, 60000, 20, 1000, 2, 60000, 0, '')",
            &[],
        ),
    ];
    for (subscription, order) in ORDERS {
        let stats = format!("select * from pgqueue.stats({subscription}, 10)");
        hot.push(Hot::new(format!("stats {order}"), stats, &["cursor_pkey"]).reading_leases());
    }
    hot
}

/// Makes a subscription of which a hundred retries are due, and one which a transaction of many messages comes late for.
async fn retries_and_latecomers(session: &Session, beside: &Session, number: usize) -> (i64, i64) {
    beside
        .run(&format!("begin; select cardinality(pgqueue.publish_batch('t', array_fill('x'::bytea, array[{LATE}])))"))
        .await;
    session.run("select pgqueue.publish('t', 'x')").await;
    let mut made = Vec::new();
    for name in ["retried", "late"] {
        let insert = format!(
            "select id from pgqueue.insert_subscription('{name} {number}', 't', 'unordered', 100, 100, 60000, 20, 1000, 2, 60000, 0)"
        );
        made.push(session.run(&insert).await[0][0].parse().unwrap());
    }
    beside.run("commit").await;
    let retries = format!(
        "insert into pgqueue.lease (subscription, lane, rank, claimed_at, ready_at, ids) \
         select {}, -1, id, now(), now() - interval '1 second', array[id] \
         from (select id from pgqueue.log where topic = 1 order by topic desc, id desc limit 100) l",
        made[0]
    );
    session.run(&retries).await;
    (made[0], made[1])
}
