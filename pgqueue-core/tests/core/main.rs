//! Core against a scripted store, on the paused clock: everything that needs no real driver. Pools, whose workers compete for
//! messages, and the registry of their subscriptions are tested against the memory driver.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test that meets the unexpected should stop there")]

mod acks;
mod errors;
mod failure;
mod flawed;
mod limits;
mod listen;
mod listen_again;
mod outcome;
mod panics;
mod pool;
mod pool_crashes;
mod pool_size;
mod publisher;
mod ready;
mod registry;
mod registry_health;
mod registry_repair;
mod registry_run;
mod retry;
mod router;
mod script;
mod send;
#[cfg(feature = "tower")]
mod service;
mod stop;
mod store;
mod stream;
mod worker;
