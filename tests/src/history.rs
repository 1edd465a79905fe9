//! [`History`]: the logs of all processes, put together by message.

use std::collections::HashMap;

use crate::event::{Entry, Event, Fate, Moment, Outcome};

/// What happened to one message.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) key: Option<String>,
    pub(crate) poison: bool,
    /// Before it was published.
    pub(crate) began: Moment,
    /// What its publisher was told, and when; [`Fate::InDoubt`] until then.
    pub(crate) fate: Fate,
    pub(crate) ended: Moment,
    /// Its deliveries, in the order in which they were read.
    pub(crate) deliveries: Vec<usize>,
}

/// One delivery of one message.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) n: u64,
    pub(crate) process: String,
    pub(crate) at: Moment,
    pub(crate) attempt: u32,
    pub(crate) before: Option<Moment>,
    /// When it was answered, and whether by OK.
    pub(crate) answering: Option<(Moment, bool)>,
    /// When its answer was answered, and how.
    pub(crate) answered: Option<(Moment, Outcome)>,
}

impl Handed {
    /// When its OK was sent, if that may count.
    pub(crate) fn ok_sent(&self) -> Option<Moment> {
        let (at, ok) = self.answering?;
        (ok && !self.is_stale()).then_some(at)
    }

    /// Whether it was somebody else's when it was answered.
    pub(crate) fn is_stale(&self) -> bool {
        self.outcome() == Some(Outcome::Refused)
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.outcome() == Some(Outcome::Accepted) && self.answering.is_some_and(|(_, ok)| ok)
    }

    /// Whether its holder gave it back of its own will.
    pub(crate) fn was_given_back(&self) -> bool {
        self.answering.is_some_and(|(_, ok)| !ok)
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.answered.map(|(_, outcome)| outcome)
    }
}

/// Something that was broken on purpose.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) process: Option<String>,
    pub(crate) from: Moment,
    /// Its end, if that is not its beginning.
    pub(crate) until: Option<Moment>,
    pub(crate) lasts: bool,
}

impl Fault {
    /// When everything worked again, as far as that is known.
    pub(crate) fn end(&self) -> Moment {
        self.until.unwrap_or(self.from)
    }
}

#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) sent: HashMap<u64, Sent>,
    pub(crate) handed: Vec<Handed>,
    pub(crate) faults: Vec<Fault>,
    /// Consumers that ended by themselves, and why.
    pub(crate) gave_up: Vec<String>,
    /// What was delivered before it was known that somebody published it, if anybody did.
    early: HashMap<u64, Vec<usize>>,
    /// Where a delivery is, by its process and number there.
    places: HashMap<(String, u64), usize>,
}

impl History {
    /// Adds what a process noted.
    pub(crate) fn add(&mut self, process: &str, Entry { at, event }: Entry) {
        match event {
            Event::Began { n, key, poison } => {
                let deliveries = self.early.remove(&n).unwrap_or_default();
                let sent = Sent { key, poison, began: at, fate: Fate::InDoubt, ended: at, deliveries };
                self.sent.insert(n, sent);
            }
            Event::Ended { ns, fate } => {
                for n in ns {
                    if let Some(sent) = self.sent.get_mut(&n) {
                        (sent.fate, sent.ended) = (fate, at);
                    }
                }
            }
            Event::Delivered { n, serial, attempt, before } => {
                let place = self.handed.len();
                let process = process.to_owned();
                self.places.insert((process.clone(), serial), place);
                self.handed.push(Handed { n, process, at, attempt, before, answering: None, answered: None });
                match self.sent.get_mut(&n) {
                    Some(sent) => sent.deliveries.push(place),
                    None => self.early.entry(n).or_default().push(place),
                }
            }
            Event::Answering { serial, ok } => {
                if let Some(handed) = self.find(process, serial) {
                    handed.answering = Some((at, ok));
                }
            }
            Event::Answered { serial, outcome } => {
                if let Some(handed) = self.find(process, serial) {
                    handed.answered = Some((at, outcome));
                }
            }
            Event::Gave { up } => self.gave_up.push(format!("{process}: {up}")),
            Event::Fault { name: _, process, lasts } => {
                self.faults.push(Fault { process, from: at, until: None, lasts });
            }
            Event::Healed => {
                if let Some(fault) = self.faults.iter_mut().rev().find(|fault| fault.lasts && fault.until.is_none()) {
                    fault.until = Some(at);
                }
            }
        }
    }

    fn find(&mut self, process: &str, serial: u64) -> Option<&mut Handed> {
        let place = self.places.get(&(process.to_owned(), serial))?;
        self.handed.get_mut(*place)
    }

    /// Deliveries of what nobody is known to have published.
    pub(crate) fn strangers(&self) -> impl Iterator<Item = &Handed> {
        self.early.values().flatten().map(|place| &self.handed[*place])
    }

    /// The deliveries of a message, in order of time.
    pub(crate) fn deliveries(&self, sent: &Sent) -> Vec<&Handed> {
        let mut deliveries: Vec<_> = sent.deliveries.iter().map(|place| &self.handed[*place]).collect();
        deliveries.sort_by_key(|handed| handed.at);
        deliveries
    }

    /// What was committed.
    pub(crate) fn committed(&self) -> impl Iterator<Item = (&u64, &Sent)> {
        self.sent.iter().filter(|(_, sent)| sent.fate == Fate::Committed)
    }

    /// Whether an OK of it was accepted, or may have been: its holder died, or lost its connection, before it heard.
    pub(crate) fn is_settled(&self, sent: &Sent) -> bool {
        let may_count = |handed: &Handed| handed.ok_sent().is_some() && handed.outcome() != Some(Outcome::Failed);
        sent.deliveries.iter().any(|place| may_count(&self.handed[*place]))
    }

    /// What was committed and has to be acknowledged, and is not.
    pub(crate) fn open(&self) -> impl Iterator<Item = u64> {
        self.committed().filter(|(_, sent)| !sent.poison && !self.is_settled(sent)).map(|(n, _)| *n)
    }

    /// What a process holds: handed out, and not answered.
    pub(crate) fn held_by<'a>(&'a self, process: &'a str) -> impl Iterator<Item = &'a Handed> {
        self.handed.iter().filter(move |handed| handed.process == process && handed.answering.is_none())
    }
}
