//! The queue on a real server, through both clients: what the conformance kit, which knows nothing of PostgreSQL, cannot ask.

mod backend;
mod between;
#[path = "../both_clients.rs"]
mod both_clients;
mod common;
mod sleeping;

mod bad_input;
mod checkpoints;
mod consuming;
mod crossing;
mod dedup;
mod durable;
mod idle;
mod laggards;
mod lanes;
mod lifecycle;
mod listener;
mod losses;
mod ok_in;
mod pools;
mod pulsing;
mod registry;
mod retention;
mod ringing;
mod selecting;
mod sharing;
mod taking_over;
mod trimming;
mod waking;
