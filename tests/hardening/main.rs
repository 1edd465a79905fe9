//! Whoever may do little or means harm, schemas that grow under traffic, and input at random: through both clients.

#[allow(dead_code, reason = "shared with other tests, of which each uses a part")]
#[path = "../postgres/backend.rs"]
mod backend;
#[path = "../both_clients.rs"]
mod both_clients;
mod catalog;
#[allow(dead_code, reason = "shared with other tests, of which each uses a part")]
#[path = "../postgres/common.rs"]
mod common;

mod fuzz;
mod privileges;
mod upgrades;
