//! Sabotages of the queue's functions, to show that the checks would notice.

/// A change of one function that breaks a promise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sabotage {
    pub(crate) name: &'static str,
    /// The seed that is tried first, as it showed it soonest.
    pub(crate) seed: u64,
    pub(crate) function: &'static str,
    /// What is replaced, and what by.
    pub(crate) edits: &'static [(&'static str, &'static str)],
}

pub(crate) const SABOTAGES: [Sabotage; 26] = [
    Sabotage {
        name: "nothing tells of latecomers that were in progress",
        seed: 4,
        function: "has_latecomers",
        edits: &[("from pg_snapshot_xip(c.seen) u (xact)", "from unnest('{}'::xid8[]) u (xact)")],
    },
    Sabotage {
        name: "nothing tells of latecomers that began after the snapshot's last",
        seed: 17,
        function: "has_latecomers",
        edits: &[("xact >= pg_snapshot_xmax(c.seen) and xact < c.upto", "false")],
    },
    Sabotage {
        name: "no pulse tells of retries in a lane",
        seed: 2,
        function: "lane_has_news",
        edits: &[("if l.ready_at <= clock_timestamp() then", "if false then")],
    },
    Sabotage {
        name: "no pulse tells of retries without an order",
        seed: 0,
        function: "has_news",
        edits: &[("ready_at is not null and ready_at <= v_now", "ready_at is not null and false")],
    },
    Sabotage {
        name: "latecomers that were in progress are forgotten",
        seed: 0,
        function: "late_ids",
        edits: &[("select pg_snapshot_xip(c.seen)", "select null::xid8")],
    },
    Sabotage {
        name: "latecomers that began after the snapshot's last are forgotten",
        seed: 1,
        function: "late_ids",
        edits: &[("xact >= pg_snapshot_xmax(c.seen) and xact < c.upto", "false")],
    },
    Sabotage {
        name: "the cursor is read before the lock",
        seed: 71,
        function: "claim",
        edits: &[
            (
                "select * into c from pgqueue.cursor where subscription = s.id and lane = v_lane order by n desc limit 1;",
                "",
            ),
            ("continue when not found;", "continue when c is null;"),
            (
                "if not pg_try_advisory_xact_lock(",
                "select * into c from pgqueue.cursor where subscription = s.id and lane = v_lane order by n desc limit 1;\n\
                 if not pg_try_advisory_xact_lock(",
            ),
        ],
    },
    Sabotage {
        name: "upto is drawn before the look",
        seed: 2,
        function: "claim",
        edits: &[("for i in 1 ..", "v_xact := pg_current_xact_id();\nfor i in 1 ..")],
    },
    Sabotage {
        name: "no look is made for latecomers",
        seed: 10,
        function: "promising_lanes",
        edits: &[(" or pgqueue.has_latecomers(s, c)", "")],
    },
    Sabotage {
        name: "no look is made for retries",
        seed: 3,
        function: "promising_lanes",
        edits: &[("then l.ready_at is not null", "then false")],
    },
    Sabotage {
        name: "no look takes an empty lane on",
        seed: 6,
        function: "promising_lanes",
        edits: &[("c.lane < 0 or c.moved_at < v_now - interval '1 second'", "c.lane < 0")],
    },
    Sabotage {
        name: "seen is of a later statement",
        seed: 5,
        function: "look",
        edits: &[
            ("           pg_current_snapshot()\n", "           null::pg_snapshot\n"),
            ("exit when", "select pg_current_snapshot() into v_seen;\nexit when"),
        ],
    },
    Sabotage {
        name: "seen is of an earlier statement",
        seed: 1,
        function: "look",
        edits: &[
            ("loop\n", "loop\nselect pg_current_snapshot() into v_seen;\n"),
            ("           pg_current_snapshot()\n", "           v_seen\n"),
        ],
    },
    Sabotage {
        name: "latecomers beyond the limit are forgotten",
        seed: 23,
        function: "look",
        edits: &[("if cardinality(v_late) > v_most then", "v_late := v_late[1:v_most];\nif false then")],
    },
    Sabotage {
        name: "a look passes what it did not examine",
        seed: 1,
        function: "last_id",
        edits: &[("and id <= v_end ", "")],
    },
    Sabotage {
        name: "a lane goes on before its first is settled",
        seed: 0,
        function: "claim",
        edits: &[("if l.rank <= c.top or", "if false and")],
    },
    Sabotage {
        name: "anybody may settle",
        seed: 1,
        function: "settle",
        edits: &[
            ("h.id = d.id and h.token = d.token", "h.id = d.id"),
            ("where id = a.lease and token = a.token", "where id = a.lease"),
        ],
    },
    Sabotage {
        name: "an answer to several ends the first",
        seed: 3,
        function: "settle",
        edits: &[("greatest(u.last, u.id)", "u.id")],
    },
    Sabotage {
        name: "trimming forgets the leases",
        seed: 14,
        function: "trim",
        edits: &[("where subscription = s.id and not kept", "where subscription = s.id and false")],
    },
    Sabotage {
        name: "latecomers come to whoever selects others",
        seed: 0,
        function: "late_ids",
        edits: &[(
            "and pgqueue.selects(s.key, s.kinds, s.tags_any, s.tags_all, v_conditions, l.key, l.kind, l.tags, l.payload)",
            "",
        )],
    },
    Sabotage {
        name: "a look of a part passes its last",
        seed: 10,
        function: "fresh_ids",
        edits: &[("id > v_after and id <= v_end", "id > v_after and id < v_end"); 2],
    },
    Sabotage {
        name: "trimming begins behind what came late",
        seed: 17,
        function: "beginnings",
        edits: &[("pgqueue.late_ids(s, null, c, 0)", "'{}'::bigint[]")],
    },
    Sabotage {
        name: "trimming forgets the latecomers",
        seed: 3,
        function: "trim",
        edits: &[("(xact < v_xmin or", "(true or")],
    },
    Sabotage {
        name: "trimming leaves stretches without a beginning",
        seed: 56,
        function: "trim",
        edits: &[("where last < stretch_end", "where false")],
    },
    Sabotage {
        name: "the rest of a stretch of latecomers is forgotten",
        seed: 34,
        function: "late_ids",
        edits: &[("pgqueue.stretch_start(s.topic, u.xact, c.late_after)", "c.late_after")],
    },
    Sabotage {
        name: "the rest of a stretch in stable total order is forgotten",
        seed: 4,
        function: "stable_log",
        edits: &[("pgqueue.stretch_start(v_topic, v_upto, v_top)", "v_top")],
    },
];
