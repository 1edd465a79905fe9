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

-- A glob as a pattern of LIKE.
create function pgqueue.glob(v_glob text) returns text
language sql immutable strict parallel safe
return replace(replace(replace(replace(replace(v_glob, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%'), '?', '_');

-- Whether a condition holds for a message.
create function pgqueue.holds(v_condition jsonb, v_key text, v_kind text, v_tags text[], v_payload bytea) returns boolean
language plpgsql immutable
as $$
declare
  v_what constant text := (select k from jsonb_object_keys(v_condition) k);
  v_operand constant jsonb := v_condition -> v_what;
  v_member jsonb;
  v_number float8;
  c jsonb;
begin
  case v_what
    when 'and' then
      for c in select jsonb_array_elements(v_operand) loop
        if pgqueue.holds(c, v_key, v_kind, v_tags, v_payload) is not true then
          return false;
        end if;
      end loop;
      return true;
    when 'or' then
      for c in select jsonb_array_elements(v_operand) loop
        if pgqueue.holds(c, v_key, v_kind, v_tags, v_payload) then
          return true;
        end if;
      end loop;
      return false;
    when 'not' then
      return not pgqueue.holds(v_operand, v_key, v_kind, v_tags, v_payload);
    when 'key' then
      return coalesce(v_key = v_operand #>> '{}', false);
    when 'key_like' then
      return coalesce(v_key like pgqueue.glob(v_operand #>> '{}'), false);
    when 'kinds' then
      return coalesce(v_operand ? v_kind, false);
    when 'kind_like' then
      return coalesce(v_kind like pgqueue.glob(v_operand #>> '{}'), false);
    when 'tags_any' then
      return coalesce(v_operand ?| v_tags, false);
    when 'tags_all' then
      return v_operand <> '[]' and coalesce(to_jsonb(v_tags) @> v_operand, false);
    when 'payload' then
      v_member := pgqueue.payload_json(v_payload);
      return coalesce(jsonb_typeof(v_member) = 'object' and v_member @> v_operand, false);
    when 'number' then
      v_member := pgqueue.member(pgqueue.payload_json(v_payload), v_operand -> 'path');
      if jsonb_typeof(v_member) is distinct from 'number' or abs(v_member::numeric) > 1.7976931348623157e308 then
        return false;
      end if;
      -- What is too small for a double is 0.
      v_number := case when abs(v_member::numeric) < 3e-324 then 0 else v_member::float8 end;
      return case v_operand ->> 'is'
        when 'greater' then v_number > (v_operand -> 'to')::float8
        when 'greater_or_equal' then v_number >= (v_operand -> 'to')::float8
        when 'less' then v_number < (v_operand -> 'to')::float8
        when 'less_or_equal' then v_number <= (v_operand -> 'to')::float8
      end;
  end case;
end
$$;

-- What stands at a path of members; elements of lists have no names.
create function pgqueue.member(v_value jsonb, v_path jsonb) returns jsonb
language plpgsql immutable strict
as $$
declare
  v_name text;
begin
  for v_name in select jsonb_array_elements_text(v_path) loop
    if jsonb_typeof(v_value) <> 'object' then
      return null;
    end if;
    v_value := v_value -> v_name;
  end loop;
  return v_value;
end
$$;

-- Whether a subscription gets a message. Without settings of its own, so that it becomes part of the statements that call it.
create function pgqueue.selects(
  v_wanted_key text, v_kinds text[], v_tags_any text[], v_tags_all text[], v_rest jsonb, v_key text, v_kind text, v_tags text[], v_payload bytea
)
returns boolean
language sql immutable
as $$
  select (v_wanted_key is null or v_key = v_wanted_key)
    and (v_kinds is null or v_kind = any (v_kinds))
    and (v_tags_any is null or v_tags && v_tags_any)
    and (v_tags_all is null or v_tags @> v_tags_all)
    and (v_rest is null or pgqueue.holds(v_rest, v_key, v_kind, v_tags, v_payload))
$$;
