//! What the sessions of a database do.

/// How many sessions of a database wait for a lock.
pub const WAITS: &str =
    "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";

/// Ends those that listen, and says how many they were.
pub const END_LISTENERS: &str = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
    where datname = current_database() and pid <> pg_backend_pid() and query ilike 'listen %'";
