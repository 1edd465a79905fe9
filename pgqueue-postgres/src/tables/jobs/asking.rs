//! What a [`Consumer`] asks the server.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use pgqueue_core::{Error, ErrorKind, Message, MessageId, NewMessage, Position, Result, telemetry};

use super::{
    acker::JobAcker,
    consumer::{Consumer, Phase},
    held::Claim,
    shape::{DESCRIBE, LockedBy, Shape},
    sql::{RECOVERED_AT_ONCE, Sql},
    verdict::Verdict,
};
use crate::{
    Client, ClientError, Parameter,
    error::{About, repeatable, within},
    tables::{TIME_LIMIT, waking::Waiting},
    value::{CENTURY, RowExt, millis},
};

/// How long the server may take for an answer is a third of the lease, within this and the time limit of all statements.
const SHORTEST_CALL: Duration = Duration::from_secs(1);

/// After how long to look again for what is overdue and cannot be had, as somebody else has it locked: the longer it is overdue
/// the later, within these.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The table as the server has it.
pub(super) struct Found {
    /// The type of ids.
    id: u32,
    locked_by: LockedBy,
    sql: Sql,
}

impl<C: Client> Consumer<C> {
    /// Asks the server, within a time limit. What was said of the table is forgotten when it refuses: it may be another by now.
    async fn query(&self, statement: &str, parameters: &[Parameter]) -> Result<Vec<C::Row>> {
        let limit = (self.table.lease / 3).clamp(SHORTEST_CALL, TIME_LIMIT);
        let answer = within(limit, async {
            self.shared.client.query(statement, parameters).await.map_err(|error| {
                if matches!(error, ClientError::Refused { .. }) {
                    self.lock().found = None;
                }
                repeatable(error, About::Table(&self.name))
            })
        });
        answer.await
    }

    /// Looks the table up, whatever is known of it.
    pub(super) async fn look_up(&self) -> Result<()> {
        self.table.validate()?;
        self.lock().found = None;
        self.find().await.map(drop)
    }

    /// Looks the table up, unless that was done.
    async fn find(&self) -> Result<Arc<Found>> {
        if let Some(found) = self.lock().found.clone() {
            return Ok(found);
        }
        let rows = self.query(DESCRIBE, &[Parameter::new(&*self.name)]).await?;
        let shape = Shape::read(&self.table, &rows)?;
        let found = Found { id: shape.id, locked_by: shape.locked_by, sql: Sql::new(&self.table, &shape) };
        let found = Arc::new(found);
        self.lock().found = Some(Arc::clone(&found));
        Ok(found)
    }

    fn owner(&self, found: &Found) -> Parameter {
        match found.locked_by {
            LockedBy::Uuid => Parameter::new(self.owner),
            LockedBy::Text => Parameter::new(self.owner.to_string()),
        }
    }

    /// The consumer, and claims as two arrays.
    fn claims<'a>(&self, found: &Found, claims: impl Iterator<Item = &'a Claim> + Clone) -> Result<[Parameter; 3]> {
        let ids: Vec<_> = claims.clone().map(|claim| claim.id.clone()).collect();
        let too_many = || Error::new(ErrorKind::Invalid, "more jobs than one statement can carry");
        let ids = Parameter::array_of(found.id, &ids).ok_or_else(too_many)?;
        Ok([self.owner(found), ids, Parameter::array(claims.map(|claim| Some(claim.attempt)))?])
    }

    /// Claims the next job.
    pub(super) async fn claim(self: &Arc<Self>) -> Result<Option<(Message, JobAcker<C>)>> {
        let claimed = async {
            let found = self.find().await?;
            self.query(&found.sql.claim, &[self.owner(&found)]).await
        };
        let rows = match claimed.await {
            Ok(rows) => rows,
            Err(error) if error.is_transient() => return Err(error),
            // A look at the table itself says more, unless it is as it should be.
            Err(error) => match self.find().await {
                Ok(_) => return Err(error),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    tracing::warn!(%error, "there are no jobs as there is no table, until the next look");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
        };
        let Some(row) = rows.first() else { return Ok(None) };
        let claim = Claim::read(row, 0, 2)?;
        let message = self.message(row, claim.attempt)?;
        let mut state = self.lock();
        if state.phase == Phase::Over {
            return Ok(None); // died meanwhile
        }
        let lost = state.held.push(claim.clone());
        drop(state);
        Ok(Some((message, JobAcker::new(Arc::clone(self), claim, lost))))
    }

    /// Reads the message of a claim.
    fn message(&self, row: &C::Row, attempt: i64) -> Result<Message> {
        let mut content = NewMessage::new(row.read::<Bytes>(6)?.unwrap_or_default());
        if let Some(key) = row.read::<String>(4)? {
            content = content.with_key(key);
        }
        if let Some(kind) = row.read::<String>(5)? {
            content = content.with_kind(kind);
        }
        let id: String = row.get(1)?;
        let message =
            Message::new(MessageId::new(&*id), Position::new(id), Arc::clone(&self.topic), content, row.get(3)?);
        Ok(message.with_attempt(u32::try_from(attempt).unwrap_or(u32::MAX)))
    }

    /// Makes answers durable, and lets go of the jobs. Returns how many of these were still this consumer's.
    pub(super) async fn settle(&self, answers: &[(Claim, Verdict)]) -> Result<usize> {
        let found = self.find().await?;
        let [owner, ids, attempts] = self.claims(&found, answers.iter().map(|(claim, _)| claim))?;
        let verdicts = answers.iter().map(|(_, verdict)| verdict);
        let parameters = [
            owner,
            ids,
            attempts,
            Parameter::array(verdicts.clone().map(|verdict| Some(verdict.name())))?,
            Parameter::array(verdicts.clone().map(|verdict| verdict.delay().map(millis)))?,
            Parameter::array(verdicts.clone().map(Verdict::reason))?,
        ];
        let settled = self.query(&found.sql.settle, &parameters).await?;
        self.say_given_up(&settled)?;
        {
            let mut state = self.lock();
            answers.iter().for_each(|(claim, _)| state.held.remove(claim));
        }
        self.to_do.notify_one(); // the consumer may be about to end
        if verdicts.clone().any(Verdict::comes_again) {
            self.changed.send_replace(());
        }
        Ok(settled.len())
    }

    /// Notes which of these jobs, each with whether it was, were given up.
    fn say_given_up(&self, jobs: &[C::Row]) -> Result<()> {
        for job in jobs {
            if job.get(1)? {
                telemetry::given_up(&self.topic, &self.topic, &MessageId::new(job.get::<String>(0)?));
            }
        }
        Ok(())
    }

    /// Makes durable what was left to the consumer's task.
    pub(super) async fn settle_left(&self) -> Result<()> {
        let answers = self.lock().held.answers();
        if answers.is_empty() {
            return Ok(());
        }
        match self.settle(&answers).await {
            Err(error) if !error.is_transient() => {}
            settled => return settled.map(drop),
        }
        // One of them is refused, perhaps by a constraint of the table's: the others are not.
        for answer in &answers {
            match self.settle(std::slice::from_ref(answer)).await {
                Err(error) if !error.is_transient() => {
                    let verdict = answer.1.name();
                    tracing::warn!(%error, verdict, "an answer is refused, and its job comes again when its lease ends");
                    self.lock().held.remove(&answer.0);
                }
                settled => drop(settled?),
            }
        }
        Ok(())
    }

    /// Says of all jobs in hand that their consumer lives, and hears which are not its own any more.
    pub(super) async fn renew(&self) -> Result<()> {
        let claims = self.lock().held.claims();
        if claims.is_empty() {
            return Ok(());
        }
        let found = match self.find().await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut state = self.lock();
                claims.iter().for_each(|claim| state.held.lost(claim)); // they went with their table
                return Ok(());
            }
            found => found?,
        };
        let rows = self.query(&found.sql.renew, &self.claims(&found, claims.iter())?).await?;
        let ours = rows.iter().map(|row| Claim::read(row, 0, 1)).collect::<Result<Vec<_>>>()?;
        let mut state = self.lock();
        claims.iter().filter(|claim| !ours.contains(claim)).for_each(|claim| state.held.lost(claim));
        Ok(())
    }

    /// Takes jobs from consumers that are silent.
    pub(super) async fn recover(&self) -> Result<()> {
        let parameters = [
            Parameter::new(millis(self.table.lease)),
            Parameter::new(i64::from(self.table.backoff.max_attempts())),
            Parameter::new(millis(self.table.give_up_after)),
        ];
        loop {
            let found = self.find().await?;
            let rows = self.query(&found.sql.recover, &parameters).await?;
            if rows.is_empty() {
                return Ok(());
            }
            tracing::warn!(table = self.name, jobs = rows.len(), "jobs were taken from consumers that are silent");
            self.say_given_up(&rows)?;
            self.changed.send_replace(());
            if rows.len() < RECOVERED_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Gives back what the server has given to this consumer without its knowledge, as the answer was lost.
    pub(super) async fn give_back(&self) -> Result<()> {
        let found = self.find().await?;
        let claims = self.lock().held.claims();
        let rows = self.query(&found.sql.give_back, &self.claims(&found, claims.iter())?).await?;
        if !rows.is_empty() {
            self.changed.send_replace(());
        }
        Ok(())
    }
}

#[async_trait]
impl<C: Client> Waiting for Consumer<C> {
    async fn due_in(&self) -> Result<Option<Duration>> {
        let found = self.find().await?;
        let rows = self.query(&found.sql.due_in, &[]).await?;
        let Some(millis) = rows.first().map(|row| row.get::<f64>(0)).transpose()? else { return Ok(None) };
        let pause = Duration::try_from_secs_f64(millis.abs() / 1000.0).unwrap_or(CENTURY).min(CENTURY);
        Ok(Some(if millis < 0.0 { pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE) } else { pause }))
    }
}
