//! What must be true of the runs by which latecomers are found.

/// How many messages are in no run of their transaction, or in several.
pub const OUTSIDE_OF_RUNS: &str = "
    select count(*) from pgqueue.log l
    where (
      select count(*) from pgqueue.log h
      where h.topic = l.topic and h.xact = l.xact and h.run_end is not null and l.id between h.id and h.run_end
    ) <> 1";
