//! Consumers: what they claim, and how they answer.

use crate::{
    deed::Deed,
    model::{Claim, Holding, Order, Settling, Subscription, Verdict},
    world::World,
};

/// The largest claim.
const MOST: usize = 120;

/// What somebody else has by now.
const REFUSED: &str = "select refused_lease, refused_token";

impl World<'_> {
    /// Lets a consumer claim with `session`, and returns the number of the claim.
    pub(crate) async fn claim(
        &mut self,
        session: usize,
        subscription: usize,
        limit: Option<usize>,
    ) -> Result<usize, String> {
        let limit =
            limit.unwrap_or_else(|| if self.rng.bool() { self.rng.usize(1..8) } else { self.rng.usize(1..=MOST) });
        let suspects = self.is_draining || self.rng.u8(0..3) > 0;
        // A consumer has one subscription.
        let owner = format!("00000000-0000-0000-0000-{session:06}{subscription:06}");
        let token = format!("{:032x}", self.rng.u128(..));
        let doubtful = self.is_deposing();
        let sql = format!(
            "select lease, lane, id, attempt, suspect, coalesce(convert_from(payload, 'UTF8'), (busy or writers or more)::text) \
             from pgqueue.claim({}, '{owner}', '{token}', {limit}, {}, {suspects}, {}, false)",
            self.model.subscriptions[subscription].id,
            self.rng.bool(),
            self.rng.u16(..)
        );
        self.model.claims.push(Claim {
            subscription,
            owner,
            token: token.clone(),
            limit,
            suspects,
            doubtful,
            busy: false,
        });
        let number = self.model.claims.len() - 1;
        let had_news = self.has_news(subscription).await?;
        self.start(session, Deed::Claim(number), sql).await?;
        let found = self.model.holdings.iter().any(|holding| holding.token == token);
        let Subscription { name, order, .. } = &self.model.subscriptions[subscription];
        // In stable total order something may come when anything ends on the server, as it may in between.
        if found && !had_news && *order != Order::StableTotal {
            return Err(format!("a claim found what a pulse does not tell of {name}"));
        }
        Ok(number)
    }

    /// Whether a pulse would wake a consumer of a subscription.
    pub(crate) async fn has_news(&self, subscription: usize) -> Result<bool, String> {
        let id = self.model.subscriptions[subscription].id;
        let rows = self.control.ask(&format!("select pgqueue.has_news({id}, null)")).await?;
        Ok(rows[0][0].as_deref() == Some("t"))
    }

    /// Answers for some of what somebody holds, or held.
    pub(crate) async fn answer(&mut self, session: usize) -> Result<(), String> {
        let held = self.model.holdings.iter().enumerate();
        let held: Vec<_> =
            held.filter(|(_, holding)| !holding.busy && !holding.ids.is_empty()).map(|(number, _)| number).collect();
        let Some(number) = self.rng.choice(held) else { return Ok(()) };
        let holding = &self.model.holdings[number];
        let in_order = holding.lane >= 0;
        let ids = holding.ids.clone();
        let verdicts: Vec<_> = match self.rng.u32(0..10) {
            0..6 => return self.finish(session, number).await,
            6 => ids.into_iter().map(|id| (id, Verdict::Release)).collect(),
            7 => {
                let some = self.rng.usize(..=ids.len());
                ids.into_iter().take(some).map(|id| (id, Verdict::Ok)).collect()
            }
            _ if in_order => {
                // One after the other; once one is not OK, what is behind it goes back.
                let end = self.rng.usize(..ids.len());
                let last = self.rng.choice([Verdict::Ok, Verdict::Requeue, Verdict::Requeue, Verdict::Reject]).unwrap();
                let verdict = |n: usize| match n.cmp(&end) {
                    std::cmp::Ordering::Less => Some(Verdict::Ok),
                    std::cmp::Ordering::Equal => Some(last),
                    std::cmp::Ordering::Greater => (last == Verdict::Requeue).then_some(Verdict::Release),
                };
                ids.into_iter().enumerate().filter_map(|(n, id)| Some((id, verdict(n)?))).collect()
            }
            _ => {
                let all = [Verdict::Ok, Verdict::Ok, Verdict::Ok, Verdict::Requeue, Verdict::Reject, Verdict::Release];
                let answered = |_: &i64| self.rng.u8(0..3) > 0;
                let answered: Vec<_> = ids.into_iter().filter(answered).collect();
                answered.into_iter().map(|id| (id, self.rng.choice(all).unwrap())).collect()
            }
        };
        let Holding { lease, token, subscription, .. } = self.model.holdings[number].clone();
        let delivery = self.rng.i64(1..6);
        // What follows each other and is OK goes as one, or one by one.
        let mut rows: Vec<_> = verdicts.iter().map(|(id, verdict)| (*id, *id, *verdict)).collect();
        if self.rng.bool() {
            rows.dedup_by(|next, row| {
                let follows = row.2 == Verdict::Ok && next.2 == Verdict::Ok && row.1 + 1 == next.0;
                row.1 = if follows { next.1 } else { row.1 };
                follows
            });
        }
        let list = |each: &dyn Fn(&(i64, i64, Verdict)) -> String| rows.iter().map(each).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "{REFUSED} from pgqueue.settle({}, '{{}}', '{{}}', array[{}]::bigint[], array[{}]::uuid[], array[{}]::bigint[], \
             array[{}]::int[], array[{}]::int[], array[{}]::bigint[], array[{}]::text[], v_lasts => array[{}]::bigint[]) \
             where refused_lease is not null",
            self.model.subscriptions[subscription].id,
            list(&|_| lease.to_string()),
            list(&|_| format!("'{token}'")),
            list(&|(id, _, _)| id.to_string()),
            list(&|(_, _, verdict)| (*verdict as i32).to_string()),
            list(&|(id, _, _)| (id / delivery).to_string()),
            list(&|_| "0".to_owned()),
            list(&|_| "null".to_owned()),
            list(&|(_, last, _)| last.to_string())
        );
        self.settle(session, number, verdicts, sql).await
    }

    /// Says that all of a lease is OK, in the short way.
    pub(crate) async fn finish(&mut self, session: usize, number: usize) -> Result<(), String> {
        let Holding { lease, token, subscription, ids, .. } = &self.model.holdings[number];
        let sql = format!(
            "{REFUSED} from pgqueue.settle({}, array[{lease}]::bigint[], array['{token}']::uuid[], '{{}}', '{{}}', '{{}}', '{{}}', \
             '{{}}', '{{}}', '{{}}') where refused_lease is not null",
            self.model.subscriptions[*subscription].id
        );
        let verdicts = ids.iter().map(|id| (*id, Verdict::Ok)).collect();
        self.settle(session, number, verdicts, sql).await
    }

    async fn settle(
        &mut self,
        session: usize,
        number: usize,
        verdicts: Vec<(i64, Verdict)>,
        sql: String,
    ) -> Result<(), String> {
        self.model.holdings[number].busy = true;
        self.model.settlings.push(Settling { holding: number, verdicts });
        self.start(session, Deed::Settle(self.model.settlings.len() - 1), sql).await
    }

    /// Takes messages away from who holds them: a consumer leaves, or all die.
    pub(crate) async fn depose(&mut self, session: usize) -> Result<(), String> {
        let subscription = self.rng.usize(..self.model.subscriptions.len());
        let name = self.model.subscriptions[subscription].name.clone();
        let leaving = self
            .model
            .holdings
            .iter()
            .filter(|holding| holding.subscription == subscription && !holding.ids.is_empty());
        let leaving = self.rng.choice(leaving.map(|holding| holding.owner.clone()).collect::<Vec<_>>());
        let sql = match leaving {
            Some(owner) if self.rng.bool() => {
                self.model.doubt(|holding| holding.owner == owner);
                format!("select pgqueue.leave('{owner}')")
            }
            _ => {
                self.model.doubt(|holding| holding.subscription == subscription);
                format!("select pgqueue.expire_leases('{name}')")
            }
        };
        self.doubt_claims();
        self.start(session, Deed::Depose, sql).await
    }
}
