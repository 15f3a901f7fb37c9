-- Definitions of workflows.

-- Stores compiled workflows and makes each the current one of its name; executions of that name that waited for it become
-- claimable. A definition that is there already (same name and hash) is only made current. Parallel arrays.
-- Returns their ids in order. Raises 23514 for a name that cannot be one.
create or replace function rhythm.publish(
  p_names text[], p_hashes text[], p_irs bytea[], p_sources text[], p_source_hashes text[]) returns bigint[]
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_ids bigint[];
begin
  insert into rhythm.names (kind, name)
    select k.kind, n.name from (values (0), (2)) k(kind), (select distinct u.name from unnest(p_names) u(name)) n
      order by 1, 2 on conflict do nothing;
  perform 1 from rhythm.names n where n.kind in (0, 2) and n.name = any(p_names) order by n.id for update;
  insert into rhythm.definitions (name_id, hash, ir, source, source_hash, published_at)
    select n.id, u.hash, u.ir, u.source, u.source_hash, v_now
      from unnest(p_names, p_hashes, p_irs, p_sources, p_source_hashes) u(name, hash, ir, source, source_hash)
      join rhythm.names n on n.kind = 2 and n.name = u.name
    on conflict do nothing;
  select array_agg(d.id order by u.position) into v_ids
    from unnest(p_names, p_hashes) with ordinality u(name, hash, position)
    join rhythm.names n on n.kind = 2 and n.name = u.name
    join rhythm.definitions d on d.name_id = n.id and d.hash = u.hash;
  update rhythm.names n set definition_id = d.id from rhythm.definitions d
    where d.id = any(v_ids) and n.id = d.name_id and n.definition_id is distinct from d.id;
  perform rhythm.resolve_unknown(array(
    select n.id from rhythm.names n where n.kind = 2 and n.name = any(p_names)));
  perform rhythm.return_parked(v_now, array(
    select n.id from rhythm.names n where n.kind in (0, 2) and n.name = any(p_names)), 10000);
  return v_ids;
end $$;

-- A definition by id, or by hash, or the current one of a name: give one. Returns no row when there is none.
-- Raises nothing.
create or replace function rhythm.definition(p_id bigint, p_hash text, p_name text)
returns table (id bigint, name text, hash text, ir bytea, source text, source_hash text, published_at timestamptz,
  current boolean)
language sql stable as $$
  select d.id, n.name, d.hash, d.ir, d.source, d.source_hash, d.published_at, n.definition_id = d.id
    from rhythm.definitions d join rhythm.names n on n.id = d.name_id
    where case when p_id is not null then d.id = p_id
               when p_hash is not null then d.hash = p_hash
               else n.kind = 2 and n.name = p_name and n.definition_id = d.id end
    order by d.id desc limit 1
$$;

-- The JSON Schemas of the inputs of those of these tasks (null: of all, up to 10,000) that a worker has registered with
-- one. Raises nothing.
create or replace function rhythm.task_schemas(p_names text[]) returns table (name text, input_schema jsonb)
language sql stable as $$
  select n.name, n.input_schema from rhythm.names n
    where n.kind = 1 and (p_names is null or n.name = any(p_names))
      and n.registered_at is not null and n.input_schema is not null
    order by n.id limit case when p_names is null then 10000 end
$$;

-- How many unfinished executions of a workflow run another definition than the one with this hash. Raises nothing.
create or replace function rhythm.count_staying(p_name text, p_hash text) returns bigint
language sql stable as $$
  select count(*) from rhythm.definitions d join rhythm.names n on n.id = d.name_id
    join rhythm.waits w on w.definition_id = d.id
    where n.kind = 2 and n.name = p_name and d.hash <> p_hash
$$;
