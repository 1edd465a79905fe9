-- Checkpoints: how far those have come whose state is kept elsewhere.

-- Moves a checkpoint forward, or makes it. False if it stands there already, or behind. Of two that move it at a time, the second
-- waits for the first to commit.
create function pgqueue.advance_checkpoint(v_name text, v_position text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgqueue.ensure_stable(v_position);
  insert into pgqueue.checkpoint as c (name, position, moved_at) values (v_name, v_position, clock_timestamp())
  on conflict (name) do update set position = excluded.position, moved_at = excluded.moved_at
  where c.position < excluded.position;
  return found;
end
$$;

-- Moves a checkpoint that stands at `v_from`, also back, or forgets it. Returns where it stood, null if there is none: it stays
-- there unless that is `v_from`.
create function pgqueue.reset_checkpoint(v_name text, v_from text, v_to text) returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_position text;
begin
  perform pgqueue.ensure_stable(v_to);
  select position into v_position from pgqueue.checkpoint where name = v_name for update;
  if v_position = v_from then
    if v_to is null then
      delete from pgqueue.checkpoint where name = v_name;
    else
      update pgqueue.checkpoint set position = v_to, moved_at = clock_timestamp() where name = v_name;
    end if;
  end if;
  return v_position;
end
$$;

create function pgqueue.checkpoints(v_name text) returns table (name text, "position" text, moved_at timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select c.name, c.position, c.moved_at from pgqueue.checkpoint c where v_name is null or c.name = v_name order by c.name;
end;

-- Refuses positions of other orders: in those, something may still come whose position is lower.
create function pgqueue.ensure_stable(v_position text) returns void
language plpgsql stable
as $$
begin
  if v_position collate "C" > pgqueue.stable_place(pgqueue.era(), pg_snapshot_xmax(pg_current_snapshot())) then
    raise exception 'the position % lies beyond the end of the log', quote_literal(v_position) using errcode = 'PQ006';
  elsif v_position !~ '^[0-9]{20}[.][0-9]{19}$' then
    raise exception 'the position % is not one in stable total order; take it from a subscription in that order', quote_literal(v_position)
      using errcode = 'PQ006';
  end if;
end
$$;
