//! [`Model`]: all messages, and what every subscription has done with them, as far as anybody could know.

use std::collections::{BTreeSet, HashMap};

use crate::session::Rows;

#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// 0 until the server has said it.
    pub(crate) id: i64,
    pub(crate) topic: usize,
    pub(crate) key: Option<u8>,
    /// The step in which it began to be published, and the one after which it was committed.
    pub(crate) began: u64,
    pub(crate) committed: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    Unordered,
    ByKey,
    Total,
    StableTotal,
}

/// What a subscription gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Selects {
    All,
    Key(u8),
    /// The payloads that are even, by their kind.
    Even,
}

impl Selects {
    pub(crate) fn gets(self, payload: usize, message: &Message) -> bool {
        match self {
            Self::All => true,
            Self::Key(key) => message.key == Some(key),
            Self::Even => payload.is_multiple_of(2),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Phase {
    /// Never handed out.
    #[default]
    New,
    /// In the hand of who has this holding.
    Held(usize),
    /// Given back.
    Ready,
    Done,
    Dead,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) attempt: i32,
    /// How many attempts may have counted before the next.
    prior: (i32, i32),
    /// It stands behind others by now.
    pub(crate) redriven: bool,
}

pub(crate) struct Subscription {
    pub(crate) name: String,
    pub(crate) id: i64,
    pub(crate) topic: usize,
    pub(crate) order: Order,
    pub(crate) selects: Selects,
    pub(crate) states: HashMap<usize, State>,
    /// What is handed out and not done, of every lane that is in order.
    lanes: HashMap<i32, BTreeSet<i64>>,
}

/// What one claim was given by one lease.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    pub(crate) subscription: usize,
    pub(crate) owner: String,
    pub(crate) token: String,
    pub(crate) lease: i64,
    pub(crate) lane: i32,
    /// What is unsettled, ascending.
    pub(crate) ids: Vec<i64>,
    /// The claim handed out nothing else.
    alone: bool,
    /// It may have been taken away.
    pub(crate) doubtful: bool,
    /// It is being settled.
    pub(crate) busy: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) subscription: usize,
    pub(crate) owner: String,
    pub(crate) token: String,
    pub(crate) limit: usize,
    pub(crate) suspects: bool,
    /// Somebody took messages away meanwhile.
    pub(crate) doubtful: bool,
    /// It saw less than all there is.
    pub(crate) busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Ok,
    Requeue,
    Reject,
    Release,
}

#[derive(Clone, Debug)]
pub(crate) struct Settling {
    pub(crate) holding: usize,
    pub(crate) verdicts: Vec<(i64, Verdict)>,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) messages: Vec<Message>,
    pub(crate) by_id: HashMap<i64, usize>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) holdings: Vec<Holding>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) settlings: Vec<Settling>,
}

impl Subscription {
    pub(crate) fn new(name: String, id: i64, topic: usize, order: Order, selects: Selects) -> Self {
        Self { name, id, topic, order, selects, states: HashMap::new(), lanes: HashMap::new() }
    }

    /// What was given up.
    pub(crate) fn dead(&self) -> Vec<usize> {
        self.states.iter().filter(|(_, state)| state.phase == Phase::Dead).map(|(payload, _)| *payload).collect()
    }
}

impl Model {
    /// What a claim returned: lease, lane, id, attempt, suspect, payload; in the last row whether to look again. Returns how many messages.
    pub(crate) fn claimed(&mut self, number: usize, rows: &Rows) -> Result<usize, String> {
        let claim = self.claims[number].clone();
        let Some((last, rows)) = rows.split_last() else { return Err("a claim returns no row at all".to_owned()) };
        self.claims[number].busy = last.last().is_some_and(|busy| busy.as_deref() == Some("true"));
        if rows.len() > claim.limit {
            return Err(format!("a claim of {} returns {} messages", claim.limit, rows.len()));
        }
        let mut leases: Vec<Holding> = Vec::new();
        for row in rows {
            let [lease, lane, id, attempt, suspect, payload] = row.as_slice() else {
                return Err(format!("a claim returns {row:?}"));
            };
            let read =
                |text: &Option<String>| text.as_deref().unwrap_or("").parse::<i64>().map_err(|_| format!("{row:?}"));
            let (lease, lane, id) = (read(lease)?, i32::try_from(read(lane)?).unwrap(), read(id)?);
            if suspect.as_deref() == Some("t") && (rows.len() > 1 || !claim.suspects) {
                return Err(format!("message {id}, whose holder died, does not come alone or unasked"));
            }
            if leases.last().is_none_or(|last| last.lease != lease) {
                leases.push(Holding {
                    subscription: claim.subscription,
                    owner: claim.owner.clone(),
                    token: claim.token.clone(),
                    lease,
                    lane,
                    ids: Vec::new(),
                    alone: rows.len() == 1,
                    doubtful: claim.doubtful,
                    busy: false,
                });
            }
            leases.last_mut().unwrap().ids.push(id);
            let holding = self.holdings.len() + leases.len() - 1;
            let payload = usize::try_from(read(payload)?).unwrap();
            self.delivered(claim.subscription, holding, (id, payload), i32::try_from(read(attempt)?).unwrap())?;
        }
        for lease in leases {
            self.in_order(&lease)?;
            self.holdings.push(lease);
        }
        Ok(rows.len())
    }

    fn delivered(
        &mut self,
        number: usize,
        holding: usize,
        (id, payload): (i64, usize),
        attempt: i32,
    ) -> Result<(), String> {
        let subscription = &mut self.subscriptions[number];
        let name = &subscription.name;
        let Some(message) = self.messages.get(payload).filter(|message| message.id == id) else {
            return Err(format!("{name} gets message {id}, which nobody published"));
        };
        if message.topic != subscription.topic || message.committed.is_none() {
            return Err(format!("{name} gets message {id}, which is of another topic or was not committed"));
        }
        if !subscription.selects.gets(payload, message) {
            return Err(format!("{name} gets message {id}, which it does not select"));
        }
        if !subscription.states.contains_key(&payload) && matches!(subscription.order, Order::ByKey | Order::Total) {
            // A publish that began after another committed never comes first.
            let together = |other: &Message| {
                other.topic == message.topic
                    && (subscription.order == Order::Total || (other.key.is_some() && other.key == message.key))
            };
            let earlier = self.messages.iter().enumerate().find(|(number, other)| {
                together(other)
                    && subscription.selects.gets(*number, other)
                    && other.committed.is_some_and(|committed| committed < message.began)
                    && !subscription.states.contains_key(number)
            });
            if let Some((_, earlier)) = earlier {
                return Err(format!("{name} gets message {id} before {}", earlier.id));
            }
        }
        let state = subscription.states.entry(payload).or_default();
        match state.phase {
            Phase::New | Phase::Ready => {}
            Phase::Held(other) => {
                let Some(other) = self.holdings.get(other) else {
                    return Err(format!("{name} gets message {id} twice at once"));
                };
                if !other.doubtful {
                    return Err(format!("{name} gets message {id} while lease {} has it", other.lease));
                }
                state.prior = (state.attempt - 1, state.attempt - i32::from(!other.alone));
            }
            Phase::Done | Phase::Dead => {
                return Err(format!("{name} gets message {id} though it is {:?}", state.phase));
            }
        }
        if !(state.prior.0..=state.prior.1).contains(&(attempt - 1)) {
            return Err(format!("{name} gets message {id} as attempt {attempt} after {:?}", state.prior));
        }
        state.attempt = attempt;
        state.phase = Phase::Held(holding);
        Ok(())
    }

    /// A lane hands out one lease at a time, and first what it handed out before.
    fn in_order(&mut self, lease: &Holding) -> Result<(), String> {
        let Holding { lane, ids, .. } = lease;
        let subscription = &mut self.subscriptions[lease.subscription];
        if *lane < 0 {
            return Ok(());
        }
        let beside = |other: &&Holding| {
            other.subscription == lease.subscription && other.lane == *lane && !other.doubtful && !other.ids.is_empty()
        };
        if let Some(other) = self.holdings.iter().find(beside) {
            return Err(format!("lane {lane} of {} hands out {ids:?} beside {:?}", subscription.name, other.ids));
        }
        if !ids.is_sorted() {
            return Err(format!("lane {lane} of {} hands out {ids:?}", subscription.name));
        }
        if ids.iter().any(|id| subscription.states[&self.by_id[id]].redriven) {
            return Ok(());
        }
        let before = subscription.lanes.entry(*lane).or_default();
        if before.is_empty() {
            before.extend(ids);
        } else if !before.iter().take(ids.len()).eq(ids) {
            return Err(format!("lane {lane} of {} hands out {ids:?} before {before:?}", subscription.name));
        }
        Ok(())
    }

    /// What became of answers; `refused` says whether the server refused them.
    pub(crate) fn settled(&mut self, number: usize, refused: bool) -> Result<(), String> {
        let Settling { holding: number, verdicts } = self.settlings[number].clone();
        let holding = &mut self.holdings[number];
        holding.busy = false;
        if refused {
            holding.ids.clear();
            return if holding.doubtful { Ok(()) } else { Err(format!("lease {} is lost to nobody", holding.lease)) };
        }
        holding.ids.retain(|id| verdicts.iter().all(|(settled, _)| settled != id));
        let subscription = &mut self.subscriptions[holding.subscription];
        for (id, verdict) in verdicts {
            let state = subscription.states.get_mut(&self.by_id[&id]).unwrap();
            if state.phase != Phase::Held(number) {
                return Err(format!("{} heard {verdict:?} of message {id} from who had lost it", subscription.name));
            }
            let (phase, prior) = match verdict {
                Verdict::Ok => (Phase::Done, 0),
                Verdict::Reject => (Phase::Dead, 0),
                Verdict::Requeue => (Phase::Ready, state.attempt),
                Verdict::Release => (Phase::Ready, state.attempt - 1),
            };
            state.phase = phase;
            state.prior = (prior, prior);
            if matches!(phase, Phase::Done | Phase::Dead) {
                subscription.lanes.entry(holding.lane).or_default().remove(&id);
            }
        }
        Ok(())
    }

    /// These dead letters of a subscription come again.
    pub(crate) fn redriven(&mut self, subscription: usize, payloads: &[usize]) -> Result<(), String> {
        let Subscription { name, states, .. } = &mut self.subscriptions[subscription];
        for payload in payloads {
            let state = states.entry(*payload).or_default();
            if state.phase != Phase::Dead {
                return Err(format!(
                    "{name} redrives message {} though it is {:?}",
                    self.messages[*payload].id, state.phase
                ));
            }
            *state = State { phase: Phase::Ready, redriven: true, ..State::default() };
        }
        Ok(())
    }

    /// Whoever holds something may lose it.
    pub(crate) fn doubt(&mut self, whose: impl Fn(&Holding) -> bool) {
        self.holdings.iter_mut().filter(|holding| whose(holding)).for_each(|holding| holding.doubtful = true);
    }
}
