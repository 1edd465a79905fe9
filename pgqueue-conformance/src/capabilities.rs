//! [`Capabilities`]: what a driver claims, and so which cases it must pass.

/// What a driver claims to do.
///
/// [`new`](Self::new) claims the basics, which every driver has: each subscription gets every message published after it
/// was inserted, until it is acknowledged. Each `with_..` adds a claim, and with it the cases that need it. A case that
/// needs what is not claimed is shown as ignored.
///
/// ```
/// use pgqueue_conformance::{Capabilities, Capability};
///
/// const CAPABILITIES: Capabilities = Capabilities::new().with_concurrent().with_leases().with_max_payload(64 * 1024);
/// assert!(CAPABILITIES.claims(Capability::Leases));
/// assert!(!CAPABILITIES.claims(Capability::LargePayloads));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// One bit a [`Capability`].
    claimed: u32,
    max_payload: usize,
}

/// The payload that [`Capability::LargePayloads`] stands for: far more than what fits into a notification or a page.
pub(crate) const LARGE_PAYLOAD: usize = 1024 * 1024;

impl Capabilities {
    /// Claims the basics, and payloads of 16 MiB, of which 1 MiB is tried.
    #[must_use]
    pub const fn new() -> Self {
        Self { claimed: 0, max_payload: pgqueue_core::MAX_PAYLOAD_BYTES }
    }

    /// Sets the largest payload that can be published. Default: 16 MiB, what core allows.
    #[must_use]
    pub const fn with_max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Returns whether a case that needs `capability` is to be passed.
    #[must_use]
    pub const fn claims(&self, capability: Capability) -> bool {
        match capability {
            Capability::LargePayloads => self.max_payload >= LARGE_PAYLOAD,
            other => self.claimed & other.bit() != 0,
        }
    }

    const fn with(mut self, capability: Capability) -> Self {
        self.claimed |= capability.bit();
        self
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes [`Capability`], and for each the builder that claims it.
macro_rules! capabilities {
    ($($capability:ident, $with:ident: $promise:literal;)*) => {
        /// What a case needs beyond the basics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive] // new cases may need more
        pub enum Capability {
            /// A payload of 1 MiB can be published; see [`Capabilities::with_max_payload`].
            LargePayloads,
            $(#[doc = concat!($promise, ".")] $capability,)*
        }

        impl Capabilities {
            $(
                #[doc = concat!("Claims [`", stringify!($capability), "`](Capability::", stringify!($capability), "): ", $promise, ".")]
                #[must_use]
                pub const fn $with(self) -> Self {
                    self.with(Capability::$capability)
                }
            )*
        }
    };
}

capabilities! {
    ExplicitTopics, with_explicit_topics: "A topic that was not created is an error";
    Concurrent, with_concurrent: "Several consumers share a subscription, and each message goes to one of them";
    Keys, with_keys: "Subscriptions may be ordered [by key](pgqueue_core::Order::ByKey)";
    TotalOrder, with_total_order: "Subscriptions may be ordered [in total](pgqueue_core::Order::Total)";
    StableTotalOrder, with_stable_total_order: "Subscriptions may be ordered [in stable total order](pgqueue_core::Order::StableTotal)";
    Durable, with_durable: "The queue survives [`reopen`](crate::Harness::reopen)";
    Transactional, with_transactional: "Messages can be [published in a transaction](crate::Harness::publish_uncommitted)";
    Disconnectable, with_disconnectable: "Connections can be [cut](crate::Harness::disconnect), and come back";
    Attempts, with_attempts: "Deliveries of a message are counted, and end when the maximum is reached";
    Delay, with_delay: "Requeued messages wait, by the answer's delay or the subscription's backoff";
    Schedule, with_schedule: "Messages can be published for later";
    Dedup, with_dedup: "Messages with a dedup id are published once";
    DeadLetters, with_dead_letters: "Messages that were given up are [kept](crate::Harness::dead_letters) and can be [redriven](crate::Harness::redrive)";
    Leases, with_leases: "Living consumers renew their leases; deliveries of one that went silent go to others, its handler is told by `lease_lost`, and its answer is refused";
    Headers, with_headers: "Headers, tags, kind and key come with the message";
    Batch, with_batch: "Deliveries may hold several messages";
    Unsubscribe, with_unsubscribe: "Subscriptions can be [deleted](crate::Harness::unsubscribe)";
    Replay, with_replay: "Topics [retain](pgqueue_core::Topic::with_retention) messages, and subscriptions [start](pgqueue_core::Subscription::with_start) in the past";
    Selectors, with_selectors: "Subscriptions may [select](pgqueue_core::Subscription::with_selector) a part of their topic's messages";
    Seek, with_seek: "Subscriptions can be [moved](crate::Harness::seek) to another start";
    SingleActive, with_single_active: "Subscriptions may give all to [one consumer at a time](pgqueue_core::Consumers)";
    Checkpoints, with_checkpoints: "Positions can be [stored](crate::Harness::checkpoints) under a name";
    Listeners, with_listeners: "Those who listen can be [counted](crate::Harness::listeners)";
    ReadableStore, with_readable_store: "Payloads can be [read](crate::Harness::stored_payload) in the store";
    PausedClock, with_paused_clock: "Time is tokio's, so that cases run on a paused clock, on one thread";
}

impl Capability {
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_claimed_is_claimed() {
        let some = Capabilities::new().with_keys().with_paused_clock();
        assert!(some.claims(Capability::Keys) && some.claims(Capability::PausedClock));
        assert!(!some.claims(Capability::Concurrent) && !Capabilities::new().claims(Capability::Keys));
    }

    #[test]
    fn large_payloads_are_claimed_by_size() {
        assert!(Capabilities::new().claims(Capability::LargePayloads));
        assert!(!Capabilities::new().with_max_payload(LARGE_PAYLOAD - 1).claims(Capability::LargePayloads));
    }
}
