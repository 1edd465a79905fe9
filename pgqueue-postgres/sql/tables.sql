-- The tables. Every message is stored once, in `log`; what a subscription has done is state per run of messages, not per message.

-- Where it was made for this role, that role need not be allowed to make schemas.
do $$
begin
  if to_regnamespace('pgqueue') is null then
    create schema pgqueue;
  end if;
end
$$;
revoke all on schema pgqueue from public;

create table pgqueue.migration (
  version    int primary key,
  applied_at timestamptz not null default clock_timestamp()
);

-- Whose transaction ids the tables name: the last one's, unless the database has moved to another server since.
create table pgqueue.era (
  number   int primary key,
  system   text not null,                          -- the server's identifier, or 'unknown'
  began_at timestamptz not null default clock_timestamp()
);

create table pgqueue.topic (
  id              bigint generated always as identity primary key,
  name            text not null unique,
  buckets         int not null,                    -- into which keys are hashed: the lanes of by-key subscriptions
  dedup_window_ms bigint not null,
  -- What all subscriptions have passed is kept up to these limits, each null if there is none.
  retain_ms       bigint,
  retain_messages bigint,
  retain_bytes    bigint,
  cuts            boolean not null default false   -- beyond them, also what a subscription has not passed is deleted
);

-- Drawn in publishing order: a row with a lower id has a transaction id that was assigned earlier.
create sequence pgqueue.log_id as bigint cache 1;

create table pgqueue.log (
  topic        bigint not null,
  id           bigint not null,
  xact         xid8 not null,                      -- the top-level transaction, also inside a savepoint
  published_at timestamptz not null,
  scheduled    bigint,                             -- its number in `scheduled`, if it waited there: the id that its publisher knows
  stretch_end  bigint,                             -- if a stretch begins here: its last id
  bucket       int not null,                       -- -1: it has no key, and no order
  key          text,
  kind         text,
  tags         text[],
  headers      jsonb,
  payload      bytea not null,
  primary key (topic, id)
);
-- Not those without a key: they come by id, and an entry beside the end of an index costs several times what one at its end does.
create index log_by_bucket on pgqueue.log (topic, bucket, id) where bucket >= 0;
-- What one call publishes to a topic are stretches of up to 128 messages, between whose ids there may be others of other transactions.
-- They are found where they begin: an entry for each message would be a third of what publishing writes.
create index log_by_xact on pgqueue.log (topic, xact, id) where stretch_end is not null;

create table pgqueue.subscription (
  id           bigint generated always as identity primary key,
  name         text not null unique,
  topic        bigint not null references pgqueue.topic,
  ordering     text not null check (ordering in ('unordered', 'by key', 'total', 'stable total')),
  batch        int not null,
  prefetch     int not null,
  lease_ms     bigint not null,
  max_attempts bigint not null,
  base_ms      float8 not null,
  multiplier   float8 not null,
  cap_ms       float8 not null,
  jitter       float8 not null,
  consumers    text not null check (consumers in ('competing', 'single active', 'exclusive')),
  workers      int not null,
  active       uuid,                               -- of one that has one consumer at a time: the last owner that was it
  -- Which messages it gets, null if all: as it was inserted, and as what the log is asked for. A message has to meet each of
  -- these that is not null.
  selector     jsonb,
  bucket       int,                                -- the bucket of the only key
  key          text,
  kinds        text[],
  tags_any     text[],
  tags_all     text[],
  rest         jsonb                               -- conditions that are none of those
);
create index on pgqueue.subscription (topic);

-- How far a lane has been handed out. Append-only, the newest `n` wins: a hot row is never updated.
-- The invariant: every message of the lane with an id up to `top` that `seen` sees was handed out exactly once, and no other.
-- In stable total order: every message up to `(upto, top)`, by transaction and id; `seen` sees the transactions before `upto`, and
-- `late_seen` what was there when the subscription started.
create table pgqueue.cursor (
  subscription bigint not null,
  lane         int not null,                       -- -1: what has no order; else the lane of an ordered subscription
  n            bigint not null,
  top          bigint not null,
  seen         pg_snapshot not null,
  upto         xid8 not null,                      -- no message with an id up to `top` has this transaction or a later one
  late_seen    pg_snapshot,                        -- while more latecomers than fit are handed out: what becomes `seen` then,
  late_upto    xid8,                               -- what becomes `upto`,
  late_after   bigint,                             -- and the last of them that was handed out
  floor        bigint not null,                    -- no lease of an ordered lane has a lower id
  moved_at     timestamptz not null,
  cut          bigint not null default 0,          -- how many messages were deleted before they were handed out
  primary key (subscription, lane, n)
);

-- What was deleted from a topic's log, and what is counted of the rest, where its retention asks for that.
create table pgqueue.extent (
  topic        bigint primary key,
  gone_top     bigint not null default 0,          -- how far the log is deleted, as a cursor says it: all up to there that
  gone_seen    pg_snapshot not null default '1:1:', -- `gone_seen` sees
  gone_upto    xid8 not null default '0',
  trimmed_id   bigint not null default 0,          -- the highest id that was deleted
  trimmed      xid8[] not null default '{}',       -- the latest 100 transactions of which something was deleted, and the one before
  top          bigint not null default 0,          -- how far the log is counted, as a cursor says it
  seen         pg_snapshot not null default '1:1:',
  upto         xid8 not null default '0',
  messages     bigint not null default 0,          -- how many messages up to there are left
  bytes        bigint not null default 0           -- and how many bytes of payload they have
);

-- A run of messages that was handed out and is not done: in one consumer's hand (token and owner are set), or ready for the next.
create table pgqueue.lease (
  id           bigint generated always as identity primary key,
  subscription bigint not null,
  lane         int not null,
  rank         bigint not null,                    -- its place in an ordered lane: the first id, or behind what waited when it was redriven
  token        uuid,                               -- random, made by the holder for each claim: only who knows it may settle
  owner        uuid,
  claimed_at   timestamptz not null,
  ready_at     timestamptz,                        -- null while in hand
  suspect      int not null default 0,             -- how often its holder died, up to 2: then it is handed out with few others, then alone
  alone        boolean not null default false,     -- its claim handed out nothing else
  kept         boolean not null default false,     -- its messages are in `kept`, not in `log`
  ids          bigint[] not null,                  -- ascending; of several that follow each other, the first, and the last negated: see `packed`
  place        text,                               -- what makes positions of the ids: see `start`; null in stable total order
  prior        int[],                              -- how often each was delivered before; null: never
  delivered_at timestamptz,                        -- when it was last handed out before
  requeued_at  timestamptz,
  check ((token is null) = (ready_at is not null) and (owner is null) = (token is null))
);
-- Not compressed: of a thousand ids with gaps that takes longer than all else that a claim does.
alter table pgqueue.lease alter column ids set storage external;
-- Those by which work is looked for have no lease in hand, or are entered beyond what the work left behind.
create index lease_ready on pgqueue.lease (subscription, ready_at, id) where ready_at is not null and lane < 0;
create index lease_lane on pgqueue.lease (subscription, lane, id) where lane >= 0;
create index lease_first on pgqueue.lease (subscription, (ids[1])) where not kept;
create index lease_owner on pgqueue.lease (owner, id) where owner is not null;

-- Answers that were given inside a caller's transaction, until the lease is shortened by them.
create table pgqueue.settled (
  lease bigint not null,
  id    bigint not null,
  primary key (lease, id)
);

-- One consumer, which beats.
create table pgqueue.owner (
  id           uuid primary key,
  subscription bigint not null,
  lease_ms     bigint not null,
  beat_at      timestamptz not null,
  suspected_at timestamptz                         -- since when it is silent, as somebody saw who could reach the server
);

-- Copies of messages that one subscription needs for longer than the log: dead letters, long retries.
create table pgqueue.kept (
  subscription bigint not null,
  id           bigint not null,
  xact         xid8 not null,
  published_at timestamptz not null,
  scheduled    bigint,
  key          text,
  kind         text,
  tags         text[],
  headers      jsonb,
  payload      bytea not null,
  primary key (subscription, id)
);

create table pgqueue.dead_letter (
  subscription bigint not null,
  id           bigint not null,
  attempts     int not null,
  reason       text not null,
  delivered_at timestamptz,
  requeued_at  timestamptz,
  died_at      timestamptz not null,
  lane         int not null,
  place        text,
  primary key (subscription, id)
);

create table pgqueue.scheduled (
  id           bigint generated always as identity primary key,
  topic        bigint not null,
  due_at       timestamptz not null,
  key          text,
  kind         text,
  tags         text[],
  headers      jsonb,
  payload      bytea not null
);
create index on pgqueue.scheduled (due_at, id);

create table pgqueue.dedup (
  topic      bigint not null,
  dedup_id   text not null,
  message    bigint not null,                      -- the first: its id, or below 0 the negative of its number in `scheduled`
  expires_at timestamptz not null,
  primary key (topic, dedup_id)
);
create index on pgqueue.dedup (expires_at);

-- Who sleeps and wants to be woken. Publishers read it and never write it.
create table pgqueue.sleeper (
  id          bigint generated always as identity primary key,
  topic       bigint not null,
  armed_until timestamptz not null
);
create index on pgqueue.sleeper (topic, armed_until);

-- How far somebody has come whose state is kept elsewhere.
create table pgqueue.checkpoint (
  name     text primary key,
  position text collate "C" not null,              -- `xact.id`, in stable total order
  moved_at timestamptz not null
);
