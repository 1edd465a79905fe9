//! What whoever operates a service sees: traces that lead from publishers to handlers, and metrics with a dashboard that knows them.

mod metrics;
mod traces;
