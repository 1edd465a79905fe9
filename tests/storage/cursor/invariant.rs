//! The invariant itself, as the tables say it, beside what was handed out.

use std::collections::{BTreeSet, HashMap};

use pgqueue_tests::OUTSIDE_OF_STRETCHES;

use crate::world::World;

/// The messages that are left in the log, each with whether the cursor of its lane says that it was handed out.
const PASSED: &str = "
    with newest as (
      select distinct on (c.subscription, c.lane) c.* from pgqueue.cursor c order by c.subscription, c.lane, c.n desc
    )
    select s.id, l.id,
           case when s.ordering = 'stable total'
             then (l.xact, l.id) <= (c.upto, c.top) and not coalesce(pg_visible_in_snapshot(l.xact, c.late_seen), false)
             else l.id <= c.top and (
               pg_visible_in_snapshot(l.xact, c.seen)
               -- Of more latecomers than fit, the first are out.
               or coalesce(l.id <= c.late_after and pg_visible_in_snapshot(l.xact, c.late_seen), false)
             )
           end
    from pgqueue.subscription s
    join newest c on c.subscription = s.id
    join pgqueue.log l on l.topic = s.topic and case s.ordering when 'by key' then l.bucket = c.lane else true end";

impl World<'_> {
    /// Every message is in a stretch, by which latecomers are found.
    pub(crate) async fn stretches_hold_every_message(&self) -> Result<(), String> {
        match self.control.ask(OUTSIDE_OF_STRETCHES).await?[0][0].as_deref() {
            Some("0") => Ok(()),
            astray => Err(format!("in no stretch or in several: {astray:?}")),
        }
    }

    /// Compares what the cursors say with what was handed out, while every call has ended or waits in the midst of its transaction.
    pub(crate) async fn cursors_say_what_was_handed_out(&self) -> Result<(), String> {
        let mut passed: HashMap<i64, BTreeSet<i64>> = HashMap::new();
        let mut left: HashMap<i64, BTreeSet<i64>> = HashMap::new();
        for row in self.control.ask(PASSED).await? {
            let read = |text: &Option<String>| text.as_deref().unwrap_or_default().parse::<i64>().unwrap_or_default();
            let (subscription, id) = (read(&row[0]), read(&row[1]));
            left.entry(subscription).or_default().insert(id);
            if row[2].as_deref() == Some("t") {
                passed.entry(subscription).or_default().insert(id);
            }
        }
        for subscription in &self.model.subscriptions {
            let (none, left) = (BTreeSet::new(), left.remove(&subscription.id).unwrap_or_default());
            let says = passed.get(&subscription.id).unwrap_or(&none);
            for id in left {
                let Some(payload) = self.model.by_id.get(&id) else { continue };
                if !subscription.selects.gets(*payload, &self.model.messages[*payload]) {
                    continue;
                }
                let (is_passed, is_out) = (says.contains(&id), subscription.states.contains_key(payload));
                if is_passed != is_out {
                    return Err(format!(
                        "{}: the cursor says {is_passed} of message {id}, and whether it was handed out is {is_out}",
                        subscription.name
                    ));
                }
            }
        }
        Ok(())
    }
}
