-- Starting executions.

-- Inserts executions and puts each where it belongs: ready, gated (its queue has limits), later (delayed, or its name is
-- unknown), and waits beside that for workflows. All arrays are parallel to p_ids; null instead of an array means null for every row. Names and
-- queues are given as positions (from 1) in p_names and p_queues, which hold ids. Ids that exist already are left alone.
-- What may turn out to be a workflow has its row in waits from the start, so that signals can reach it.
-- Returns the ids inserted, and the queues in which something became claimable. Internal. Raises nothing of its own.
create or replace function rhythm.insert_executions(
  p_now timestamptz, p_ids uuid[], p_inputs bytea[], p_name integer[], p_names integer[],
  p_queue integer[], p_queues integer[], p_priorities integer[], p_available timestamptz[], p_delays double precision[],
  p_keys text[], p_retries integer[], p_retry text[], p_timeouts bigint[], p_tags text[], p_definitions bigint[],
  p_parents uuid[], p_operations integer[], p_roots uuid[], p_limit_keys text[],
  out o_inserted uuid[], out o_queues integer[])
language plpgsql as $$
declare
  v_rows integer[];
begin
  -- `on conflict do nothing` costs a sixth of a start, so it is not used: an id that exists is rare, and then the rows
  -- are inserted again without it. Another one may appear in between, hence the loop.
  for v_turn in 1 .. 100 loop
    begin
      select i.o_inserted, i.o_queues into o_inserted, o_queues
        from rhythm.insert_rows(p_now, v_rows, p_ids, p_inputs, p_name, p_names, p_queue, p_queues, p_priorities, p_available,
          p_delays, p_keys, p_retries, p_retry, p_timeouts, p_tags, p_definitions, p_parents, p_operations, p_roots,
          p_limit_keys) i;
      return;
    exception when unique_violation then
      v_rows := array(
        select min(u.row)::integer from unnest(p_ids) with ordinality u(id, row)
          where not exists (select from rhythm.executions e where e.id = u.id) group by u.id order by 1);
    end;
  end loop;
  raise exception 'rows of executions that do not exist' using errcode = 'XX000';
end $$;

-- The rows of insert_executions at the given positions (null: all), none of which exists. Internal. Raises 23505 if one
-- does.
create or replace function rhythm.insert_rows(
  p_now timestamptz, p_rows integer[], p_ids uuid[], p_inputs bytea[], p_name integer[], p_names integer[],
  p_queue integer[], p_queues integer[], p_priorities integer[], p_available timestamptz[], p_delays double precision[],
  p_keys text[], p_retries integer[], p_retry text[], p_timeouts bigint[], p_tags text[], p_definitions bigint[],
  p_parents uuid[], p_operations integer[], p_roots uuid[], p_limit_keys text[],
  out o_inserted uuid[], out o_queues integer[])
language plpgsql as $$
declare
  v_limited integer[] := array(select q.id from rhythm.queues q where q.limited);
  v_gated uuid[];
  v_queue_ids integer[];
  v_retries integer[];
  v_retry jsonb[];
  v_timeouts bigint[];
  v_priorities smallint[];
  v_definitions bigint[];
  v_known boolean[];
  v_unknown integer[];
  v_workflows integer[];
begin
  select array_agg(n.queue_id order by u.position), array_agg(n.retries order by u.position),
         array_agg(n.retry order by u.position), array_agg(n.timeout_ms order by u.position),
         array_agg(n.priority order by u.position), array_agg(n.definition_id order by u.position),
         array_agg(n.registered_at is not null or n.definition_id is not null order by u.position),
         coalesce(array_agg(n.id) filter (where n.registered_at is null and n.definition_id is null), '{}'),
         coalesce(array_agg(n.id) filter (where n.kind <> 1), '{}')
    into v_queue_ids, v_retries, v_retry, v_timeouts, v_priorities, v_definitions, v_known, v_unknown, v_workflows
    from unnest(p_names) with ordinality u(id, position) join rhythm.names n on n.id = u.id;

  with fresh as (
    insert into rhythm.executions as e (id, created_at, name_id, queue_id, retries, timeout_ms, operation, priority,
      parent_id, root_id, definition_id, available_at, key, retry, tags, limit_key, inputs)
    select u.id, p_now, p_names[u.name],
      coalesce(p_queues[u.queue], case when v_known[u.name] then v_queue_ids[u.name] end),
      coalesce(u.retries, case when v_known[u.name] then v_retries[u.name] end),
      coalesce(u.timeout_ms, case when v_known[u.name] then v_timeouts[u.name] end),
      u.operation,
      coalesce(u.priority::smallint, case when v_known[u.name] then v_priorities[u.name] end),
      u.parent_id, u.root_id,
      coalesce(u.definition_id, v_definitions[u.name]),
      case when u.delay > 0 then rhythm.time_after(p_now, u.delay) when u.available_at > p_now then u.available_at end,
      u.key, rhythm.merge_retry(v_retry[u.name], u.retry::jsonb), u.tags::jsonb, u.limit_key, u.inputs
    from unnest(p_ids, p_inputs, p_name, p_queue, p_priorities, p_available, p_delays, p_keys, p_retries, p_retry,
                p_timeouts, p_tags, p_definitions, p_parents, p_operations, p_roots, p_limit_keys) with ordinality
      u(id, inputs, name, queue, priority, available_at, delay, key, retries, retry,
        timeout_ms, tags, definition_id, parent_id, operation, root_id, limit_key, row)
    where p_rows is null or u.row = any(p_rows)
    returning e.id, e.seq, e.name_id, e.queue_id, e.priority, e.available_at, e.definition_id,
      octet_length(e.inputs) as size,
      e.name_id = any(v_unknown) as unknown, e.name_id = any(v_workflows) as workflow),
  now_ready as (
    insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, attempts, size, id)
    select f.queue_id, case when f.workflow then 0 else f.name_id end, -f.priority, 0, f.seq, 0, f.size, f.id
      from fresh f where f.available_at is null and not f.unknown and f.queue_id <> all(v_limited)),
  not_yet as (
    insert into rhythm.later (id, available_at, queue_id, name_id, seq, attempts, size, priority_rank, lost, reason)
    select f.id, case when f.unknown then 'infinity' else f.available_at end, f.queue_id,
           case when f.workflow and not f.unknown then 0 else f.name_id end, f.seq, 0, f.size, -f.priority, 0,
           case when f.unknown then 3 else 1 end
      from fresh f where f.available_at is not null or f.unknown),
  lock_rows as (
    insert into rhythm.waits (id, version, next_number, seen_through, outstanding, unread_signals, queue_id, size, seq,
      definition_id, priority_rank, suspended)
    select f.id, 0, 1, 0, 0, 0, f.queue_id, f.size, f.seq, f.definition_id, -f.priority, false
      from fresh f where f.workflow)
  select array_agg(f.id), array_agg(distinct f.queue_id) filter (where f.available_at is null and not f.unknown),
         array_agg(f.id) filter (where f.available_at is null and not f.unknown and f.queue_id = any(v_limited))
    into o_inserted, o_queues, v_gated from fresh f;
  if v_gated is not null then
    perform rhythm.put_at_gates(v_gated, array_fill(0, array[cardinality(v_gated)]), null);
  end if;
end $$;

-- Starts executions. Rows are parallel arrays as in insert_executions; names come as distinct (kind, name) pairs (kind
-- 0: whichever is known by that name), queues as distinct names, and each row points into them from 1.
-- Key policies: 1 return, 2 reject, 3 replace, 4 after_failure.
-- Returns, row by row, the id of the execution that stands for it and what became of it: 1 started, 2 existing (same id
-- or key), 3 started in place of a pending one, 4 refused: key in use with other inputs, 5 refused: key in use.
-- A name that nobody knows is accepted; the execution waits until somebody does.
-- A row with a send id brings a signal for the execution that stands for it, in the same transaction; with a key (whose
-- policy must be 1) that is the one that runs under it, or a new one when that has finished.
-- Raises RH001 for a definition that is not there, 23514 for names, keys and limit keys that cannot be one, and what signal
-- raises.
create or replace function rhythm.start_many(
  p_ids uuid[], p_inputs bytea[], p_name integer[], p_kinds smallint[], p_names text[],
  p_queue integer[] default null, p_queues text[] default null, p_priorities integer[] default null,
  p_available timestamptz[] default null, p_delays double precision[] default null, p_keys text[] default null,
  p_policies smallint[] default null, p_retries integer[] default null, p_retry text[] default null,
  p_timeouts bigint[] default null, p_tags text[] default null, p_hashes text[] default null,
  p_signals text[] default null, p_signal_payloads bytea[] default null, p_sends uuid[] default null,
  p_limit_keys text[] default null,
  out o_ids uuid[], out o_statuses smallint[])
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_names integer[] := rhythm.resolve_names(p_kinds, p_names);
  v_queues integer[];
  v_definitions bigint[];
  v_inserted uuid[];
  v_ready integer[];
  v_signal record;
begin
  if p_queues is not null then
    v_queues := rhythm.resolve_queues(p_queues);
  end if;
  if p_hashes is not null then
    select array_agg(d.id order by u.position) into v_definitions
      from unnest(p_name, p_hashes) with ordinality u(name, hash, position)
      left join rhythm.definitions d on d.name_id = v_names[u.name] and d.hash = u.hash;
    if exists (select from unnest(p_hashes, v_definitions) u(hash, id) where u.hash is not null and u.id is null) then
      raise exception 'no such definition of this workflow' using errcode = 'RH001', detail = 'unknown_definition';
    end if;
  end if;
  o_ids := p_ids;
  o_statuses := array_fill(1::smallint, array[cardinality(p_ids)]);
  if p_keys is not null then
    select k.o_ids, k.o_statuses into o_ids, o_statuses
      from rhythm.take_keys(v_now, p_ids, p_inputs, p_name, v_names, p_keys, p_policies, p_sends) k;
  end if;

  if p_keys is null or not exists (select from unnest(o_statuses) u(status) where u.status not in (1, 3)) then
    select i.o_inserted, i.o_queues into v_inserted, v_ready
      from rhythm.insert_executions(v_now, p_ids, p_inputs, p_name, v_names, p_queue, v_queues, p_priorities, p_available,
        p_delays, p_keys, p_retries, p_retry, p_timeouts, p_tags, v_definitions, null, null, null, p_limit_keys) i;
  else
    select i.o_inserted, i.o_queues into v_inserted, v_ready
      from (select array_agg(u.id) as ids, array_agg(u.inputs) as inputs, array_agg(u.name) as name,
              array_agg(u.queue) as queue, array_agg(u.priority) as priorities, array_agg(u.available) as available,
              array_agg(u.delay) as delays, array_agg(u.key) as keys, array_agg(u.retries) as retries,
              array_agg(u.retry) as retry, array_agg(u.timeout) as timeouts, array_agg(u.tags) as tags,
              array_agg(u.definition) as definitions, array_agg(u.limit_key) as limit_keys
            from unnest(p_ids, p_inputs, p_name, p_queue, p_priorities, p_available, p_delays, p_keys, p_retries, p_retry,
                        p_timeouts, p_tags, v_definitions, o_statuses, p_limit_keys)
              u(id, inputs, name, queue, priority, available, delay, key, retries, retry,
                timeout, tags, definition, status, limit_key)
            where u.status in (1, 3)) t,
        lateral rhythm.insert_executions(v_now, t.ids, t.inputs, t.name, v_names, t.queue, v_queues, t.priorities,
          t.available, t.delays, t.keys, t.retries, t.retry, t.timeouts, t.tags, t.definitions, null, null, null,
          t.limit_keys) i
      where t.ids is not null;
  end if;
  if coalesce(cardinality(v_inserted), 0) < cardinality(p_ids) then
    select array_agg(case when u.status in (1, 3) and u.id <> all(coalesce(v_inserted, '{}')) then 2 else u.status end
                     order by u.position)
      into o_statuses from unnest(o_ids, o_statuses) with ordinality u(id, status, position);
  end if;
  perform rhythm.notify_idle(v_ready);
  if p_sends is not null then
    for v_signal in
      select u.id, u.name, u.payload, u.send from unnest(o_ids, o_statuses, p_signals, p_signal_payloads, p_sends)
        with ordinality u(id, status, name, payload, send, position)
        where u.send is not null and u.status <= 3 order by u.id, u.position
    loop
      perform rhythm.signal(v_signal.id, v_signal.name, v_signal.payload, v_signal.send);
    end loop;
  end if;
end $$;

-- Claims idempotency keys for rows about to be inserted, and applies their policies. Rows without a key pass through.
-- Keys are taken in the order of (name, key); who comes second waits for the first one's transaction and then sees it.
-- A row that brings a signal is for whoever runs under the key now: what has finished does not hold its key against it,
-- unless this very send was for that.
-- Returns ids and statuses as start_many does; rows of status 1 and 3 are to be inserted. Internal.
create or replace function rhythm.take_keys(
  p_now timestamptz, p_ids uuid[], p_inputs bytea[], p_name integer[], p_names integer[], p_keys text[],
  p_policies smallint[], p_sends uuid[], out o_ids uuid[], out o_statuses smallint[])
language plpgsql as $$
declare
  v_won uuid[];
  v_holders uuid[] := '{}';
  v_holder uuid;
  v_status smallint;
  v_row record;
begin
  o_ids := p_ids;
  o_statuses := array_fill(1::smallint, array[cardinality(p_ids)]);
  with taken as (
    insert into rhythm.keys (name_id, key, execution_id, inputs_digest, created_at)
    select p_names[u.name], u.key, u.id, sha256(u.inputs), p_now
      from unnest(p_ids, p_inputs, p_name, p_keys) u(id, inputs, name, key)
      where u.key is not null order by p_names[u.name], u.key
    on conflict do nothing returning execution_id)
  select coalesce(array_agg(t.execution_id), '{}') into v_won from taken t;
  if cardinality(v_won) = (select count(*) from unnest(p_keys) u(key) where u.key is not null) then
    return;
  end if;

  for v_row in
    select u.id, u.inputs, u.key, p_names[u.name] as name_id, u.policy, u.send
      from unnest(p_ids, p_inputs, p_name, p_keys, p_policies, p_sends) with ordinality
        u(id, inputs, name, key, policy, send, position)
      where u.key is not null and u.id <> all(v_won) order by p_names[u.name], u.key, u.position
  loop
    for v_turn in 1 .. 100 loop  -- the key may have been let go meanwhile
      select k.execution_id into v_holder from rhythm.keys k
        where k.name_id = v_row.name_id and k.key = v_row.key for update;
      exit when found;
      insert into rhythm.keys (name_id, key, execution_id, inputs_digest, created_at)
        values (v_row.name_id, v_row.key, v_row.id, sha256(v_row.inputs), p_now) on conflict do nothing;
      if found then
        v_won := v_won || v_row.id;
        exit;
      end if;
    end loop;
    if v_row.policy = 3 or v_row.send is not null then
      v_holders := v_holders || v_holder;
    end if;
  end loop;
  perform rhythm.lock_workflows(v_holders);

  for v_row in
    select u.position, u.id, u.key, p_names[u.name] as name_id, sha256(u.inputs) as digest, coalesce(u.policy, 1) as policy,
           u.send
      from unnest(p_ids, p_inputs, p_name, p_keys, p_policies, p_sends) with ordinality
        u(id, inputs, name, key, policy, send, position)
      where u.key is not null and u.id <> all(v_won) order by p_names[u.name], u.key, u.position
  loop
    select k.o_id, k.o_status into v_holder, v_status
      from rhythm.decide_key(p_now, p_ids, v_row.id, v_row.name_id, v_row.key, v_row.digest, v_row.policy, v_row.send) k;
    o_ids[v_row.position::integer] := v_holder;
    o_statuses[v_row.position::integer] := v_status;
  end loop;
end $$;

-- Decides one start whose key was taken already, by its policy, and moves the key if that says so. The caller has locked
-- the key, and the row in waits of its holder; p_batch are the ids of this call, which are not inserted yet.
-- Returns what take_keys does. Internal. Raises nothing.
create or replace function rhythm.decide_key(
  p_now timestamptz, p_batch uuid[], p_id uuid, p_name integer, p_key text, p_digest bytea, p_policy integer, p_send uuid,
  out o_id uuid, out o_status smallint)
language plpgsql as $$
declare
  v_held rhythm.keys;
  v_outcome smallint;
begin
  o_id := p_id;
  select k.* into v_held from rhythm.keys k where k.name_id = p_name and k.key = p_key;
  -- the second: repeated after the key has gone to another one; it happened then, and must not happen again
  if v_held.execution_id = p_id or exists (select from rhythm.executions e where e.id = p_id) then
    o_status := 2;
    return;
  end if;
  if p_send is not null then
    select s.execution_id into o_id from rhythm.signals s where s.send_id = p_send limit 1;
    if found then
      o_status := 2;
      return;
    end if;
    o_id := p_id;
  end if;
  select o.status into v_outcome from rhythm.outcomes o where o.id = v_held.execution_id;
  o_status := case
    when p_send is not null and v_held.execution_id <> all(p_batch) and (v_outcome is not null
      or not exists (select from rhythm.executions e where e.id = v_held.execution_id)) then 1
    when p_policy = 3 and rhythm.replace_pending(p_now, v_held.execution_id) then 3
    when v_held.inputs_digest <> p_digest then 4
    when p_policy = 2 then 5
    when p_policy = 4 and v_outcome <> 1 then 1
    else 2 end;
  if o_status in (1, 3) then
    update rhythm.keys k set execution_id = p_id, inputs_digest = p_digest, created_at = p_now
      where k.name_id = p_name and k.key = p_key;
  else
    o_id := v_held.execution_id;
  end if;
end $$;

-- Ends as cancelled a pending execution that another one takes the place of. Returns whether it was pending. Internal;
-- the caller has locked its row in waits. Raises nothing.
create or replace function rhythm.replace_pending(p_now timestamptz, p_id uuid) returns boolean
language plpgsql as $$
declare
  v_ids uuid[];
  v_attempts integer[];
  v_lost integer[];
begin
  select r.o_ids, r.o_attempts, r.o_lost into v_ids, v_attempts, v_lost from rhythm.remove_pending(array[p_id]) r;
  if v_ids is null then
    return false;
  end if;
  perform rhythm.end_cancelled(p_now, v_ids, v_attempts, v_lost, null, 'replaced by a later start');
  return true;
end $$;

-- Starts one execution from plain SQL, within the caller's transaction, and returns its id. Inputs are a JSON object.
-- With p_signal it also sends that: to the execution that runs under the key, or else to the one it starts.
-- Raises RH001 when the key is in use with other inputs, and what start_many raises.
create or replace function rhythm.start(
  p_name text, p_inputs json default '{}', p_key text default null, p_queue text default null,
  p_priority integer default null, p_delay interval default null, p_id uuid default null,
  p_signal text default null, p_signal_payload json default 'null', p_send_id uuid default rhythm.new_id(),
  p_limit_key text default null)
returns uuid language plpgsql as $$
declare
  v_ids uuid[];
  v_statuses smallint[];
begin
  if json_typeof(p_inputs) <> 'object' then
    raise exception 'inputs must be a JSON object' using errcode = 'RH001', detail = 'invalid_inputs';
  end if;
  if p_priority not between -100 and 100 then
    raise exception 'priority must be from -100 to 100' using errcode = 'RH001', detail = 'invalid_priority';
  end if;
  if length(p_limit_key) not between 1 and 200 then
    raise exception 'a limit key has 1 to 200 characters' using errcode = 'RH001', detail = 'invalid_limit_key';
  end if;
  if p_signal is not null then
    perform rhythm.check_signal(p_signal, p_signal_payload, p_send_id);
  end if;
  select s.o_ids, s.o_statuses into v_ids, v_statuses from rhythm.start_many(
    array[coalesce(p_id, rhythm.new_id())], array[rhythm.as_payload(p_inputs::text)], array[1], array[0::smallint],
    array[p_name],
    case when p_queue is not null then array[1] end, case when p_queue is not null then array[p_queue] end,
    case when p_priority is not null then array[p_priority] end, null,
    case when p_delay is not null then array[extract(epoch from p_delay)::double precision] end,
    case when p_key is not null then array[p_key] end,
    p_signals => case when p_signal is not null then array[p_signal] end,
    p_signal_payloads => case when p_signal is not null then array[rhythm.as_payload(p_signal_payload::text)] end,
    p_sends => case when p_signal is not null then array[p_send_id] end,
    p_limit_keys => case when p_limit_key is not null then array[p_limit_key] end) s;
  if v_statuses[1] > 3 then
    raise exception 'the key is in use with other inputs' using errcode = 'RH001', detail = 'key_conflict';
  end if;
  return v_ids[1];
end $$;
