//! Job tables on a real server, through both clients.

#[path = "../both_clients.rs"]
mod both_clients;
mod common;

mod answers;
mod claiming;
mod leases;
mod outages;
mod shapes;
mod waking;
mod working;
