-- What people ask.

-- Every execution with its status, why it is pending, and its payloads decoded (null when SQL cannot read them).
create or replace view rhythm.executions_view as
  select e.id,
    case coalesce(n.kind, 0) when 2 then 'workflow' else 'task' end as kind,
    n.name,
    case when o.id is not null then (array['completed', 'failed', 'cancelled'])[o.status]
         when r.id is not null or l.id is not null or a.id is not null then 'pending'
         when w.suspended then 'suspended'
         else 'running' end as status,
    case when o.id is not null then null
         when r.id is not null then 'ready'
         when l.id is not null then (array['later', 'retry', 'unknown task'])[l.reason]
         when a.id is not null then 'waiting for a place' end as reason,
    coalesce(q.name, 'default') as queue,
    coalesce(e.priority, 0::smallint) as priority,
    e.key, e.tags,
    greatest(coalesce(o.attempts, r.attempts, l.attempts, a.attempts, c.attempts), case when w.version > 0 then 1 else 0 end) as attempts,
    coalesce(o.lost, r.lost, l.lost, a.lost, c.lost, 0::smallint)::integer as lost,
    e.parent_id, e.operation, coalesce(e.root_id, e.id) as root_id,
    d.hash as definition_hash, coalesce(w.definition_id, e.definition_id) as definition_id,
    e.created_at,
    case when l.id is not null and l.reason <> 3 then l.available_at end as available_at,
    coalesce(o.started_at, w.started_at, c.started_at) as started_at,
    o.finished_at, o.unread_signals,
    s.line, s.function, rhythm.as_json(s.awaiting) as awaiting, s.taken_at as suspended_at,
    rhythm.as_json(e.inputs) as inputs,
    case when o.status = 1 then rhythm.as_json(o.payload) end as output,
    case when o.status <> 1 then rhythm.as_json(o.payload) end as error,
    rhythm.as_json(f.payload) as last_failure, f.failed_at as last_failure_at,
    e.inputs as inputs_payload, o.payload as outcome_payload, f.payload as failure_payload, e.limit_key,
    g.value as progress_payload, g.noted_at as progress_at
  from rhythm.executions e
  join rhythm.names z on z.id = e.name_id
  join rhythm.names n on n.id = coalesce(z.resolved_id, z.id)
  left join rhythm.queues q on q.id = coalesce(e.queue_id, case when n.registered_at is not null then n.queue_id end)
  left join rhythm.outcomes o on o.id = e.id
  left join rhythm.ready r on r.queue_id = e.queue_id and r.priority_rank = -e.priority and r.seq = e.seq
    and r.name_id = case when e.definition_id is null then e.name_id else 0 end
  left join rhythm.later l on l.id = e.id
  left join rhythm.gated a on a.queue_id = e.queue_id and a.limit_key = coalesce(e.limit_key, '')
    and a.priority_rank = -e.priority and a.seq = e.seq
    and a.name_id = case when e.definition_id is null then e.name_id else 0 end
  left join rhythm.waits w on w.id = e.id
  left join rhythm.definitions d on d.id = e.definition_id
  left join rhythm.snapshots s on s.id = e.id
  left join rhythm.failures f on f.id = e.id
  left join rhythm.progress g on g.id = e.id
  left join lateral (
    select u.attempts, u.lost, c.started_at
      from rhythm.claims c, unnest(c.ids, c.attempts, c.lost) u(id, attempts, lost)
      where u.id = e.id and o.id is null and r.id is null and l.id is null and a.id is null
        and not coalesce(w.suspended, false)
      limit 1) c on o.id is null and r.id is null and l.id is null and a.id is null and not coalesce(w.suspended, false);

-- Executions, newest first (by id), that fit everything given: up to p_limit, those before the id p_before.
-- Returns rows of executions_view. Raises nothing.
create or replace function rhythm.list_executions(
  p_id uuid default null, p_statuses text[] default null, p_name text default null, p_kind text default null,
  p_queue text default null, p_parent uuid default null, p_tags text default null, p_before uuid default null,
  p_limit integer default 100, p_key text default null)
returns setof rhythm.executions_view
language plpgsql stable as $$
begin
  if p_id is not null then
    return query select v.* from rhythm.executions_view v where v.id = p_id;
  elsif p_parent is not null then
    return query select v.* from rhythm.executions_view v
      where v.parent_id = p_parent and (p_statuses is null or v.status = any(p_statuses)) and (p_name is null or v.name = p_name)
        and (p_kind is null or v.kind = p_kind) and (p_queue is null or v.queue = p_queue)
        and (p_tags is null or v.tags @> p_tags::jsonb) and (p_key is null or v.key = p_key) and (p_before is null or v.id < p_before)
      order by v.id desc limit p_limit;
  elsif not 'completed' = any(p_statuses) then
    return query select v.* from (
        select r.id from rhythm.ready r where 'pending' = any(p_statuses)
        union all select l.id from rhythm.later l where 'pending' = any(p_statuses)
        union all select d.id from rhythm.gated d where 'pending' = any(p_statuses)
        union all select u.id from rhythm.claims c, unnest(c.ids) u(id) where 'running' = any(p_statuses)
        union all select w.id from rhythm.waits w where 'suspended' = any(p_statuses) and w.suspended
        union all select o.id from rhythm.outcomes o where p_statuses && array['failed', 'cancelled'] and o.status <> 1) c
      join rhythm.executions_view v on v.id = c.id
      where v.status = any(p_statuses) and (p_name is null or v.name = p_name)
        and (p_kind is null or v.kind = p_kind) and (p_queue is null or v.queue = p_queue)
        and (p_tags is null or v.tags @> p_tags::jsonb) and (p_key is null or v.key = p_key) and (p_before is null or v.id < p_before)
      order by v.id desc limit p_limit;
  else
    return query select v.* from rhythm.executions_view v
      where (p_statuses is null or v.status = any(p_statuses)) and (p_name is null or v.name = p_name)
        and (p_kind is null or v.kind = p_kind) and (p_queue is null or v.queue = p_queue)
        and (p_tags is null or v.tags @> p_tags::jsonb) and (p_key is null or v.key = p_key) and (p_before is null or v.id < p_before)
      order by v.id desc limit p_limit;
  end if;
end $$;

-- The children of a workflow that stand for the given operations. Returns rows of executions_view. Raises nothing.
create or replace function rhythm.children_of(p_parent uuid, p_operations integer[])
returns setof rhythm.executions_view
language plpgsql stable as $$
begin
  return query select v.* from unnest(p_operations) u(operation)
    cross join lateral (
      select e.id from rhythm.executions e where e.parent_id = p_parent and e.operation = u.operation offset 0) e
    cross join lateral (select v.* from rhythm.executions_view v where v.id = e.id offset 0) v;
end $$;

-- The outcomes of those of the given executions that have finished, and which of the others exist.
-- Returns one row per execution that exists; status is null while it has not finished. Raises nothing.
create or replace function rhythm.outcomes_of(p_ids uuid[])
returns table (id uuid, status text, payload bytea, attempts integer, lost smallint, finished_at timestamptz)
language sql stable as $$
  select e.id, (array['completed', 'failed', 'cancelled'])[o.status], o.payload, o.attempts, o.lost, o.finished_at
    from unnest(p_ids) u(id) join rhythm.executions e on e.id = u.id left join rhythm.outcomes o on o.id = u.id
$$;

-- A workflow's last snapshot and where it stands. Returns no row when there is none. Raises nothing.
create or replace function rhythm.snapshot_of(p_id uuid)
returns table (id uuid, version integer, definition_id bigint, snapshot bytea, line integer, function text, awaiting bytea,
  taken_at timestamptz)
language sql stable as $$
  select s.id, s.version, e.definition_id, s.snapshot, s.line, s.function, s.awaiting, s.taken_at
    from rhythm.snapshots s join rhythm.executions e on e.id = s.id where s.id = p_id
$$;

-- Each queue's figures and limits. Parked executions count as pending, and those that wait at the gate (gated); holding is how
-- many have passed it and not finished. Counts every row that is not finished, and what has finished
-- within the last minute. Raises nothing.
create or replace function rhythm.list_queues()
returns table (queue text, pending bigint, running bigint, suspended bigint, oldest_pending_seconds double precision,
  paused boolean, finished_per_minute bigint, gated bigint, holding bigint, concurrency integer, rate integer,
  rate_seconds double precision, key_concurrency integer, key_rate integer, key_rate_seconds double precision)
language sql stable as $$
  with p as (
    select s.queue_id, count(*) as pending, min(s.oldest) as oldest from (
      select r.queue_id, r.seq as oldest from rhythm.ready r
      union all select d.queue_id, d.seq from rhythm.gated d
      union all select coalesce(l.queue_id, 1), l.seq from rhythm.later l) s group by s.queue_id),
  c as (
    select e.queue_id, count(*) as running from rhythm.claims c, unnest(c.ids) u(id)
      join rhythm.executions e on e.id = u.id group by e.queue_id),
  w as (select w.queue_id, count(*) as suspended from rhythm.waits w where w.suspended group by w.queue_id),
  f as (
    select e.queue_id, count(*) as finished from rhythm.outcomes o join rhythm.executions e on e.id = o.id
      where o.finished_at > (select rhythm.now() - interval '1 min') group by e.queue_id)
  select q.name, coalesce(p.pending, 0), coalesce(c.running, 0), coalesce(w.suspended, 0),
    (select case when o.age < 0 then 0 else o.age end
     from (select extract(epoch from rhythm.now() - min(e.created_at))::double precision as age from (
        (select r.id from rhythm.ready r where r.queue_id = q.id order by r.name_id, r.priority_rank, r.seq limit 1)
        union all select r.id from rhythm.ready r where r.queue_id = q.id and r.seq = p.oldest
        union all select d.id from rhythm.gated d where d.queue_id = q.id and d.seq = p.oldest
        union all select l.id from rhythm.later l where l.queue_id = q.id and l.seq = p.oldest) o
        join rhythm.executions e on e.id = o.id) o), q.paused, coalesce(f.finished, 0),
    (select count(*) from rhythm.gated d where d.queue_id = q.id), (select count(*) from rhythm.places p where p.queue_id = q.id),
    g.concurrency, g.rate, g.rate_seconds, g.key_concurrency, g.key_rate, g.key_rate_seconds
    from rhythm.queues q left join p on p.queue_id = q.id left join c on c.queue_id = q.id left join w on w.queue_id = q.id
      left join f on f.queue_id = q.id left join rhythm.gates g on g.queue_id = q.id
    order by q.name
$$;

-- Live worker incarnations, how many executions each holds, and which of its tasks another of them has registered
-- differently. Raises nothing.
create or replace function rhythm.list_workers()
returns table (incarnation uuid, host text, pid integer, version text, queues text[], tasks text[], workflows boolean,
  running bigint, started_at timestamptz, seen_seconds_ago double precision, heartbeat_timeout_seconds double precision,
  conflicts text[])
language sql stable as $$
  with conflicts as materialized (
    select m.id from rhythm.workers w, unnest(w.name_ids, w.name_digests) m(id, digest)
      group by m.id having min(m.digest) <> max(m.digest))
  select w.incarnation, w.host, w.pid, w.version,
    array(select q.name from rhythm.queues q where q.id = any(w.queue_ids) order by q.name),
    array(select n.name from rhythm.names n where n.id = any(w.name_ids) order by n.name), w.workflows,
    (select count(*) from rhythm.claims c, unnest(c.ids) u(id) where c.incarnation = w.incarnation and u.id is not null),
    w.started_at, extract(epoch from rhythm.now() - w.seen_at)::double precision, w.heartbeat_timeout_ms / 1000.0,
    array(select n.name from conflicts x join rhythm.names n on n.id = x.id where x.id = any(w.name_ids) order by n.name)
    from rhythm.workers w order by w.started_at, w.incarnation
$$;

-- Whether a live worker could run an execution: it claims from its queue and knows its task, or runs workflows.
-- Returns null when there is no such execution, or it has finished. Raises nothing.
create or replace function rhythm.can_run(p_id uuid) returns boolean
language sql stable as $$
  select exists (
      select from rhythm.workers w
        where e.queue_id = any(w.queue_ids) and (e.name_id = any(w.name_ids) or (e.definition_id is not null and w.workflows))
          and w.seen_at + make_interval(secs => w.heartbeat_timeout_ms / 1000.0) > rhythm.now())
    from rhythm.executions e
    where e.id = p_id and not exists (select from rhythm.outcomes o where o.id = e.id)
$$;

-- Stops or resumes claiming from a queue; what runs is not touched. Resuming notifies every idle worker of the queue (up
-- to a thousand). Returns nothing. Raises RH003 for an unknown queue.
create or replace function rhythm.pause_queue(p_queue text, p_paused boolean) returns void
language plpgsql as $$
declare
  v_queue integer;
begin
  update rhythm.queues q set paused = p_paused where q.name = p_queue returning q.id into v_queue;
  if not found then
    raise exception 'no queue is named %', p_queue using errcode = 'RH003';
  end if;
  if not p_paused then
    perform rhythm.notify_idle(array_fill(v_queue, array[1000]));
  end if;
end $$;
