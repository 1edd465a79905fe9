//! [`Sql`]: the statements over one job table, made once from quoted names.

use super::{
    shape::{Payload, Shape, Time},
    table::JobTable,
};
use crate::ident::{literal, quoted};

/// How many jobs without a living consumer are recovered at once.
pub(super) const RECOVERED_AT_ONCE: usize = 100;

/// The statements. Labels are written into them, not bound: a plan that does not know them cannot use a partial index.
#[derive(Debug)]
pub(super) struct Sql {
    /// Takes the next job that is due. `$1` is the consumer.
    pub(super) claim: String,
    /// Says how long it is until the next job is due, in milliseconds; less than 0 if it is overdue.
    pub(super) due_in: String,
    /// Ends claims that are still this consumer's, `$1`, and returns each, and whether it was given up: `$2` ids, `$3` attempts, `$4`
    /// verdicts, `$5` delays in milliseconds, `$6` reasons.
    pub(super) settle: String,
    /// Renews claims that are still this consumer's, `$1`, and returns them: `$2` ids, `$3` attempts.
    pub(super) renew: String,
    /// Takes jobs from consumers that were silent for `$1` ms; gives up those whose attempts reached `$2`, and those whose consumer
    /// was silent for `$3` ms. Returns each, and whether it was given up.
    pub(super) recover: String,
    /// Gives back what is this consumer's, `$1`, and not among `$2` ids, `$3` attempts, as if it had not been claimed.
    pub(super) give_back: String,
}

/// What a job's own row is called, so that no column is meant.
const JOB: &str = "pgqueue_job";

/// The names as SQL.
struct Names {
    table: String,
    id: String,
    status: String,
    /// The type of the status.
    label: String,
    attempts: String,
    locked_at: String,
    locked_by: String,
    run_at: String,
    last_error: String,
    created_at: String,
    is_waiting: String,
    is_running: String,
    /// What else is set with every change.
    touch: String,
}

impl Sql {
    pub(super) fn new(table: &JobTable, shape: &Shape) -> Self {
        let names = Names::new(table, shape);
        Self {
            claim: names.claim(table, shape),
            due_in: names.due_in(shape),
            settle: names.settle(table, shape),
            renew: names.renew(shape),
            recover: names.recover(table, shape),
            give_back: names.give_back(table),
        }
    }
}

impl Names {
    fn new(table: &JobTable, shape: &Shape) -> Self {
        let columns = &table.columns;
        let own = |name: &str| format!("{JOB}.{}", quoted(name));
        let [waiting, retry, running] =
            [&table.labels.not_started, &table.labels.retry, &table.labels.running].map(|label| literal(label));
        // An operator for enums does not know a domain over one.
        let status = format!("{}::{}", own(&columns.status), shape.status);
        let locked_by = own(&columns.locked_by);
        let touch =
            shape.updated_at.as_ref().map(|(name, time)| format!(", {} = {}", quoted(name), time.write("now()")));
        Self {
            table: format!("{} as {JOB}", table.table),
            id: own(&columns.id),
            is_waiting: format!("{status} in ({waiting}, {retry}) and {locked_by} is null"),
            is_running: format!("{status} = {running}"),
            label: shape.status.clone(),
            status: quoted(&columns.status),
            attempts: quoted(&columns.attempts),
            locked_at: quoted(&columns.locked_at),
            locked_by: quoted(&columns.locked_by),
            run_at: quoted(&columns.run_at),
            last_error: quoted(&columns.last_error),
            created_at: quoted(&columns.created_at),
            touch: touch.unwrap_or_default(),
        }
    }

    fn label(&self, label: &str) -> String {
        format!("{}::{}", literal(label), self.label)
    }

    /// A claim of this consumer's, which nobody else can have: whoever takes the job counts its attempts on.
    fn is_claim(&self, of: &str) -> String {
        let Self { id, attempts, locked_by, is_running, .. } = self;
        format!("{id} = {of}.id and {JOB}.{attempts} = {of}.attempt and {JOB}.{locked_by} = $1 and {is_running}")
    }

    /// The lock is taken by a query that is not merged with the update: the update would else choose its own way through the table,
    /// and lock what is then thrown away.
    fn claim(&self, table: &JobTable, shape: &Shape) -> String {
        let Self {
            table: from, id, status, attempts, locked_at, locked_by, run_at, created_at, is_waiting, touch, ..
        } = self;
        let running = literal(&table.labels.running);
        let due = shape.run_at.write("now()");
        let locked = shape.locked_at.write("clock_timestamp()"); // a claim may have waited for a lock on the table
        let published_at = shape.created_at.read(&format!("{JOB}.{created_at}"));
        let text = |column: &Option<String>| {
            column.as_ref().map_or("null::text".to_owned(), |name| format!("nullif({JOB}.{}::text, '')", quoted(name)))
        };
        let (key, kind) = (text(&table.columns.key), text(&table.columns.kind));
        let payload = match &shape.payload {
            Payload::Row => format!("to_jsonb({JOB}.*)::text"),
            Payload::Plain(name) => format!("{JOB}.{}", quoted(name)),
            Payload::Json(name) => format!("coalesce({JOB}.{}::text, 'null')", quoted(name)),
            Payload::ToJson(name) => format!("coalesce(to_jsonb({JOB}.{})::text, 'null')", quoted(name)),
        };
        format!(
            "with due as materialized (\
             select {id} as id from {from} where {is_waiting} and {JOB}.{run_at} <= {due} \
             order by {JOB}.{created_at} limit 1 for update of {JOB} skip locked) \
             update {from} set {status} = {running}, {locked_by} = $1, {locked_at} = {locked}, {attempts} = coalesce({JOB}.{attempts}, 0) + 1{touch} \
             from due where {id} = due.id \
             returning {id}, {id}::text, {JOB}.{attempts}::int8, coalesce({published_at}, now()), {key}, {kind}, {payload}"
        )
    }

    fn due_in(&self, shape: &Shape) -> String {
        let Self { table, run_at, is_waiting, .. } = self;
        let next = shape.run_at.read(&format!("min({JOB}.{run_at})"));
        // What has infinity for its time is never due, or always.
        format!(
            "select (extract(epoch from greatest(next, now() - interval '1 hour') - now()) * 1000)::float8 \
             from (select {next} as next from {table} where {is_waiting}) waiting where next < 'infinity'"
        )
    }

    fn settle(&self, table: &JobTable, shape: &Shape) -> String {
        let Self { table: from, id, status, attempts, locked_at, locked_by, run_at, last_error, touch, .. } = self;
        let [retry, succeeded, failed, timed_out] =
            [&table.labels.retry, &table.labels.succeeded, &table.labels.failed, &table.labels.timed_out]
                .map(|label| self.label(label));
        let is_claim = self.is_claim("answer");
        let reason = match shape.last_error_chars {
            Some(chars) => format!("left(answer.reason, {chars})"),
            None => "answer.reason".to_owned(),
        };
        let due = shape.run_at.write("now() + answer.delay * interval '1 millisecond'");
        format!(
            "update {from} set \
             {status} = case answer.verdict when 'succeeded' then {succeeded} when 'failed' then {failed} \
             when 'timed_out' then {timed_out} else {retry} end, \
             {last_error} = case answer.verdict when 'succeeded' then null else coalesce({reason}, {JOB}.{last_error}) end, \
             {run_at} = case when answer.delay is null then {JOB}.{run_at} else {due} end, \
             {attempts} = {JOB}.{attempts} - (answer.verdict = 'given back')::int, \
             {locked_by} = null, {locked_at} = null{touch} \
             from unnest($2, $3, $4, $5, $6) as answer (id, attempt, verdict, delay, reason) \
             where {is_claim} returning {id}::text, answer.verdict in ('failed', 'timed_out')"
        )
    }

    /// Rows that somebody else has locked are not waited for: while one is locked nobody can take its job.
    fn renew(&self, shape: &Shape) -> String {
        let Self { table, id, locked_at, .. } = self;
        let is_claim = self.is_claim("claim");
        let now = shape.locked_at.write("clock_timestamp()");
        format!(
            "with claim as materialized (select * from unnest($2, $3) as claim (id, attempt)), \
             free as materialized (\
             select {id} as id from {table} join claim on {is_claim} for update of {JOB} skip locked), \
             renewed as (update {table} set {locked_at} = {now} from free where {id} = free.id) \
             select claim.id, claim.attempt from claim where exists (select from {table} where {is_claim})"
        )
    }

    fn recover(&self, table: &JobTable, shape: &Shape) -> String {
        let Self {
            table: from, id, status, attempts, locked_at, locked_by, run_at, last_error, is_running, touch, ..
        } = self;
        let [retry, failed] = [&table.labels.retry, &table.labels.failed].map(|label| self.label(label));
        let silent = |ms: &str| {
            let since = shape.locked_at.write(&format!("now() - {ms} * interval '1 millisecond'"));
            format!("{JOB}.{locked_at} < {since}")
        };
        let (stale, given_up) = (silent("$1::int8"), silent("$3::int8"));
        let now = shape.run_at.write("now()");
        let reason = literal("stale job: its worker probably crashed");
        let reason = match shape.last_error_chars {
            Some(chars) => format!("left({reason}, {chars})"),
            None => reason,
        };
        format!(
            "with stale as materialized (\
             select {id} as id, {given_up} or {JOB}.{attempts} >= $2::int8 as is_over from {from} \
             where {is_running} and {stale} \
             order by {JOB}.{locked_at} limit {RECOVERED_AT_ONCE} for update of {JOB} skip locked) \
             update {from} set \
             {status} = case when stale.is_over then {failed} else {retry} end, \
             {last_error} = case when stale.is_over then {reason} else {JOB}.{last_error} end, \
             {run_at} = case when stale.is_over then {JOB}.{run_at} else {now} end, \
             {locked_by} = null, {locked_at} = null{touch} \
             from stale where {id} = stale.id returning {id}::text, stale.is_over"
        )
    }

    fn give_back(&self, table: &JobTable) -> String {
        let Self { table: from, id, status, attempts, locked_at, locked_by, is_running, touch, .. } = self;
        let retry = literal(&table.labels.retry);
        format!(
            "update {from} set \
             {status} = {retry}, {attempts} = {JOB}.{attempts} - 1, {locked_by} = null, {locked_at} = null{touch} \
             where {is_running} and {JOB}.{locked_by} = $1 \
             and not exists (select from unnest($2, $3) as claim (id, attempt) \
             where claim.id = {id} and claim.attempt = {JOB}.{attempts}) \
             returning true"
        )
    }
}

impl Time {
    /// An instant, as a column of this kind has it.
    fn write(self, instant: &str) -> String {
        match self {
            Self::WithZone => instant.to_owned(),
            Self::Utc => format!("(({instant}) at time zone 'UTC')"),
        }
    }

    /// A column of this kind, as an instant.
    fn read(self, column: &str) -> String {
        match self {
            Self::WithZone => column.to_owned(),
            Self::Utc => format!("({column} at time zone 'UTC')"),
        }
    }
}
