//! Installing the triggers of a watch, and repairing them.

use pgqueue_core::{Error, ErrorKind, Operation, Result};
use serde_json::json;

use super::{BODY, FUNCTION, TableWatch, TriggerHealth, TriggerState, Watched, WhyPolling, health::Found};
use crate::{
    Client, ClientError, PgTables,
    error::{About, repeatable, timed_out},
    ident::literal,
    tables::TIME_LIMIT,
};

const INSTALL: &str = include_str!("../../../sql/watch/install.sql");

/// How often it is tried when others did the same at the same moment: each time, one of them has come further.
const TRIES: u32 = 3;

/// What `install.sql` says if another session is at it, or was.
const ANOTHER_INSTALLS: &str = "PQW01";

impl<C: Client> PgTables<C> {
    /// Installs what is missing of a watch, and enables what is disabled.
    ///
    /// May be called at any time, by any number of processes at once: where all is there it only looks. What is there is
    /// never dropped or replaced. It never queues for the table's lock, behind which writers would have to queue in turn:
    /// if others hold it, that is [`Watched::Polling`]. What it does takes one statement, during which writers
    /// of the table wait, for milliseconds and never longer than the
    /// [lock timeout](TableWatch::with_lock_timeout). Readers, a dump among them, neither wait nor keep it waiting.
    ///
    /// That something is in the way is logged as a warning, once until it changes.
    ///
    /// # Errors
    /// [`Fatal`](ErrorKind::Fatal) if there is no such table, or if it is a view or the like, which cannot be watched;
    /// [`Invalid`](ErrorKind::Invalid) for a condition that the server refuses, and for a name that cannot be one. Each names
    /// the table.
    ///
    /// # Cancel safety
    /// Dropping the future leaves all of it installed, or nothing.
    pub async fn watch_table(&self, watch: &TableWatch) -> Result<Watched> {
        let (watched, _) = self.install(watch).await.map_err(|error| error.during(Operation::Manage))?;
        Ok(watched)
    }

    /// Repairs a watch as [`watch_table`](Self::watch_table) does, unless [`with_repair`](TableWatch::with_repair) says
    /// otherwise, and returns how it is then. Whoever waits for the table's rows calls it with each poll.
    ///
    /// # Errors
    /// As [`watch_table`](Self::watch_table).
    ///
    /// # Cancel safety
    /// As [`watch_table`](Self::watch_table).
    pub async fn ensure_triggers(&self, watch: &TableWatch) -> Result<TriggerHealth> {
        if !watch.repair {
            return self.triggers_healthy(watch).await;
        }
        let (_, health) = self.install(watch).await.map_err(|error| error.during(Operation::Manage))?;
        Ok(health)
    }

    async fn install(&self, watch: &TableWatch) -> Result<(Watched, TriggerHealth)> {
        let mut found = self.find(watch).await?;
        let mut installed = false;
        let mut hindered = None;
        for _ in 0..TRIES {
            let Some(script) = script(watch, &found) else { break };
            let tried = self.run(watch, &script).await?;
            found = self.find(watch).await?; // whoever was in the way may have installed it
            match tried {
                Tried::Installed => (installed, hindered) = (true, None),
                Tried::Raced(message) => hindered = Some((WhyPolling::Installing, message)),
                Tried::Hindered(why, message) => {
                    hindered = Some((why, message));
                    break;
                }
            }
        }
        let (table, channel, health) = (&watch.table, &watch.channel, found.health);
        if installed {
            tracing::info!(messaging.system = "pgqueue", %table, channel, "triggers of a table were installed");
        }
        if health.is_healthy() {
            watch.is_news(None);
            return Ok((if installed { Watched::Installed } else { Watched::AlreadyThere }, health));
        }
        let (why, server) = hindered.map_or((WhyPolling::Foreign, None), |(why, message)| (why, Some(message)));
        if watch.is_news(Some(why)) {
            tracing::warn!(
                messaging.system = "pgqueue", %table, channel, %why, server, ?health, triggers = ?watch.trigger_names(),
                "the triggers of a table are not all there, and it is polled"
            );
        }
        Ok((Watched::Polling { why }, health))
    }

    async fn run(&self, watch: &TableWatch, script: &str) -> Result<Tried> {
        let limit = TIME_LIMIT + watch.lock_timeout;
        let Ok(answer) = tokio::time::timeout(limit, self.client().run_script(script)).await else {
            return Err(timed_out(limit));
        };
        match answer {
            Ok(()) => Ok(Tried::Installed),
            Err(ClientError::Refused { code, message, source }) => match (obstacle(&code), &watch.condition) {
                (Some(Obstacle::Race), _) => Ok(Tried::Raced(message)),
                (Some(Obstacle::Why(why)), _) => Ok(Tried::Hindered(why, message)),
                (None, Some(_)) if is_of_the_condition(&code) => {
                    let message =
                        format!("the condition of the watch of table {} cannot be used: {message}", watch.table);
                    Err(Error::new(ErrorKind::Invalid, message).with_source(source))
                }
                (None, _) => {
                    let refused = ClientError::Refused { code, message, source };
                    Err(repeatable(refused, About::Table(&watch.table.to_string())))
                }
            },
            Err(error) => Err(repeatable(error, About::Table(&watch.table.to_string()))),
        }
    }
}

/// What became of one try.
enum Tried {
    Installed,
    /// Others did the same at the same moment.
    Raced(String),
    Hindered(WhyPolling, String),
}

/// Writes what installs what is missing and enables what is disabled; `None` if there is nothing of either.
fn script(watch: &TableWatch, found: &Found) -> Option<String> {
    let TriggerHealth { function, insert, update } = found.health;
    let [insert_name, update_name] = watch.trigger_names();
    let triggers: Vec<_> = [(insert, insert_name, "insert"), (update, update_name, "update")]
        .into_iter()
        .filter(|(state, ..)| match state {
            TriggerState::Missing => function != TriggerState::Foreign,
            TriggerState::Disabled => true,
            TriggerState::Healthy | TriggerState::Foreign => false,
        })
        .map(|(state, name, event)| json!({ "name": name, "event": event, "create": state == TriggerState::Missing }))
        .collect();
    if triggers.is_empty() {
        return None;
    }
    let what = json!({
        "oid": found.oid,
        "schema": found.schema,
        "table": found.table,
        "function": FUNCTION,
        "body": BODY,
        "create_function": function == TriggerState::Missing,
        "channel": watch.channel,
        "condition": watch.condition,
        "mark": watch.mark(),
        "triggers": triggers,
    });
    let millis = watch.lock_timeout.as_millis();
    // Its commit need not wait for the disk, with writers waiting for it: no row survives a crash that the triggers did not
    // survive, as the write-ahead log is one line.
    Some(format!(
        "set local lock_timeout = {millis};\n\
         set local statement_timeout = {millis};\n\
         set local synchronous_commit = off;\n\
         select pg_catalog.set_config('pgqueue.watch', {}, true);\n{INSTALL}",
        literal(&what.to_string())
    ))
}

/// What is no mistake of anybody's.
enum Obstacle {
    Race,
    Why(WhyPolling),
}

/// Reads SQLSTATE (PostgreSQL documentation, appendix A).
fn obstacle(code: &str) -> Option<Obstacle> {
    Some(match code {
        // A duplicate function, object or key; a catalogue entry that is being changed.
        "42723" | "42710" | "23505" | "XX000" => Obstacle::Race,
        ANOTHER_INSTALLS => Obstacle::Why(WhyPolling::Installing),
        "42501" => Obstacle::Why(WhyPolling::MissingPrivilege),
        // No lock, or too late; a deadlock.
        "55P03" | "57014" | "40P01" => Obstacle::Why(WhyPolling::Locked),
        _ => return None,
    })
}

/// Whether it is the condition that the server refuses: syntax, names and types, literals, and what no trigger may ask.
fn is_of_the_condition(code: &str) -> bool {
    let is_of_the_table = matches!(code, "42P01" | "3F000" | "42809");
    !is_of_the_table && ["42", "22", "0A"].iter().any(|class| code.starts_with(class))
}
