//! Schemas that grow: from every version there was, under traffic, interrupted, and by several at once.

pub(crate) mod fixtures;
mod interrupted;
mod live;
mod small_print;

/// What the next versions might bring, each a migration: columns in every table that traffic needs, an index, a constraint and a
/// table; every function made anew; and data that changes.
const FURTHER: [&str; 3] = [
    "
    alter table pgqueue.topic add column note text not null default '';
    alter table pgqueue.subscription add column note text not null default 'none';
    alter table pgqueue.cursor add column note text;
    alter table pgqueue.lease add column note bigint not null default 7;
    alter table pgqueue.log add column note text;
    alter table pgqueue.owner add column note text;
    alter table pgqueue.sleeper add column note text;
    create table pgqueue.note (id bigint generated always as identity primary key, text text not null);
    create index on pgqueue.log (topic, published_at);
    alter table pgqueue.lease add constraint noted check (note > 0);
    insert into pgqueue.migration (version) values (2);
    ",
    "
    do $anew$
    declare f regprocedure;
    begin
      for f in select oid from pg_proc where pronamespace = 'pgqueue'::regnamespace order by proname loop
        execute pg_get_functiondef(f);
      end loop;
    end $anew$;
    create function pgqueue.note(v_text text) returns void
    language sql security definer
    set search_path = pg_catalog, pg_temp
    begin atomic
      insert into pgqueue.note (text) values (v_text);
    end;
    revoke all on function pgqueue.note from public;
    insert into pgqueue.migration (version) values (3);
    ",
    "
    update pgqueue.subscription set note = name;
    update pgqueue.topic set note = name;
    delete from pgqueue.sleeper;
    select pgqueue.note('migrated');
    insert into pgqueue.migration (version) values (4);
    ",
];

/// The version that these lead to from the first.
const FURTHEST: &str = "4";
