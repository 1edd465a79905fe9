//! Consumers over tables of the user's own, on a real server and through both clients: rows that a query selects, each delivery a
//! transaction that locks them.

#[path = "../both_clients.rs"]
mod both_clients;
#[allow(dead_code, reason = "shared with other tests, of which each uses a part")]
#[path = "../postgres/common.rs"]
mod common;
#[path = "../small.rs"]
mod small;

mod answers;
mod bad_input;
mod base_queries;
mod counting;
mod go_original;
mod idle;
mod locking;
mod ordered;
mod table;
mod transaction;
mod waking;
