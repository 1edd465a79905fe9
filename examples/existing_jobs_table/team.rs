//! [`Team`]: who has the table, and puts jobs into it.

use anyhow::{Context, anyhow};
use pgqueue_postgres::{Client, PgTables, Row};

/// The team, with its database.
pub(crate) struct Team<'a, C: Client> {
    pub(crate) tables: &'a PgTables<C>,
    /// Where its table is.
    pub(crate) schema: String,
}

/// The table as it has always been, with a trigger of the team's own that says when there is a job.
const TABLE: &str = "
    create schema SCHEMA;
    set search_path = SCHEMA;
    create type job_status as enum ('not_started', 'running', 'failed', 'timed_out', 'succeeded', 'retry');
    create table send_mail_jobs (
      id uuid primary key default gen_random_uuid(),
      created_at timestamptz not null default clock_timestamp(),
      updated_at timestamptz not null default now(),
      status job_status not null default 'not_started',
      last_error text,
      attempts_count int not null default 0,
      locked_at timestamptz,
      locked_by uuid,
      run_at timestamptz not null default now(),
      recipient text not null
    );
    create index on send_mail_jobs (created_at, run_at) where status in ('not_started', 'retry') and locked_by is null;
    create index on send_mail_jobs (run_at) where status in ('not_started', 'retry') and locked_by is null;
    create index on send_mail_jobs (locked_at) where status = 'running';
    create function job_available() returns trigger language plpgsql
      as $$ begin perform pg_notify('job_available_SCHEMA', ''); return new; end $$;
    create trigger job_available after insert or update on send_mail_jobs
      for each row when (new.status in ('not_started', 'retry')) execute function job_available();
    insert into send_mail_jobs (recipient) values ('Ada'), ('Barbara'), ('Edsger'), ('Mallory'), ('Zeno');
    reset search_path;
";

impl<C: Client> Team<'_, C> {
    pub(crate) async fn create_table(&self) -> anyhow::Result<()> {
        self.run(TABLE).await
    }

    pub(crate) async fn drop_schema(&self) -> anyhow::Result<()> {
        self.run("drop schema SCHEMA cascade").await
    }

    /// The channel of its trigger.
    pub(crate) fn channel(&self) -> String {
        format!("job_available_{}", self.schema)
    }

    /// Puts more jobs into the table while it is worked on, one of them for later.
    pub(crate) async fn insert_more(&self) -> anyhow::Result<()> {
        let insert = "insert into SCHEMA.send_mail_jobs (recipient, run_at)
            values ('Grace', now()), ('Niklaus', now()), ('Tony', now() + interval '2 s')";
        self.run(insert).await
    }

    /// How many jobs are not over.
    pub(crate) async fn unfinished(&self) -> anyhow::Result<usize> {
        let query = "select from SCHEMA.send_mail_jobs where status in ('not_started', 'running', 'retry')";
        Ok(self.query(query).await?.len())
    }

    /// What became of each job: recipient, status, attempts, last error.
    pub(crate) async fn final_states(&self) -> anyhow::Result<Vec<[String; 4]>> {
        let query = "select recipient, status::text, attempts_count::text, coalesce(last_error, '')
            from SCHEMA.send_mail_jobs order by recipient";
        let read = |row: &C::Row| {
            let mut texts = [const { String::new() }; 4];
            for (index, text) in texts.iter_mut().enumerate() {
                let bytes = row.column(index).context("a column that is not null")?;
                *text = str::from_utf8(bytes)?.to_owned();
            }
            Ok(texts)
        };
        self.query(query).await?.iter().map(read).collect()
    }

    async fn run(&self, script: &str) -> anyhow::Result<()> {
        let script = script.replace("SCHEMA", &self.schema);
        self.tables.client().run_script(&script).await.map_err(|error| anyhow!("{error:?}"))
    }

    async fn query(&self, query: &str) -> anyhow::Result<Vec<C::Row>> {
        let query = query.replace("SCHEMA", &self.schema);
        self.tables.client().query(&query, &[]).await.map_err(|error| anyhow!("{error:?}"))
    }
}
