-- Selectors: which messages a subscription gets.

-- A payload as JSON, or null if it is none that can be stored. Its exception block cannot run in a parallel worker, nor what calls it.
create function pgqueue.payload_json(v_payload bytea) returns jsonb
language plpgsql immutable strict
as $$
begin
  return convert_from(v_payload, 'UTF8')::jsonb;
exception when data_exception or program_limit_exceeded or feature_not_supported then -- the last: in databases that are not UTF-8
  return null;
end
$$;

-- A JSON number as a double; null if it is none, or beyond every double. What is too small for one is 0.
create function pgqueue.json_number(v_value jsonb) returns float8
language plpgsql immutable strict
as $$
begin
  if jsonb_typeof(v_value) = 'number' then
    return v_value::float8;
  end if;
  return null;
exception when numeric_value_out_of_range then
  return case when abs(v_value::numeric) < 1 then 0 end;
end
$$;

-- What stands at a path of members; elements of lists have no names.
create function pgqueue.member(v_value jsonb, v_path jsonb) returns jsonb
language plpgsql immutable strict
as $$
begin
  for i in 0 .. jsonb_array_length(v_path) - 1 loop
    v_value := v_value -> (v_path ->> i);
  end loop;
  return v_value;
end
$$;

-- A glob as a pattern of LIKE.
create function pgqueue.glob(v_glob text) returns text
language sql immutable strict parallel safe
return replace(replace(replace(replace(replace(v_glob, E'\\', E'\\\\'), '%', E'\\%'), '_', E'\\_'), '*', '%'), '?', '_');

-- How a comparison may come out, as `btfloat8cmp` says it.
create function pgqueue.outcomes(v_comparison text) returns int[]
language sql immutable parallel safe
return case v_comparison
  when 'greater' then '{1}'::int[] when 'greater_or_equal' then '{0,1}' when 'less' then '{-1}' when 'less_or_equal' then '{-1,0}'
end;

-- Whether a condition holds for a message with this payload.
create function pgqueue.holds(v_condition jsonb, v_key text, v_kind text, v_tags text[], v_json jsonb) returns boolean
language plpgsql immutable
as $$
declare
  v_operand jsonb;
  v_holds boolean;
begin
  if v_condition ? 'and' then
    v_operand := v_condition -> 'and';
    for i in 0 .. jsonb_array_length(v_operand) - 1 loop
      if not pgqueue.holds(v_operand -> i, v_key, v_kind, v_tags, v_json) then
        return false;
      end if;
    end loop;
    return true;
  elsif v_condition ? 'or' then
    v_operand := v_condition -> 'or';
    for i in 0 .. jsonb_array_length(v_operand) - 1 loop
      if pgqueue.holds(v_operand -> i, v_key, v_kind, v_tags, v_json) then
        return true;
      end if;
    end loop;
    return false;
  elsif v_condition ? 'not' then
    return not pgqueue.holds(v_condition -> 'not', v_key, v_kind, v_tags, v_json);
  end if;
  -- One expression, as each statement costs as much as most conditions.
  v_holds := case
    when v_condition ? 'kinds' then coalesce((v_condition -> 'kinds') ? v_kind, false)
    when v_condition ? 'kind_like' then coalesce(v_kind like pgqueue.glob(v_condition ->> 'kind_like'), false)
    when v_condition ? 'key' then coalesce(v_key = v_condition ->> 'key', false)
    when v_condition ? 'key_like' then coalesce(v_key like pgqueue.glob(v_condition ->> 'key_like'), false)
    when v_condition ? 'payload' then coalesce(v_json @> (v_condition -> 'payload'), false)
    when v_condition ? 'number' then coalesce(
      btfloat8cmp(pgqueue.json_number(pgqueue.member(v_json, v_condition #> '{number,path}')), (v_condition #> '{number,to}')::float8)
        = any (pgqueue.outcomes(v_condition #>> '{number,is}')), false)
    when v_condition ? 'tags_any' then coalesce((v_condition -> 'tags_any') ?| v_tags, false)
    when v_condition ? 'tags_all' then v_condition -> 'tags_all' <> '[]' and coalesce(to_jsonb(v_tags) @> (v_condition -> 'tags_all'), false)
  end;
  if v_holds is null then
    raise exception 'the condition % is unknown', (select quote_literal(k) from jsonb_object_keys(v_condition) k limit 1);
  end if;
  return v_holds;
end
$$;

-- The rest of what a subscription selects, for a look: what is frequent as plain comparisons. A message has to meet each of these
-- that is not null.
create type pgqueue.conditions as (
  key_like  text,                                  -- patterns of LIKE
  kind_like text,
  contained jsonb,                                 -- in the payload
  path      text[],                                -- where in the payload there is a number,
  number    float8,                                -- what it is compared to,
  outcomes  int[],                                 -- and how that may come out
  others    jsonb,                                 -- conditions that are none of those: `and`
  parses    boolean,                               -- those need the payload
  careful   boolean                                -- payloads may be anything: else what cannot be read is an error
);

create function pgqueue.conditions(v_rest jsonb, v_careful boolean) returns pgqueue.conditions
language plpgsql immutable strict
as $$
declare
  v_others jsonb := '[]';
  v_condition jsonb;
  c pgqueue.conditions;
begin
  for v_condition in select jsonb_array_elements(coalesce(v_rest -> 'and', jsonb_build_array(v_rest))) loop
    if v_condition ? 'key_like' and c.key_like is null then
      c.key_like := pgqueue.glob(v_condition ->> 'key_like');
    elsif v_condition ? 'kind_like' and c.kind_like is null then
      c.kind_like := pgqueue.glob(v_condition ->> 'kind_like');
    -- One of the two, so that a payload is parsed once, and once more only if that one holds.
    elsif v_condition ? 'payload' and c.contained is null and c.path is null then
      c.contained := v_condition -> 'payload';
    elsif v_condition ? 'number' and c.contained is null and c.path is null
      -- A name that is a number would also find an element of a list.
      and not exists (select from jsonb_array_elements_text(v_condition #> '{number,path}') name where name ~ '^[[:space:]]*[-+]?[0-9]+$')
    then
      c.path := array(select jsonb_array_elements_text(v_condition #> '{number,path}'));
      c.number := v_condition #> '{number,to}';
      c.outcomes := pgqueue.outcomes(v_condition #>> '{number,is}');
    else
      v_others := v_others || jsonb_build_array(v_condition);
    end if;
  end loop;
  if v_others <> '[]' then
    c.others := jsonb_build_object('and', v_others);
    c.parses := jsonb_path_exists(c.others, '$.**.payload') or jsonb_path_exists(c.others, '$.**.number');
  end if;
  c.careful := v_careful;
  return c;
end
$$;

-- The payload for conditions. As the next: without settings of its own, so that it becomes part of the statements that call it.
create function pgqueue.parsed(v_payload bytea, v_careful boolean) returns jsonb
language sql stable
as $$
  select case when v_careful then pgqueue.payload_json(v_payload) else convert_from(v_payload, 'UTF8')::jsonb end
$$;

-- Whether a subscription gets a message.
create function pgqueue.selects(
  v_wanted_key text, v_kinds text[], v_tags_any text[], v_tags_all text[], c pgqueue.conditions,
  v_key text, v_kind text, v_tags text[], v_payload bytea
)
returns boolean
language sql stable
as $$
  select (v_wanted_key is null or v_key = v_wanted_key)
    and (v_kinds is null or v_kind = any (v_kinds))
    and (v_tags_any is null or v_tags && v_tags_any)
    and (v_tags_all is null or v_tags @> v_tags_all)
    -- One condition after the other, as they stand here.
    and (c.careful is null or (
      (c.key_like is null or v_key like c.key_like)
      and (c.kind_like is null or v_kind like c.kind_like)
      and (c.contained is null or pgqueue.parsed(v_payload, c.careful) @> c.contained)
      and (c.path is null or btfloat8cmp(
        case when c.careful then pgqueue.json_number(pgqueue.payload_json(v_payload) #> c.path)
             else (convert_from(v_payload, 'UTF8')::jsonb #> c.path)::float8 end, c.number
      ) = any (c.outcomes))
      and (c.others is null or pgqueue.holds(c.others, v_key, v_kind, v_tags, case when c.parses then pgqueue.parsed(v_payload, c.careful) end))
    ))
$$;
