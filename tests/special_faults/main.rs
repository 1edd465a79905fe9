//! One fault at a time, on a real server and through both clients, each followed by an audit of every message.

#[allow(dead_code, reason = "shared with other tests, of which each uses a part")]
#[path = "../postgres/backend.rs"]
mod backend;
#[path = "../both_clients.rs"]
mod both_clients;
#[allow(dead_code, reason = "shared with other tests, of which each uses a part")]
#[path = "../postgres/common.rs"]
mod common;

mod audit;
mod clocks;
mod disk;
mod eras;
mod fleet;
mod listening;
mod meddler;
mod poison;
mod pool;
mod process;
mod publishers;
mod shim;
mod slow;
mod unsound;
