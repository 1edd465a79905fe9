-- Privileges: the tables are nobody's but the owner's. Roles are given what they may call.

revoke all on all functions in schema pgqueue from public;

-- Refuses what is no role: also `public`, which is everybody, and which quoting does not make a name.
create function pgqueue.ensure_role(v_role name) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from pg_roles where rolname = v_role) then
    raise exception 'role % does not exist', quote_literal(v_role) using errcode = '42704', hint = 'Create it first.';
  end if;
end
$$;

-- Lets a role call these functions, and see which version the schema has.
create function pgqueue.grant_calls(v_role name, v_functions text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgqueue.ensure_role(v_role);
  execute format('grant usage on schema pgqueue to %I', v_role);
  execute format('grant select on pgqueue.migration to %I', v_role);
  execute format('grant execute on function %s to %I', (select string_agg(format('pgqueue.%I', f), ', ') from unnest(v_functions) f), v_role);
end
$$;

create function pgqueue.grant_publisher(v_role name) returns void
language sql
set search_path = pg_catalog, pg_temp
return pgqueue.grant_calls(v_role, '{publish, publish_batch, is_elsewhere, key_hash, describe_topic}');

create function pgqueue.grant_consumer(v_role name) returns void
language sql
set search_path = pg_catalog, pg_temp
return pgqueue.grant_calls(v_role, '{
  insert_subscription, claim, settle, settle_in, outcome, beat, pulse, leave, arm, bury_owners, publish_scheduled, keep_stuck, trim, sweep,
  is_elsewhere, describe_subscription, stats, advance_checkpoint, checkpoints
}');

create function pgqueue.grant_admin(v_role name) returns void
language sql
set search_path = pg_catalog, pg_temp
return pgqueue.grant_calls(v_role, '{
  create_topic, delete_topic, describe_topic, insert_subscription, delete_subscription, describe_subscription, seek, stats,
  horizon_holder, dead_letters, redrive, purge, expire_leases, checkpoints, advance_checkpoint, reset_checkpoint, bury_owners,
  publish_scheduled, keep_stuck, trim, sweep, is_elsewhere
}');

-- Takes everything back that a role was granted here.
create function pgqueue.revoke_all(v_role name) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgqueue.ensure_role(v_role);
  execute format('revoke all on all functions in schema pgqueue from %I', v_role);
  execute format('revoke all on all tables in schema pgqueue from %I', v_role);
  execute format('revoke all on schema pgqueue from %I', v_role);
end
$$;

revoke all on function
  pgqueue.ensure_role, pgqueue.grant_calls, pgqueue.grant_publisher, pgqueue.grant_consumer, pgqueue.grant_admin, pgqueue.revoke_all
from public;
