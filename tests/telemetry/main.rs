//! What whoever operates a service sees: traces that lead from publishers to handlers, what was given up, and metrics with a dashboard that
//! knows them.

#[allow(dead_code, reason = "shared with other tests, of which each uses a part")]
#[path = "../postgres/backend.rs"]
mod backend;
#[path = "../both_clients.rs"]
mod both_clients;
#[allow(dead_code, unused_imports, reason = "shared with other tests, of which each uses a part")]
#[path = "../tables_jobs/common.rs"]
mod common;

mod dead_letters;
mod metrics;
mod traces;
