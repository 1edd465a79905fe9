//! What must be true of the stretches by which latecomers are found.

/// How many messages are in no stretch of their transaction, or in several.
pub const OUTSIDE_OF_STRETCHES: &str = "
    select count(*) from pgqueue.log l
    where (
      select count(*) from pgqueue.log h
      where h.topic = l.topic and h.xact = l.xact and h.stretch_end is not null and l.id between h.id and h.stretch_end
    ) <> 1";
