-- The tables of a team that publishes by plain SQL: a message is copied to each subscription of its topic when it is inserted.

create table topics (
  name text primary key,
  dedup_window interval not null
);

create table subscriptions (
  id bigint generated always as identity primary key,
  name text not null unique check (name <> ''),
  topic text not null references topics,
  ordering text not null,
  base_delay interval not null,
  multiplier float8 not null,
  longest_delay interval not null,
  jitter float8 not null
);

create sequence message_ids;

create table messages (
  serial bigint generated always as identity primary key,
  -- No foreign key: unsubscribing would wait for what is in hand.
  subscription bigint not null,
  -- The same for all copies.
  id bigint not null,
  topic text not null,
  payload bytea not null,
  key text,
  kind text,
  tags jsonb not null,
  headers jsonb not null,
  published_at timestamptz not null default clock_timestamp(),
  due_at timestamptz not null,
  is_retry boolean not null default false,
  deliveries int not null default 0,
  last_delivered_at timestamptz,
  last_ack_at timestamptz
);
create index on messages (subscription, id);
create index on messages (subscription, due_at);

create table dead_letters (like messages, reason text not null, died_at timestamptz not null default clock_timestamp());

create table dedup_ids (
  topic text,
  dedup_id text,
  message bigint not null,
  published_at timestamptz not null,
  primary key (topic, dedup_id)
);

-- Rings for what can be handed out, and for consumers whose subscription is gone.
create function ring() returns trigger language plpgsql as $$
begin
  notify messages;
  return null;
end $$;
create trigger ring after insert or update of due_at on messages for each statement execute function ring();
create trigger ring after delete on subscriptions for each statement execute function ring();
