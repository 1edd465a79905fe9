-- Privileges: the tables are nobody's but the owner's. Roles are given what they may call.

revoke all on all functions in schema pgqueue from public;

create function pgqueue.grant_publisher(v_role name) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('grant usage on schema pgqueue to %I', v_role);
  execute format('grant select on pgqueue.migration to %I', v_role);
  execute format('grant execute on function pgqueue.publish, pgqueue.publish_batch, pgqueue.key_hash, pgqueue.describe_topic to %I', v_role);
end
$$;

create function pgqueue.grant_consumer(v_role name) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('grant usage on schema pgqueue to %I', v_role);
  execute format('grant select on pgqueue.migration to %I', v_role);
  execute format(
    'grant execute on function pgqueue.insert_subscription, pgqueue.claim, pgqueue.settle, pgqueue.settle_in, pgqueue.outcome, '
    'pgqueue.beat, pgqueue.leave, pgqueue.arm, pgqueue.bury_owners, pgqueue.publish_scheduled, pgqueue.keep_stuck, pgqueue.trim, '
    'pgqueue.sweep, pgqueue.describe_subscription, pgqueue.stats, pgqueue.advance_checkpoint, pgqueue.checkpoints to %I',
    v_role
  );
end
$$;

revoke all on function pgqueue.grant_publisher, pgqueue.grant_consumer from public;
