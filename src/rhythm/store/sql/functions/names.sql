-- Names of tasks and workflows, queues.

-- The ids of queues by name, in order; unknown ones are made. Raises 23514 for a name that cannot be one.
create or replace function rhythm.resolve_queues(p_names text[]) returns integer[]
language plpgsql as $$
declare
  v_ids integer[];
begin
  for v_turn in 1 .. 2 loop
    select array_agg(q.id order by u.position) into v_ids
      from unnest(p_names) with ordinality u(name, position) left join rhythm.queues q on q.name = u.name;
    exit when array_position(v_ids, null) is null;
    insert into rhythm.queues (name) select distinct u.name from unnest(p_names) u(name) order by u.name
      on conflict do nothing;
  end loop;
  return v_ids;
end $$;

-- The ids of names, in order. Kind 0 means "whichever it is": the workflow of that name if one was published, else the
-- task if one was registered, else a row that stands for the name until then. Rows of names that nobody has published
-- or registered are locked against that until the transaction ends, so that what is parked under them is found.
-- Raises 23514 for a name that cannot be one.
create or replace function rhythm.resolve_names(p_kinds smallint[], p_names text[]) returns integer[]
language plpgsql as $$
declare
  v_ids integer[];
  v_unknown integer;
begin
  for v_turn in 1 .. 3 loop
    select array_agg(coalesce(r.id, n.id) order by u.position),
           count(*) filter (where coalesce(r.registered_at, n.registered_at) is null
                              and coalesce(r.definition_id, n.definition_id) is null)
      into v_ids, v_unknown
      from unnest(p_kinds, p_names) with ordinality u(kind, name, position)
      left join rhythm.names n on n.kind = u.kind and n.name = u.name
      left join rhythm.names r on r.id = n.resolved_id;
    exit when v_unknown = 0;
    if array_position(v_ids, null) is not null then
      insert into rhythm.names (kind, name)
        select distinct u.kind, u.name from unnest(p_kinds, p_names) u(kind, name) order by 1, 2 on conflict do nothing;
    else
      exit when v_turn = 3;
      perform 1 from rhythm.names n where n.id = any(v_ids) and n.registered_at is null and n.definition_id is null
        order by n.id for share;
    end if;
  end loop;
  return v_ids;
end $$;
