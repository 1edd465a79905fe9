//! Every kind of breach is found in a history that was written by hand, and none in one without.

use super::*;
use crate::event::{Entry, Event, Outcome};

/// A history with a line every ten microseconds, which is as long as a lease.
struct Book {
    history: History,
    dead: BTreeSet<u64>,
    shape: Shape,
    now: Moment,
}

impl Default for Book {
    fn default() -> Self {
        let shape = Shape { lease: Duration::from_micros(10), ..Shape::default() };
        Self { history: History::default(), dead: BTreeSet::new(), shape, now: 0 }
    }
}

impl Book {
    fn note(mut self, process: &str, event: Event) -> Self {
        self.now += 10;
        self.history.add(process, Entry { at: self.now, event });
        self
    }

    fn begin(self, n: u64) -> Self {
        self.note("publisher", Event::Began { n, key: Some("k".to_owned()), poison: false })
    }

    fn end(self, n: u64, fate: Fate) -> Self {
        self.note("publisher", Event::Ended { ns: vec![n], fate })
    }

    fn publish(self, n: u64) -> Self {
        self.begin(n).end(n, Fate::Committed)
    }

    /// Delivers `n` to `process`, as its delivery `n`, for the `attempt`th time.
    fn deliver(self, process: &str, n: u64, attempt: u32) -> Self {
        self.note(process, Event::Delivered { n, serial: n, attempt, before: None })
    }

    fn answer(self, process: &str, n: u64, outcome: Outcome) -> Self {
        self.note(process, Event::Answering { serial: n, ok: true })
            .note(process, Event::Answered { serial: n, outcome })
    }

    fn done(self, process: &str, n: u64) -> Self {
        self.deliver(process, n, 1).answer(process, n, Outcome::Accepted)
    }

    fn fault(self, process: Option<&str>) -> Self {
        let process = process.map(str::to_owned);
        self.note("harness", Event::Fault { name: "fault".to_owned(), process, lasts: false })
    }

    fn audit(&self) -> Audit {
        Audit::of(&self.history, &self.dead, self.shape)
    }

    /// Checks that these promises are broken, and no other.
    fn breaks(&self, promises: &[&str]) {
        let breaches: Vec<_> = self.audit().breaches().collect();
        let found: Vec<_> = breaches.iter().filter_map(|breach| Some(breach.split_once(':')?.0)).collect();
        assert_eq!(found, promises, "{breaches:?}");
    }
}

#[test]
fn what_is_done_in_order_is_as_promised() {
    Book::default().publish(1).publish(2).done("a", 1).done("b", 2).breaks(&[]);
}

#[test]
fn committed_message_without_an_answer_is_lost() {
    Book::default().publish(1).breaks(&["lost"]);
    Book::default().publish(1).deliver("a", 1, 1).breaks(&["lost"]);
    Book::default().publish(1).deliver("a", 1, 1).answer("a", 1, Outcome::Refused).breaks(&["lost"]);
    Book::default().publish(1).deliver("a", 1, 1).answer("a", 1, Outcome::Failed).breaks(&["lost"]);
}

#[test]
fn answer_whose_reply_was_lost_may_have_counted() {
    Book::default().publish(1).deliver("a", 1, 1).answer("a", 1, Outcome::Unknown).breaks(&[]);
    let killed = Book::default().publish(1).deliver("a", 1, 1).note("a", Event::Answering { serial: 1, ok: true });
    killed.breaks(&[]);
}

#[test]
fn what_is_in_doubt_may_come_or_not() {
    let doubt = || Book::default().begin(1).end(1, Fate::InDoubt);
    doubt().breaks(&[]);
    doubt().done("a", 1).breaks(&[]);
    Book::default().begin(1).done("a", 1).breaks(&[]); // its publisher was killed
}

#[test]
fn what_was_rolled_back_or_never_published_is_strange() {
    Book::default().begin(1).end(1, Fate::RolledBack).breaks(&[]);
    Book::default().begin(1).end(1, Fate::RolledBack).done("a", 1).breaks(&["from nowhere"]);
    Book::default().done("a", 1).breaks(&["from nowhere"]);
}

#[test]
fn message_that_overtakes_another_of_its_key_is_out_of_order() {
    let published = || Book::default().publish(1).publish(2);
    published().done("a", 2).done("a", 1).breaks(&["order"]);
    let both_out = published().deliver("a", 1, 1).deliver("b", 2, 1);
    both_out.answer("a", 1, Outcome::Accepted).answer("b", 2, Outcome::Accepted).breaks(&["order"]);
    // It had been answered, but that came to nothing.
    let again = published().deliver("a", 1, 1).fault(None).answer("a", 1, Outcome::Unknown);
    again.done("b", 2).done("c", 1).breaks(&["order"]);
}

#[test]
fn subscription_without_order_has_none() {
    let mut book = Book::default().publish(1).publish(2).done("a", 2).done("a", 1);
    book.shape.by_key = false;
    book.breaks(&[]);
}

#[test]
fn messages_that_were_published_at_the_same_time_have_no_order() {
    let together = Book::default().begin(1).begin(2).end(1, Fate::Committed).end(2, Fate::Committed);
    together.done("a", 2).done("a", 1).breaks(&[]);
}

#[test]
fn delivery_that_is_refused_breaks_no_order() {
    let frozen = Book::default().publish(1).publish(2).done("b", 1).fault(None).deliver("a", 1, 1).done("b", 2);
    frozen.answer("a", 1, Outcome::Refused).breaks(&[]);
}

#[test]
fn message_that_comes_again_needs_a_fault() {
    let publish = || Book::default().publish(1);
    let twice = |book: Book| book.deliver("a", 1, 1).done("b", 1);
    twice(publish()).breaks(&["doubled"]);
    publish().deliver("a", 1, 1).fault(None).done("b", 1).breaks(&[]);
    publish().deliver("a", 1, 1).fault(Some("a")).done("b", 1).breaks(&[]);
    publish().deliver("a", 1, 1).fault(Some("c")).done("b", 1).breaks(&["doubled"]);
    // It was over, and for longer than a lease.
    twice(publish().fault(None).begin(2).end(2, Fate::RolledBack)).breaks(&["doubled"]);
}

#[test]
fn message_that_comes_after_its_acknowledgement_is_doubled() {
    let resurrected = Book::default().publish(1).done("a", 1).fault(None).deliver("b", 1, 1);
    resurrected.breaks(&["doubled", "doubled"]);
}

#[test]
fn message_that_was_given_back_comes_again() {
    let given_back = Book::default().publish(1).deliver("a", 1, 1).note("a", Event::Answering { serial: 1, ok: false });
    given_back.done("b", 1).breaks(&[]);
}

#[test]
fn answer_of_a_superseded_holder_that_counts_is_a_zombie() {
    let superseded = || Book::default().publish(1).deliver("a", 1, 1).fault(None).deliver("b", 1, 2);
    superseded().answer("a", 1, Outcome::Accepted).breaks(&["zombie"]);
    superseded().answer("b", 1, Outcome::Accepted).answer("a", 1, Outcome::Accepted).breaks(&["zombie"]);
    let refused = superseded().answer("b", 1, Outcome::Accepted).answer("a", 1, Outcome::Refused);
    refused.breaks(&[]);
    assert_eq!((refused.audit().refused, refused.audit().duplicates), (1, 1));
}

#[test]
fn dead_letters_are_poison_and_poison_is_a_dead_letter() {
    let mut condemned = Book::default().publish(1).deliver("a", 1, 1);
    condemned.dead.insert(1);
    condemned.breaks(&["dead letters"]);

    let poison = Event::Began { n: 1, key: None, poison: true };
    let mut poisonous = Book::default().note("publisher", poison).end(1, Fate::Committed);
    poisonous = poisonous.deliver("a", 1, 1).deliver("b", 1, 1);
    poisonous.breaks(&["lost", "dead letters"]);
    poisonous.dead.insert(1);
    poisonous.breaks(&[]);
}

#[test]
fn consumer_that_ends_by_itself_is_a_breach() {
    Book::default().note("a", Event::Gave { up: "no reason".to_owned() }).breaks(&["consumer ended"]);
}
