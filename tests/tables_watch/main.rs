//! Triggers on users' tables, on a real server and through both clients.

#[path = "../both_clients.rs"]
mod both_clients;
mod common;

mod health;
mod installing;
mod locks;
mod mistakes;
mod names;
mod storm;
