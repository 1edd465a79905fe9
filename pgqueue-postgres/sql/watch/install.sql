-- Makes what is missing of a watch, and enables what is disabled. What to do is in the setting pgqueue.watch, as DDL takes no
-- parameters. One statement, so that nobody waits behind the lock for whoever sent it.
do $watch$
declare
  v_watch constant jsonb := pg_catalog.current_setting('pgqueue.watch');
  v_table constant text := pg_catalog.format('%I.%I', v_watch ->> 'schema', v_watch ->> 'table');
  v_function constant text := pg_catalog.format('%I.%I', v_watch ->> 'schema', v_watch ->> 'function');
  v_when constant text := 'when (' || (v_watch ->> 'condition') || E'\n)'; -- which may end in a comment
  v_triggers jsonb;
  v_trigger jsonb;
  v_is_locked boolean;
begin
  if not pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('pgqueue.watch', (v_watch ->> 'oid')::bigint)) then
    raise exception using errcode = 'PQW01', message = 'another session installs these triggers';
  end if;
  -- Somebody may have been here since what is to be done was found out. It is looked at before the table is locked, so that
  -- it is not locked for nothing, and once more behind the lock, where nobody is any more.
  foreach v_is_locked in array array[false, true] loop
    v_triggers := (
      select pg_catalog.jsonb_agg(w) from pg_catalog.jsonb_array_elements(v_watch -> 'triggers') w
      where (w ->> 'create')::boolean <> exists (
        select from pg_catalog.pg_trigger t where t.tgrelid = v_table::pg_catalog.regclass and t.tgname = w ->> 'name'
      )
    );
    if v_triggers is null then
      raise exception using errcode = 'PQW01', message = 'another session has installed these triggers';
    end if;
    if not v_is_locked then
      -- Waits for others that make it too, so it comes before the lock.
      if (v_watch ->> 'create_function')::boolean and pg_catalog.to_regprocedure(v_function || '()') is null then
        execute pg_catalog.format(
          'create function %s() returns trigger language plpgsql as %L', v_function, v_watch ->> 'body'
        );
      end if;
      -- Behind a lock that is waited for, everybody else would wait.
      execute pg_catalog.format('lock table %s in share row exclusive mode nowait', v_table);
    end if;
  end loop;
  for v_trigger in select pg_catalog.jsonb_array_elements(v_triggers) loop
    if (v_trigger ->> 'create')::boolean then
      execute pg_catalog.format(
        'create trigger %I after %s on %s for each row %s execute function %s(%s)',
        v_trigger ->> 'name',
        v_trigger ->> 'event',
        v_table,
        v_when,
        v_function,
        pg_catalog.concat_ws(', ', pg_catalog.quote_literal(v_watch ->> 'channel'), pg_catalog.quote_literal(v_watch ->> 'mark'))
      );
    else
      execute pg_catalog.format('alter table %s enable trigger %I', v_table, v_trigger ->> 'name');
    end if;
  end loop;
end
$watch$
