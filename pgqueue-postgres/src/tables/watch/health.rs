//! [`TriggerHealth`]: what there is of the triggers of a watch.

use pgqueue_core::{Error, ErrorKind, Operation, Result};

use super::{BODY, FUNCTION, TableWatch};
use crate::{
    Client, Parameter, PgTables,
    error::{About, repeatable, within},
    tables::TIME_LIMIT,
    value::RowExt,
};

const HEALTH: &str = include_str!("../../../sql/watch/health.sql");

/// What there is of the triggers of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // so that fields can be added
pub struct TriggerHealth {
    /// The function `pgqueue_notify` in the table's schema.
    pub function: TriggerState,
    /// The trigger after `INSERT`.
    pub insert: TriggerState,
    /// The trigger after `UPDATE`.
    pub update: TriggerState,
}

/// What there is of one trigger, or of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // more can be amiss
pub enum TriggerState {
    /// As it should be.
    Healthy,
    /// There is none of that name.
    Missing,
    /// It does not fire: `DISABLE TRIGGER` or `ENABLE REPLICA TRIGGER` was said of it, or of its copy in a partition.
    Disabled,
    /// Of that name, but not what the watch would create: another function, or a body that somebody replaced; other events,
    /// another condition or channel.
    Foreign,
}

impl TriggerHealth {
    /// Whether both triggers fire and do what they should.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        [self.insert, self.update].iter().all(|trigger| *trigger == TriggerState::Healthy)
    }
}

/// A watched table as it is, and the health of its watch.
pub(super) struct Found {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) health: TriggerHealth,
}

impl<C: Client> PgTables<C> {
    /// Looks whether the triggers of a watch are there, fire, and do what they should. Takes no lock on the table, and waits
    /// for nobody.
    ///
    /// A trigger's condition is recognised by the mark among its arguments, which nothing changes but creating it anew.
    ///
    /// # Errors
    /// [`Fatal`](ErrorKind::Fatal) if there is no such table, or if it is a view or the like, which cannot be watched;
    /// [`Invalid`](ErrorKind::Invalid) for a name that cannot be one. Each names the table.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn triggers_healthy(&self, watch: &TableWatch) -> Result<TriggerHealth> {
        let found = self.find(watch).await.map_err(|error| error.during(Operation::Manage))?;
        Ok(found.health)
    }

    pub(super) async fn find(&self, watch: &TableWatch) -> Result<Found> {
        watch.validate()?;
        let name = watch.table.to_string();
        let [insert, update] = watch.trigger_names();
        let parameters = [
            Parameter::from(&*name),
            Parameter::from(FUNCTION),
            Parameter::from(BODY),
            Parameter::from(&*watch.channel),
            Parameter::from(watch.mark()),
            Parameter::from(insert),
            Parameter::from(update),
        ];
        let asked = async {
            let rows = self.client().query(HEALTH, &parameters).await;
            rows.map_err(|error| repeatable(error, About::Table(&name)))
        };
        let rows = within(TIME_LIMIT, asked).await?;
        let [insert, update] = &rows[..] else {
            let remedy = "create it, or name its schema if the search path does not lead to it";
            return Err(Error::new(ErrorKind::Fatal, format!("there is no table {name} to watch; {remedy}")));
        };
        if !insert.get::<bool>(3)? {
            let remedy = "watch the table that its rows come from";
            let message = format!("{name} is a view or the like, which has no triggers of its own; {remedy}");
            return Err(Error::new(ErrorKind::Fatal, message));
        }
        let health = TriggerHealth {
            function: state(&insert.get::<String>(4)?)?,
            insert: state(&insert.get::<String>(5)?)?,
            update: state(&update.get::<String>(5)?)?,
        };
        Ok(Found { oid: insert.get(0)?, schema: insert.get(1)?, table: insert.get(2)?, health })
    }
}

/// Reads what `health.sql` says.
fn state(said: &str) -> Result<TriggerState> {
    Ok(match said {
        "healthy" => TriggerState::Healthy,
        "missing" => TriggerState::Missing,
        "disabled" => TriggerState::Disabled,
        "foreign" => TriggerState::Foreign,
        _ => return Err(Error::new(ErrorKind::Fatal, format!("{said:?} is no state of a trigger"))),
    })
}
