//! [`Error`]: what went wrong, while doing what, and the client's own error below it.

use std::{
    any::Any,
    borrow::Cow,
    error::Error as StdError,
    fmt::{self, Write as _},
    iter,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// The result of everything in pgqueue that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error that can cross threads: what an [`Error`] keeps as its source.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The error of every pgqueue crate.
///
/// [`kind`](Self::kind) says what went wrong, [`operation`](Self::operation) what was being done, and
/// [`source`](StdError::source) leads to the client's own error. The text names the thing concerned and what to do about
/// it; it never holds a payload or a secret, and does not repeat the source.
///
/// ```
/// use pgqueue_core::{Error, ErrorKind};
///
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let error = Error::new(ErrorKind::Connection, "connecting to db.example:5432").with_source(refused);
///
/// assert!(error.is_transient());
/// let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
/// assert_eq!(source.map(|io| io.kind()), Some(std::io::ErrorKind::ConnectionRefused));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: Option<Operation>,
    message: Cow<'static, str>,
    transient: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // drivers for other stores may need more
pub enum ErrorKind {
    /// The store could not be reached, or the connection to it was lost. Transient.
    Connection,
    /// The store was reached and refused one request. Transient only if the driver says so (a deadlock, say).
    Query,
    /// No answer came within the time limit. Transient.
    Timeout,
    /// Trying again cannot help: a missing privilege, an exhausted pool, a standby.
    Fatal,
    /// The caller's input cannot be used; nothing was done with it.
    Invalid,
    /// The named topic, subscription or message does not exist.
    NotFound,
    /// The thing exists already and differs from what was asked for.
    Conflict,
    /// The log no longer has all of what comes next: it was deleted, as its topic does not retain it for longer.
    Truncated,
    /// A payload is not what the handler expects.
    Decode,
    /// A [`Router`](crate::Router) has no handler for a message: its kind is unknown, or it has none.
    Unrouted,
    /// The delivery belongs to somebody else by now; the settlement was refused and changed nothing.
    LeaseLost,
    /// The request may or may not have taken effect. An unsettled message comes again.
    Unknown,
    /// A delivery was requeued while [`OnRequeue::Stop`](crate::OnRequeue::Stop) was in force.
    Requeued,
    /// A handler returned an error.
    Handler,
    /// A handler or a driver panicked.
    Panic,
}

impl ErrorKind {
    /// Whether an error of this kind is transient unless its driver says otherwise.
    fn is_transient(self) -> bool {
        match self {
            Self::Connection | Self::Timeout => true,
            Self::Query
            | Self::Fatal
            | Self::Invalid
            | Self::NotFound
            | Self::Conflict
            | Self::Truncated
            | Self::Decode
            | Self::Unrouted
            | Self::LeaseLost
            | Self::Unknown
            | Self::Requeued
            | Self::Handler
            | Self::Panic => false,
        }
    }
}

/// What was being done when an [`Error`] arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // more can be done to a queue than today's drivers do
pub enum Operation {
    /// Inserting the subscription.
    Insert,
    /// Listening for wake-ups.
    Listen,
    /// Fetching pending deliveries.
    Fetch,
    /// Answering a delivery with OK, Requeue or Reject.
    Settle,
    /// Publishing messages.
    Publish,
    /// Running the handler, decoding included.
    Handle,
    /// Managing topics, subscriptions and dead letters.
    Manage,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Insert => "inserting the subscription",
            Self::Listen => "listening for wake-ups",
            Self::Fetch => "fetching pending deliveries",
            Self::Settle => "settling a delivery",
            Self::Publish => "publishing",
            Self::Handle => "handling a delivery",
            Self::Manage => "managing the queue",
        })
    }
}

impl Error {
    /// Makes an error that says `message`: lowercase, no full stop, naming the thing and what to do about it.
    ///
    /// It is transient if its kind usually is; see [`with_transient`](Self::with_transient).
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation: None,
            message: message.into(),
            transient: kind.is_transient(),
            source: None,
        }))
    }

    /// Keeps `source` as the cause, so that callers can downcast to the client's own error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// Keeps as the cause an error that others keep too.
    pub(crate) fn with_shared_source(mut self, source: Arc<Self>) -> Self {
        self.0.source = Some(source);
        self
    }

    /// Says whether the same request may succeed if it is simply repeated.
    #[must_use]
    pub fn with_transient(mut self, transient: bool) -> Self {
        self.0.transient = transient;
        self
    }

    /// Says what was being done, unless that is known already: the innermost operation stands.
    #[must_use]
    pub fn during(mut self, operation: Operation) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Returns what went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns what was being done, if that is known.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        self.0.operation
    }

    /// Returns whether the same request may succeed if it is simply repeated.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.0.transient
    }

    /// The topic does not exist; every driver says so in the same words.
    #[must_use]
    pub fn topic_not_found(name: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("topic {name:?} does not exist; create it first"))
    }

    /// The subscription does not exist; every driver says so in the same words.
    #[must_use]
    pub fn subscription_not_found(name: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("subscription {name:?} does not exist; insert it first"))
    }

    /// The lease of a delivery is gone; every driver says so in the same words.
    #[must_use]
    pub fn lease_lost(subscription: &str) -> Self {
        let message = format!(
            "the delivery of subscription {subscription:?} is no longer held by this consumer; the message is or was handed out again"
        );
        Self::new(ErrorKind::LeaseLost, message)
    }

    /// The subscription has a living consumer and is [exclusive](crate::Consumers::Exclusive); every driver says so in the same
    /// words.
    #[must_use]
    pub fn in_use(subscription: &str) -> Self {
        let message = format!(
            "subscription {subscription:?} is exclusive and has a living consumer; stop that one, or wait for the end of its lease"
        );
        Self::new(ErrorKind::Conflict, message)
    }

    /// A subscription lost messages that it had not handed out, as [laggards are cut](crate::Laggards::Cut); every driver says
    /// so in the same words.
    #[must_use]
    pub fn cut_off(subscription: &str) -> Self {
        let message = format!(
            "subscription {subscription:?} lagged behind what its topic retains and lost messages, which its statistics count; move it with seek to what is left"
        );
        Self::new(ErrorKind::Truncated, message)
    }

    /// Turns what a panic carried into an error with its message.
    pub(crate) fn panic(payload: Box<dyn Any + Send>) -> Self {
        let said = match payload.downcast::<&str>().map(|said| said.to_string()) {
            Ok(said) => said,
            Err(payload) => payload.downcast::<String>().map_or_else(
                |payload| {
                    std::mem::forget(payload); // dropping foreign state that panicked may panic again
                    "no message".to_owned()
                },
                |said| *said,
            ),
        };
        Self::new(ErrorKind::Panic, format!("panicked: {said}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(operation) = self.0.operation {
            write!(f, "{operation}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, operation, message, transient, source } = &*self.0;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("operation", operation)
            .field("message", message)
            .field("transient", transient)
            .field("source", source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// How many causes of an error are written; one that is its own cause would have no end.
const MOST_CAUSES: usize = 32;

/// Writes an error and its causes on one line. They are foreign code, so whatever goes wrong in them ends the line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let write = AssertUnwindSafe(|| {
        write!(text, "{error}").ok()?;
        for cause in iter::successors(error.source(), |&error| error.source()).take(MOST_CAUSES) {
            write!(text, ": {cause}").ok()?;
        }
        Some(())
    });
    if let Err(payload) = catch_unwind(write) {
        std::mem::forget(payload);
        text.push_str("(its description panicked)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_the_operation_and_not_the_source() {
        let error =
            Error::new(ErrorKind::Connection, "connection closed").with_source("secret").during(Operation::Fetch);
        assert_eq!(error.to_string(), "fetching pending deliveries: connection closed");
        assert_eq!(chain(&error), "fetching pending deliveries: connection closed: secret");
    }

    #[test]
    fn innermost_operation_stands() {
        let error = Error::subscription_not_found("s").during(Operation::Fetch).during(Operation::Handle);
        assert_eq!(error.operation(), Some(Operation::Fetch));
    }

    #[test]
    fn drivers_decide_what_is_transient() {
        assert!(!Error::new(ErrorKind::Query, "syntax error").is_transient());
        assert!(Error::new(ErrorKind::Query, "deadlock detected").with_transient(true).is_transient());
        assert!(!Error::new(ErrorKind::Connection, "password refused").with_transient(false).is_transient());
    }

    #[test]
    fn descriptions_that_fail_panic_or_never_end_are_cut() {
        #[derive(Debug)]
        struct Cause(fn(&mut fmt::Formatter<'_>) -> fmt::Result);

        impl fmt::Display for Cause {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (self.0)(f)
            }
        }

        impl StdError for Cause {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(self)
            }
        }

        let line = |cause| chain(&Error::new(ErrorKind::Handler, "failed").with_source(Cause(cause)));
        assert_eq!(line(|_| Err(fmt::Error)), "failed: ");
        assert_eq!(line(|_| panic!("boom")), "failed: (its description panicked)");
        assert_eq!(line(|f| f.write_str("again")), format!("failed{}", ": again".repeat(MOST_CAUSES)));
    }

    #[test]
    fn panics_keep_their_message() {
        let caught = |payload: Box<dyn Any + Send>| Error::panic(payload).to_string();
        assert_eq!(caught(Box::new("str")), "panicked: str");
        assert_eq!(caught(Box::new("String".to_owned())), "panicked: String");
        assert_eq!(caught(Box::new(7)), "panicked: no message");
    }
}
