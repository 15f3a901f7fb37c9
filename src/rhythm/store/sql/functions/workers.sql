-- Worker incarnations.

-- Registers a worker incarnation and the tasks it can run (parallel arrays; timeouts in milliseconds, 0 none), which other
-- starts take their options from; executions parked because nobody knew their names become claimable. The newest
-- registration of a task wins. Registering again updates.
-- Returns the ids of the queues and of the names, both in order, how many executions came back, and the tasks that
-- another live worker has registered differently. Raises 23514 for a name that cannot be one.
create or replace function rhythm.register_worker(
  p_incarnation uuid, p_host text, p_pid integer, p_version text, p_heartbeat_timeout_ms integer, p_workflows boolean,
  p_queues text[], p_names text[], p_name_queues text[], p_retries integer[], p_retry text[], p_timeouts bigint[],
  p_priorities integer[], p_schemas text[],
  out o_queues integer[], out o_names integer[], out o_returned integer, out o_conflicts text[])
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_name_queues integer[];
  v_digests bigint[];
begin
  perform pg_advisory_xact_lock_shared(x'72687967'::integer, 0);  -- see stop_exchanges
  o_queues := coalesce(rhythm.resolve_queues(p_queues), '{}');
  v_name_queues := rhythm.resolve_queues(p_name_queues);
  insert into rhythm.names (kind, name)
    select k.kind, u.name from (values (0), (1)) k(kind), unnest(p_names) u(name) order by 1, 2 on conflict do nothing;
  select coalesce(array_agg(n.id order by u.position), '{}'),
      coalesce(array_agg(hashtextextended(jsonb_build_array(
        v_name_queues[u.position], u.retries, u.retry::jsonb, u.timeout_ms, u.priority, u.input_schema::jsonb)::text, 0)
        order by u.position), '{}')
    into o_names, v_digests
    from unnest(p_names, p_retries, p_retry, p_timeouts, p_priorities, p_schemas) with ordinality
      u(name, retries, retry, timeout_ms, priority, input_schema, position)
    join rhythm.names n on n.kind = 1 and n.name = u.name;

  insert into rhythm.workers as w (incarnation, seen_at, started_at, heartbeat_timeout_ms, pid, workflows, host, version,
      queue_ids, name_ids, name_digests)
    values (p_incarnation, v_now, v_now, p_heartbeat_timeout_ms, p_pid, p_workflows, p_host, p_version, o_queues, o_names,
      v_digests)
    on conflict (incarnation) do update set seen_at = excluded.seen_at, workflows = excluded.workflows,
      heartbeat_timeout_ms = excluded.heartbeat_timeout_ms, queue_ids = excluded.queue_ids, name_ids = excluded.name_ids,
      name_digests = excluded.name_digests;

  perform 1 from rhythm.names n where n.kind in (0, 1) and n.name = any(p_names) order by n.id for update;
  with given as materialized (
    select n.id, v_name_queues[u.position] as queue_id, u.retries, u.retry::jsonb as retry, u.timeout_ms,
           u.priority::smallint as priority, u.input_schema::jsonb as input_schema
      from unnest(p_names, p_retries, p_retry, p_timeouts, p_priorities, p_schemas) with ordinality
        u(name, retries, retry, timeout_ms, priority, input_schema, position)
      join rhythm.names n on n.kind = 1 and n.name = u.name),
  other as (
    select n.name from given g join rhythm.names n on n.id = g.id
      join rhythm.workers w on w.incarnation = n.registered_by and w.incarnation <> p_incarnation
      where w.seen_at + make_interval(secs => w.heartbeat_timeout_ms / 1000.0) > v_now and n.registered_at is not null
        and (n.queue_id, n.retries, n.timeout_ms, n.priority, n.retry, n.input_schema) is distinct from
            (g.queue_id, g.retries, g.timeout_ms, g.priority, g.retry, g.input_schema)),
  written as (
    update rhythm.names n
      set registered_at = v_now, seen_at = v_now, registered_by = p_incarnation, queue_id = g.queue_id, retries = g.retries,
          retry = g.retry, timeout_ms = g.timeout_ms, priority = g.priority, input_schema = g.input_schema
      from given g where n.id = g.id)
  select coalesce(array_agg(o.name order by o.name), '{}') into o_conflicts from other o;

  perform rhythm.resolve_unknown(o_names);
  o_returned := rhythm.return_parked(v_now, array(
    select n.id from rhythm.names n where n.kind in (0, 1) and n.name = any(p_names)), 10000);
end $$;

-- Says what names started before they were known turned out to be: rows of kind 0 point to the task or workflow now known
-- (the workflow, if both are), and take their idempotency keys along. p_names are ids of kind 1 or 2. Internal.
create or replace function rhythm.resolve_unknown(p_names integer[]) returns void
language plpgsql as $$
begin
  update rhythm.names z set resolved_id = n.id from rhythm.names n
    where n.id = any(p_names) and z.kind = 0 and z.name = n.name and z.resolved_id is distinct from n.id
      and (z.resolved_id is null or n.kind = 2);
  update rhythm.keys k set name_id = z.resolved_id from rhythm.names z
    where z.kind = 0 and z.resolved_id = any(p_names) and k.name_id = z.id
      and not exists (select from rhythm.keys o where o.name_id = z.resolved_id and o.key = k.key);
end $$;

-- Makes executions claimable, or delayed, that were parked under the given names and can be run now; the oldest p_limit of
-- them. Options that their starts left open are taken from the registration. Returns how many. Internal.
create or replace function rhythm.return_parked(p_now timestamptz, p_names integer[], p_limit integer) returns integer
language plpgsql as $$
declare
  v_ids uuid[];
  v_tasks uuid[];
  v_limited integer[] := array(select q.id from rhythm.queues q where q.limited);
  v_gated uuid[];
  v_attempts integer[];
  v_lost integer[];
  v_queues integer[];
begin
  select array_agg(p.id), array_agg(p.id) filter (where p.kind = 1 and p.was = 0) into v_ids, v_tasks
    from (select l.id, n.kind, z.kind as was from rhythm.later l
            join rhythm.names z on z.id = l.name_id
            join rhythm.names n on n.id = coalesce(z.resolved_id, z.id)
          where l.reason = 3 and l.name_id = any(p_names)
            and (n.registered_at is not null or n.definition_id is not null)
          order by l.name_id, l.seq limit p_limit for update of l skip locked) p;
  if v_ids is null then
    return 0;
  end if;
  update rhythm.executions e
    set name_id = n.id, queue_id = coalesce(e.queue_id, n.queue_id), retries = coalesce(e.retries, n.retries),
        timeout_ms = coalesce(e.timeout_ms, n.timeout_ms), priority = coalesce(e.priority, n.priority),
        retry = rhythm.merge_retry(n.retry, e.retry), definition_id = coalesce(e.definition_id, n.definition_id)
    from rhythm.names z, rhythm.names n
    where e.id = any(v_ids) and z.id = e.name_id and n.id = coalesce(z.resolved_id, z.id)
      and (e.queue_id is null or e.retries is null or e.timeout_ms is null or e.priority is null or z.id <> n.id);
  perform rhythm.forget_workflows(v_tasks);
  insert into rhythm.waits as w (id, version, next_number, seen_through, outstanding, unread_signals, queue_id, size, seq,
      definition_id, priority_rank, suspended)
    select w.id, w.version, w.next_number, w.seen_through, w.outstanding, w.unread_signals, e.queue_id, w.size, w.seq,
           e.definition_id, -e.priority, w.suspended
      from rhythm.waits w cross join lateral (select * from rhythm.executions e where e.id = w.id offset 0) e
      where w.id = any(v_ids)
    on conflict (id) do update set queue_id = excluded.queue_id, definition_id = excluded.definition_id,
      priority_rank = excluded.priority_rank;

  with gone as (
    delete from rhythm.later l where l.id = any(v_ids) returning l.id, l.attempts, l.lost),
  back as materialized (
    select g.*, e.queue_id, case when e.definition_id is null then e.name_id else 0 end as name_id, e.seq, e.priority,
           e.available_at, octet_length(e.inputs) as size,
           e.queue_id = any(v_limited) and not coalesce(e.available_at > p_now, false) as limited
      from gone g cross join lateral (select * from rhythm.executions e where e.id = g.id offset 0) e),
  delayed as (
    insert into rhythm.later (id, available_at, queue_id, name_id, seq, attempts, size, priority_rank, lost, reason)
    select b.id, b.available_at, b.queue_id, b.name_id, b.seq, b.attempts, b.size, -b.priority, b.lost, 1
      from back b where b.available_at > p_now),
  at_once as (
    insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, returned_seq, attempts, size, id)
    select b.queue_id, b.name_id, -b.priority, b.lost, b.seq, b.seq, b.attempts, b.size, b.id
      from back b where (b.available_at is null or b.available_at <= p_now) and not b.limited)
  select array_agg(distinct b.queue_id), array_agg(b.id) filter (where b.limited),
         array_agg(b.attempts) filter (where b.limited), array_agg(b.lost) filter (where b.limited)
    into v_queues, v_gated, v_attempts, v_lost from back b;
  if v_gated is not null then
    perform rhythm.put_at_gates(v_gated, v_attempts, v_lost);
  end if;
  perform rhythm.notify_idle(v_queues);
  return cardinality(v_ids);
end $$;

-- Keeps a worker incarnation alive. Returns the tasks it holds that somebody wants cancelled (workflows are told by a
-- delivery), and what it held that was ended by force within the last minute.
-- Raises RH002 when it is not registered or has been declared dead.
create or replace function rhythm.heartbeat(p_incarnation uuid) returns uuid[]
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
begin
  update rhythm.workers w set seen_at = v_now where w.incarnation = p_incarnation;
  if not found then
    raise exception 'incarnation % is dead', p_incarnation using errcode = 'RH002';
  end if;
  if not exists (select from rhythm.cancels) then
    return '{}';
  end if;
  return array(
    select x.id from rhythm.cancels x
      where x.incarnation = p_incarnation and x.requested_at > v_now - interval '1 min'
    union all
    select u.id from rhythm.claims c, unnest(c.ids) u(id) join rhythm.cancels x on x.id = u.id
      where c.incarnation = p_incarnation and not exists (select from rhythm.waits w where w.id = u.id));
end $$;

-- Ends a worker incarnation that has drained. What it still holds is taken over as if it had died.
-- Returns nothing. Raises nothing: an incarnation that is not registered is no error.
create or replace function rhythm.unregister_worker(p_incarnation uuid) returns void
language plpgsql as $$
begin
  delete from rhythm.workers w where w.incarnation = p_incarnation;
  perform rhythm.reclaim(rhythm.now(), array[p_incarnation], 100000);
  delete from rhythm.idle i where i.incarnation = p_incarnation;
end $$;

-- Whether a worker is alive that was there before snapshots had forms of their own (step 2): it reads plain ones only.
-- Those that come later have said that they speak this protocol. Raises nothing.
create or replace function rhythm.reads_plain_only() returns boolean
language sql stable as $$
  select exists (select from rhythm.workers w, rhythm.migrations m where m.version = 2 and w.started_at < m.applied_at)
$$;
