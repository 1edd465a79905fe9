//! The scenarios.

pub(crate) mod backlog;
pub(crate) mod catch_up;
pub(crate) mod ceilings;
pub(crate) mod drain;
pub(crate) mod end_to_end;
pub(crate) mod fan_out;
pub(crate) mod idle;
pub(crate) mod in_memory;
pub(crate) mod latency;
pub(crate) mod notify_cost;
pub(crate) mod order;
pub(crate) mod pinned;
pub(crate) mod publish;
pub(crate) mod selector;

/// A table with nothing but payloads and a number.
pub(crate) const BARE: &str =
    "create table bare (id bigint generated always as identity primary key, payload bytea not null)";

pub(crate) const INSERT_BARE: &str = "insert into bare (payload) select * from unnest($1::bytea[])";
