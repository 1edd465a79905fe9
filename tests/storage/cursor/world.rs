//! [`World`]: all sessions, and the one task that decides who goes on.

use std::collections::HashSet;

use fastrand::Rng;

use crate::{
    deed::Deed,
    model::{Model, Order, Selects, Subscription},
    publishing::Publisher,
    session::{Rows, Session},
    store::Store,
};

/// How many steps a run takes before all is drained.
const STEPS: u64 = 220;
/// The sessions of publishers come first, then those of consumers, then housekeeping, and last who redrives.
const PUBLISHERS: usize = 5;
const CONSUMERS: usize = 4;
const KEEPER: usize = PUBLISHERS + CONSUMERS;
const REDRIVER: usize = KEEPER + 1;
/// Somewhere among the statements of a call.
const GATES: u32 = 30;
/// The gates of one look, or of two.
pub(crate) const GATES_OF_A_LOOK: u32 = 8;
/// Every how many steps the cursors are compared with what was handed out.
const LOOK: u64 = 10;
/// How many topics there are at most.
const TOPICS: usize = 4;
/// Few, so that they have company.
const BUCKETS: usize = 3;

pub(crate) struct World<'a> {
    pub(crate) rng: Rng,
    pub(crate) step: u64,
    pub(crate) topics: Vec<String>,
    pub(crate) model: Model,
    pub(crate) publishers: Vec<Publisher>,
    /// The messages of what was prepared, until it ends.
    pub(crate) prepared: Vec<Option<Vec<usize>>>,
    pub(crate) is_draining: bool,
    sessions: Vec<Session>,
    /// Opens and closes gates, and sees who waits.
    pub(crate) control: Session,
    /// What was redriven and is not committed.
    redriving: Option<Redriving>,
    trace: &'a mut Vec<String>,
}

struct Redriving {
    subscription: usize,
    /// What was dead before.
    dead: Vec<usize>,
    /// What the server redrives, as it has said.
    redriven: Vec<usize>,
}

/// Runs a seed, and leaves the store empty if all went well.
pub(crate) async fn run(store: &Store, seed: u64, trace: &mut Vec<String>) -> Result<(), String> {
    let mut world = World::open(store, seed, trace).await;
    while world.step < STEPS {
        world.step += 1;
        world.go_on().await?;
        if world.step.is_multiple_of(LOOK) {
            world.cursors_say_what_was_handed_out().await?;
            world.stretches_hold_every_message().await?;
        }
    }
    world.finish_all().await?;
    world.cursors_say_what_was_handed_out().await?;
    world.audit().await
}

impl<'a> World<'a> {
    async fn open(store: &Store, seed: u64, trace: &'a mut Vec<String>) -> Self {
        let control = Session::open(&store.url).await;
        let mut sessions = Vec::new();
        for number in 0..=REDRIVER {
            let session = Session::open(&store.url).await;
            if number >= PUBLISHERS {
                control.ask(&format!("select pg_advisory_lock(1, {})", session.pid)).await.unwrap();
            }
            sessions.push(session);
        }
        let mut rng = Rng::with_seed(seed);
        let others = (1..rng.usize(2..=TOPICS)).map(|number| format!("other topic {seed} {number}"));
        let topics: Vec<_> = std::iter::once(format!("topic {seed}")).chain(others).collect();
        let mut model = Model::default();
        for (topic, name) in topics.iter().enumerate() {
            control.ask(&format!("select pgqueue.create_topic('{name}', {BUCKETS}, 60000)")).await.unwrap();
            let mut orders = vec![
                (Order::Unordered, "unordered"),
                (Order::ByKey, "by key"),
                (Order::Total, "total"),
                (Order::StableTotal, "stable total"),
            ];
            let selective = orders[rng.usize(..orders.len())];
            if topic > 0 {
                // Where there is but one, the log's end follows it closely.
                orders = vec![orders.swap_remove(rng.usize(..orders.len()))];
            }
            let mut subscriptions: Vec<_> =
                orders.into_iter().map(|(order, text)| (order, text, Selects::All)).collect();
            if topic == 0 {
                let selects = if rng.bool() { Selects::Even } else { Selects::Key(1) };
                subscriptions.push((selective.0, selective.1, selects));
            }
            for (order, text, selects) in subscriptions {
                let subscription = format!("{text} {name} {selects:?}");
                let selector = match selects {
                    Selects::All => "null".to_owned(),
                    Selects::Key(key) => format!("'{{\"key\": \"key {key}\"}}', v_key => 'key {key}'"),
                    Selects::Even => "'{\"kinds\": [\"even\"]}', v_kinds => '{even}'".to_owned(),
                };
                let insert = format!(
                    "select id from pgqueue.insert_subscription('{subscription}', '{name}', '{text}', 100, 100, 60000, 1000, 1, 1, 1, 0, \
                     v_selector => {selector})"
                );
                let id = control.ask(&insert).await.unwrap()[0][0].as_ref().unwrap().parse().unwrap();
                model.subscriptions.push(Subscription::new(subscription, id, topic, order, selects));
            }
        }
        let publishers = (0..PUBLISHERS).map(|_| Publisher::default()).collect();
        let (step, is_draining, redriving, prepared) = (0, false, None, Vec::new());
        Self { rng, step, topics, model, publishers, prepared, is_draining, sessions, control, redriving, trace }
    }

    /// Lets somebody do something.
    async fn go_on(&mut self) -> Result<(), String> {
        match self.rng.u32(0..100) {
            0..6 => self.pass_each_other().await,
            6..14 => self.claim_beside().await,
            14..44 => {
                let number = self.rng.usize(..PUBLISHERS);
                self.publish_on(number).await
            }
            44..72 => {
                let Some(session) = self.idle(PUBLISHERS..KEEPER) else { return self.open_gate().await };
                let subscription = self.rng.usize(..self.model.subscriptions.len());
                self.choose_gate_of_a_claim(session).await;
                self.claim(session, subscription, None).await.map(drop)
            }
            72..84 => {
                let Some(session) = self.idle(PUBLISHERS..KEEPER) else { return self.open_gate().await };
                self.choose_gate(session).await;
                self.answer(session).await
            }
            84..90 => self.open_gate().await,
            90..97 => {
                let Some(session) = self.idle(KEEPER..REDRIVER) else { return self.open_gate().await };
                self.choose_gate(session).await;
                match self.rng.u32(0..12) {
                    0..3 => self.depose(session).await,
                    3 => self.grow_old().await,
                    4 => {
                        // Whose consumer is gone may lose what it claimed meanwhile.
                        self.model.doubt(|_| true);
                        self.doubt_claims();
                        self.start(session, Deed::Depose, "select pgqueue.sweep()".to_owned()).await
                    }
                    5 => self.chore(session, "select pgqueue.keep_stuck()".to_owned()).await,
                    // Often so few that stretches are parted.
                    _ => self.chore(session, format!("select pgqueue.trim({})", 1 + self.step % 40)).await,
                }
            }
            _ => self.redrive_on().await,
        }
    }

    /// Redrives in a transaction that stays open for a while.
    async fn redrive_on(&mut self) -> Result<(), String> {
        if self.sessions[REDRIVER].call.is_some() {
            return Ok(());
        }
        if let Some(Redriving { subscription, .. }) = self.redriving {
            let commit = self.rng.u8(0..4) > 0;
            let sql = if commit { "commit" } else { "rollback" };
            return self.start(REDRIVER, Deed::EndRedrive { subscription, commit }, sql.to_owned()).await;
        }
        let subscription = self.rng.usize(..self.model.subscriptions.len());
        self.redrive(subscription).await
    }

    async fn redrive(&mut self, subscription: usize) -> Result<(), String> {
        let dead = self.model.subscriptions[subscription].dead();
        self.redriving = Some(Redriving { subscription, dead, redriven: Vec::new() });
        // Who answers meanwhile may be in time or not: the server has to say what it found.
        let id = self.model.subscriptions[subscription].id;
        let sql = format!(
            "begin; select pgqueue.redrive({id}); \
             select ids[1] from pgqueue.lease where subscription = {id} and xmin = pg_current_xact_id()::xid"
        );
        self.start(REDRIVER, Deed::Redrive { subscription }, sql).await
    }

    /// Lets all calls and transactions come to their end.
    async fn finish_all(&mut self) -> Result<(), String> {
        self.is_draining = true;
        while self.sessions.iter().any(|session| session.call.is_some()) {
            self.step += 1;
            self.open_gate().await?;
        }
        for number in 0..PUBLISHERS {
            self.step += 1;
            if self.publishers[number].is_open {
                let commit = self.rng.u8(0..4) > 0;
                self.end(number, commit).await?;
            }
        }
        while let Some(number) = self.open_prepared() {
            self.step += 1;
            let commit = self.rng.u8(0..4) > 0;
            self.end_prepared(0, number, commit).await?;
        }
        if self.redriving.is_some() {
            self.redrive_on().await?;
        }
        for session in PUBLISHERS..=REDRIVER {
            self.sessions[session].ask("select set_config('gate.stop', '', false)").await?;
        }
        Ok(())
    }

    /// Redrives what is dead, and commits that.
    pub(crate) async fn revive(&mut self, subscription: usize) -> Result<(), String> {
        self.redrive(subscription).await?;
        self.start(REDRIVER, Deed::EndRedrive { subscription, commit: true }, "commit".to_owned()).await
    }

    pub(crate) fn idle_publisher(&self) -> Option<usize> {
        (0..PUBLISHERS).find(|number| !self.publishers[*number].is_open && self.sessions[*number].call.is_none())
    }

    pub(crate) fn idle_consumer(&self) -> Option<usize> {
        self.idle(PUBLISHERS..KEEPER)
    }

    /// Who is claiming from a subscription just now.
    pub(crate) fn claiming(&self, subscription: usize) -> Vec<usize> {
        let is_claiming = |number: &usize| match self.sessions[*number].call.as_ref().map(|call| &call.deed) {
            Some(Deed::Claim(claim)) => self.model.claims[*claim].subscription == subscription,
            _ => false,
        };
        (PUBLISHERS..KEEPER).filter(is_claiming).collect()
    }

    /// Trims, unless the keeper has something else to do.
    pub(crate) async fn trim(&mut self) -> Result<(), String> {
        if self.sessions[KEEPER].call.is_some() {
            return Ok(());
        }
        self.hold(KEEPER, "", None).await;
        self.chore(KEEPER, "select pgqueue.trim()".to_owned()).await
    }

    /// A session of these that waits for nothing.
    pub(crate) fn idle(&self, mut among: std::ops::Range<usize>) -> Option<usize> {
        among.find(|number| self.sessions[*number].call.is_none())
    }

    /// Whether somebody may be taking messages away just now.
    pub(crate) fn is_deposing(&self) -> bool {
        self.sessions.iter().any(|session| session.call.as_ref().is_some_and(|call| call.deed == Deed::Depose))
    }

    /// What is being claimed just now may be lost before anybody knows.
    pub(crate) fn doubt_claims(&mut self) {
        for call in self.sessions.iter().filter_map(|session| session.call.as_ref()) {
            if let Deed::Claim(number) = call.deed {
                self.model.claims[number].doubtful = true;
            }
        }
    }

    /// Chooses where the next call of a session is held, if at all.
    async fn choose_gate(&mut self, session: usize) {
        let stop = self.rng.bool().then(|| self.rng.u32(1..GATES));
        self.hold(session, "", stop).await;
    }

    /// The same for a claim, often in the midst of a look.
    async fn choose_gate_of_a_claim(&mut self, session: usize) {
        if self.rng.bool() {
            let stop = self.rng.u32(1..=GATES_OF_A_LOOK);
            self.hold(session, "look", Some(stop)).await;
        } else {
            self.choose_gate(session).await;
        }
    }

    /// Has the next call of a session held at a gate of any function, or of this one.
    pub(crate) async fn hold(&self, session: usize, within: &str, stop: Option<u32>) {
        let stop = stop.map_or_else(String::new, |stop| stop.to_string());
        let choose = format!(
            "select set_config('gate.within', '{within}', false), set_config('gate.stop', '{stop}', false), \
             set_config('gate.passed', '0', false)"
        );
        self.sessions[session].ask(&choose).await.unwrap();
    }

    /// Opens the gate for somebody who may be held there.
    async fn open_gate(&mut self) -> Result<(), String> {
        let held: Vec<_> = (PUBLISHERS..=REDRIVER).filter(|number| self.sessions[*number].call.is_some()).collect();
        let Some(number) = self.rng.choice(held) else { return Ok(()) };
        self.let_on(number).await
    }

    /// Opens the gate for one who may be held there.
    pub(crate) async fn let_on(&mut self, number: usize) -> Result<(), String> {
        let pid = self.sessions[number].pid;
        self.trace.push(format!("{:>4} {number:>2} goes on", self.step));
        self.control.ask(&format!("select pg_advisory_unlock(1, {pid})")).await?;
        self.settle_down().await?;
        self.control.ask(&format!("select pg_advisory_lock(1, {pid})")).await.map(drop)
    }

    /// Makes what is out look old.
    pub(crate) async fn grow_old(&mut self) -> Result<(), String> {
        if self.sessions.iter().any(|session| session.call.is_some()) {
            return Ok(());
        }
        let older = "update pgqueue.lease set claimed_at = claimed_at - interval '1 day'; \
                     update pgqueue.cursor set moved_at = moved_at - interval '1 day'";
        self.control.ask(older).await.map(drop)
    }

    /// Does what changes nothing that anybody promised.
    pub(crate) async fn chore(&mut self, session: usize, sql: String) -> Result<(), String> {
        self.start(session, Deed::Chore, sql).await
    }

    /// Starts a call, and waits until it has ended or waits for others.
    pub(crate) async fn start(&mut self, session: usize, deed: Deed, sql: String) -> Result<(), String> {
        if self.sessions[session].call.is_some() {
            return Ok(());
        }
        let short: String = sql.chars().take(300).collect();
        self.trace.push(format!("{:>4} {session:>2} {deed:?}: {short}", self.step));
        self.sessions[session].start(deed, sql);
        self.settle_down().await?;
        // In the end nobody is held, but the server's own chores may be in the way for a moment.
        while self.is_draining && self.sessions[session].call.is_some() {
            self.settle_down().await?;
        }
        Ok(())
    }

    /// Waits until every call has ended or waits for a lock, and learns from those that have ended.
    async fn settle_down(&mut self) -> Result<(), String> {
        loop {
            let ended = |session: &Session| session.call.as_ref().is_none_or(|call| call.answer.is_finished());
            let ended: Vec<_> = self.sessions.iter().map(ended).collect();
            if ended.iter().all(|ended| *ended) {
                break;
            }
            let rows = self.control.ask("select pid from pg_locks where not granted").await?;
            let waiting: HashSet<i32> = rows.iter().filter_map(|row| row[0].as_ref()?.parse().ok()).collect();
            if self.sessions.iter().zip(&ended).all(|(session, ended)| *ended || waiting.contains(&session.pid)) {
                break;
            }
            tokio::task::yield_now().await;
        }
        let mut over = Vec::new();
        for (number, session) in self.sessions.iter_mut().enumerate() {
            if let Some(call) = session.call.take_if(|call| call.answer.is_finished()) {
                let answer = call.answer.await.map_err(|error| error.to_string())?;
                over.push((call.deed, number, answer?));
            }
        }
        over.sort_by_key(|(deed, ..)| deed.rank());
        over.into_iter().try_for_each(|(deed, session, rows)| self.learn(&deed, session, &rows))
    }

    fn learn(&mut self, deed: &Deed, session: usize, rows: &Rows) -> Result<(), String> {
        self.trace.push(format!("{:>4} {session:>2} {deed:?} returns {} rows", self.step, rows.len()));
        match deed {
            Deed::Publish { publisher, messages } => {
                let ids: Vec<_> = rows.iter().filter_map(|row| row[0].as_ref()?.parse().ok()).collect();
                self.published(*publisher, messages.clone(), &ids)
            }
            Deed::End { publisher, commit } => {
                self.ended(*publisher, *commit);
                Ok(())
            }
            Deed::EndPrepared { number, commit } => {
                self.ended_prepared(*number, *commit);
                Ok(())
            }
            Deed::Claim(number) => {
                for row in rows {
                    let text = |n: usize| row[n].clone().unwrap_or_default();
                    self.trace.push(format!(
                        "        lease {} lane {} message {} attempt {}",
                        text(0),
                        text(1),
                        text(2),
                        text(3)
                    ));
                }
                self.model.claimed(*number, rows).map(drop)
            }
            Deed::Settle(number) => self.model.settled(*number, !rows.is_empty()),
            Deed::Redrive { .. } => {
                let numbers: Vec<i64> = rows.iter().filter_map(|row| row[0].as_ref()?.parse().ok()).collect();
                let (count, ids) = numbers.split_first().ok_or("a redrive returns nothing")?;
                let redriving = self.redriving.as_mut().ok_or("nobody redrives")?;
                redriving.redriven = ids.iter().filter_map(|id| self.model.by_id.get(id).copied()).collect();
                let forgotten = redriving.dead.iter().any(|payload| !redriving.redriven.contains(payload));
                if forgotten || i64::try_from(ids.len()) != Ok(*count) {
                    return Err(format!("{count} are redriven, {ids:?}, of {:?}", redriving.dead));
                }
                Ok(())
            }
            Deed::EndRedrive { subscription, commit } => match self.redriving.take() {
                Some(Redriving { redriven, .. }) if *commit => self.model.redriven(*subscription, &redriven),
                _ => Ok(()),
            },
            Deed::Depose | Deed::Chore => Ok(()),
        }
    }
}
