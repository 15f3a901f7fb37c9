-- Maintenance: what has to happen by itself. Any worker may do it at any time.

-- Fires due timers and moves due executions to ready, up to 2,000 each; rows that others are working on are skipped. Every
-- two seconds, and at once when an incarnation has become dead, one caller, elected by a row lock, also looks for dead
-- incarnations, claims without an incarnation, attempts past their timeout, names that nobody knows (any more, or yet),
-- gates, and, once a minute, what retention lets go: executions that finished more than p_retention_seconds ago (null: none).
-- Idempotency keys whose executions are gone are free p_key_window_seconds after the start that took them.
-- Returns the seconds until the next due time, which is also when the next incarnation will be dead if it beats no more
-- (null: nothing is waiting), what was moved, what was reclaimed, and whether a limit was reached, so that there is more
-- to do at once. Raises nothing.
create or replace function rhythm.maintain(
  p_retention_seconds double precision default null, p_key_window_seconds double precision default 2592000,
  out o_next_due double precision, out o_moved integer, out o_reclaimed integer, out o_more boolean)
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_limit constant integer := 2000;
  v_count integer;
  v_dead_at timestamptz;
begin
  o_reclaimed := 0;
  o_moved := 0;
  o_more := false;
  v_dead_at := rhythm.next_death();
  perform 1 from rhythm.maintenance m
    where not (m.last_at > v_now - interval '2 s' and m.last_at <= v_now) or v_dead_at <= v_now for update skip locked;
  if found then
    update rhythm.maintenance m set last_at = v_now;
    perform rhythm.bury_workers(v_now);
    perform rhythm.forget_marks(v_now);
    select r.o_reclaimed, r.o_more into o_reclaimed, o_more from rhythm.reclaim_departed(v_now, 100) r;
    v_dead_at := rhythm.next_death();
    v_count := rhythm.expire_attempts(v_now, v_limit);
    o_moved := o_moved + v_count;
    o_more := o_more or v_count >= v_limit;
    v_count := rhythm.park_unknown(v_now, v_limit);
    o_moved := o_moved + v_count;
    o_more := o_more or v_count >= v_limit;
    v_count := rhythm.tend_gates(v_limit);
    o_more := o_more or v_count >= v_limit;
    if p_retention_seconds is not null and exists (select from rhythm.maintenance m
        where not (m.retained_at > v_now - interval '1 min' and m.retained_at <= v_now)) then
      v_count := rhythm.prune(rhythm.time_after(v_now, -p_retention_seconds),
        rhythm.time_after(v_now, -p_key_window_seconds), v_limit);
      o_more := o_more or v_count >= v_limit;
      if v_count < v_limit then
        update rhythm.maintenance m set retained_at = v_now;
      end if;
    end if;
    if o_more then -- whoever comes next goes on at once
      update rhythm.maintenance m set last_at = '-infinity';
    end if;
  end if;
  v_count := rhythm.fire_timers(v_now, v_limit);
  o_moved := o_moved + v_count;
  o_more := o_more or v_count >= v_limit;
  v_count := rhythm.move_due(v_now, v_limit);
  o_moved := o_moved + v_count;
  o_more := o_more or v_count >= v_limit;

  select extract(epoch from least(
      (select l.available_at from rhythm.later l where l.reason <> 3 order by l.available_at limit 1),
      (select t.due_at from rhythm.timers t order by t.due_at limit 1),
      -- one that is dead and still there is locked by somebody: it is left alone for a moment
      case when v_dead_at <= v_now then v_now + interval '100 ms' else v_dead_at end) - v_now)::double precision
    into o_next_due;
  if o_next_due < 0 then
    o_next_due := 0;
  end if;
end $$;

-- Delivers due timers to their workflows, those of up to p_limit due timers. Returns how many were delivered. Internal.
create or replace function rhythm.fire_timers(p_now timestamptz, p_limit integer) returns integer
language plpgsql as $$
declare
  v_ids uuid[];
  v_locked uuid[];
  v_operations integer[];
begin
  select array_agg(distinct d.id) into v_ids
    from (select t.id from rhythm.timers t where t.due_at <= p_now order by t.due_at limit p_limit) d;
  if v_ids is null then
    return 0;
  end if;
  select coalesce(array_agg(l.id), '{}') into v_locked
    from (select w.id from rhythm.waits w where w.id = any(v_ids) order by w.id for update skip locked) l;
  -- none may stay at the head of the list for ever
  delete from rhythm.timers t where t.id = any(v_ids) and not exists (select from rhythm.waits w where w.id = t.id);
  with fired as (
    delete from rhythm.timers t where t.id = any(v_locked) and t.due_at <= p_now returning t.id, t.operation, t.due_at)
  select array_agg(f.id order by f.due_at, f.operation), array_agg(f.operation order by f.due_at, f.operation)
    into v_ids, v_operations from fired f;
  if v_ids is null then
    return 0;
  end if;
  perform rhythm.notify_idle(rhythm.deliver(v_ids, array_fill(3::smallint, array[cardinality(v_ids)]), v_operations,
    array_fill(null::uuid, array[cardinality(v_ids)]), null, null, array_fill(0, array[cardinality(v_ids)])));
  return cardinality(v_ids);
end $$;

-- Moves executions whose time has come from later to ready, or to the gates of their queues, up to p_limit. Returns how many. Internal.
create or replace function rhythm.move_due(p_now timestamptz, p_limit integer) returns integer
language plpgsql as $$
declare
  v_limited integer[] := array(select q.id from rhythm.queues q where q.limited);
  v_gated uuid[];
  v_attempts integer[];
  v_lost integer[];
  v_count integer;
  v_queues integer[];
begin
  with due as (
    delete from rhythm.later l where l.ctid = any(array(
      select d.ctid from rhythm.later d where d.reason <> 3 and d.available_at <= p_now
        order by d.available_at, d.id limit p_limit for update skip locked))
    returning l.queue_id, l.name_id, l.priority_rank, l.lost, l.seq, l.attempts, l.size, l.id),
  moved as (
    insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, returned_seq, attempts, size, id)
    select d.queue_id, d.name_id, d.priority_rank, d.lost, d.seq, d.seq, d.attempts, d.size, d.id
      from due d where d.queue_id <> all(v_limited))
  select count(*), array_agg(distinct d.queue_id), array_agg(d.id) filter (where d.queue_id = any(v_limited)),
         array_agg(d.attempts) filter (where d.queue_id = any(v_limited)),
         array_agg(d.lost) filter (where d.queue_id = any(v_limited))
    into v_count, v_queues, v_gated, v_attempts, v_lost from due d;
  if v_gated is not null then
    perform rhythm.put_at_gates(v_gated, v_attempts, v_lost);
  end if;
  perform rhythm.notify_idle(v_queues);
  return v_count;
end $$;

-- When the next incarnation will be dead if none beats any more; null: there is none. Internal.
create or replace function rhythm.next_death() returns timestamptz
language sql as $$
  select min(w.seen_at + make_interval(secs => w.heartbeat_timeout_ms / 1000.0)) from rhythm.workers w
$$;

-- Declares dead the incarnations that have not been heard of for their heartbeat timeout. Returns nothing. Internal.
create or replace function rhythm.bury_workers(p_now timestamptz) returns void
language plpgsql as $$
begin
  delete from rhythm.workers w where w.incarnation = any(array(
    select w.incarnation from rhythm.workers w
      where w.seen_at + make_interval(secs => w.heartbeat_timeout_ms / 1000.0) <= p_now
      order by w.incarnation for update skip locked));
end $$;

-- Notes incarnations that have no row in workers any more, whoever deleted it. Internal.
create or replace function rhythm.note_departed() returns trigger
language plpgsql as $$
begin
  insert into rhythm.departed (incarnation, since) select g.incarnation, rhythm.now() from gone g on conflict do nothing;
  return null;
end $$;

create or replace trigger departed after delete on rhythm.workers
  referencing old table as gone for each statement execute function rhythm.note_departed();

-- Takes over what departed incarnations hold, up to p_limit claims, and forgets those that cannot hold anything any more:
-- no exchange of theirs is under way (each has a lock to its end, and none is admitted since), and no claim is left.
-- Returns how many executions were taken over, and whether there are more. Internal. Raises nothing.
create or replace function rhythm.reclaim_departed(
  p_now timestamptz, p_limit integer, out o_reclaimed integer, out o_more boolean)
language plpgsql as $$
declare
  v_departed uuid[] := array(select d.incarnation from rhythm.departed d order by d.since limit 1000);
begin
  o_reclaimed := 0;
  o_more := false;
  if v_departed = '{}' then
    return;
  end if;
  o_reclaimed := rhythm.reclaim(p_now, v_departed, p_limit);
  v_departed := array(
    select u.id from unnest(v_departed) u(id) where pg_try_advisory_xact_lock(uuid_hash_extended(u.id, 0)));
  delete from rhythm.departed d where d.incarnation = any(v_departed)
    and not exists (select from rhythm.claims c where c.incarnation = d.incarnation);
  o_more := o_reclaimed > 0
    and exists (select from rhythm.departed d join rhythm.claims c on c.incarnation = d.incarnation);
end $$;

-- Takes over what dead incarnations hold: up to p_limit claims.
-- Each member counts one loss more. What somebody has asked to cancel ends as cancelled. At three losses the others fail
-- for good, with type "lost"; otherwise they are claimable again.
-- Returns how many executions were taken over. Internal.
create or replace function rhythm.reclaim(p_now timestamptz, p_dead uuid[], p_limit integer) returns integer
language plpgsql as $$
declare
  v_lost_max constant integer := 3;
  v_claims bigint[];
  v_ids uuid[];
  v_attempts integer[];
  v_lost integer[];
  v_started timestamptz[];
  v_gated uuid[];
  v_final boolean[];
begin
  delete from rhythm.idle i where i.incarnation = any(p_dead);
  select array_agg(c.id) into v_claims
    from (select c.id from rhythm.claims c where c.incarnation = any(p_dead)
          order by c.id limit p_limit for update skip locked) c;
  if v_claims is null then
    return 0;
  end if;
  with gone as (
    delete from rhythm.claims c where c.id = any(v_claims) returning c.ids, c.attempts, c.lost, c.started_at, c.gated)
  select array_agg(u.id), array_agg(u.attempts), array_agg(coalesce(u.lost, 0) + 1), array_agg(g.started_at),
         array_agg(u.id) filter (where g.gated)
    into v_ids, v_attempts, v_lost, v_started, v_gated
    from gone g, unnest(g.ids, g.attempts, g.lost) u(id, attempts, lost) where u.id is not null;
  if v_ids is null then
    return 0;
  end if;
  perform rhythm.lock_workflows(v_ids || array(
    select e.parent_id from unnest(v_ids) u(id)
      cross join lateral (select e.parent_id from rhythm.executions e where e.id = u.id offset 0) e
      where e.parent_id is not null));
  if v_gated is not null then
    perform rhythm.notify_idle(rhythm.leave_places(v_gated));
  end if;
  v_final := array(select u.lost >= v_lost_max and not rhythm.ends_when_cancelled(u.id)
                   from unnest(v_ids, v_lost) with ordinality u(id, lost, position) order by u.position);
  if true = any(v_final) then
    perform rhythm.fail_lost(p_now,
      array(select u.id from unnest(v_ids, v_final) u(id, final) where u.final),
      array(select u.attempts from unnest(v_attempts, v_final) u(attempts, final) where u.final),
      array(select u.lost from unnest(v_lost, v_final) u(lost, final) where u.final),
      array(select u.started_at from unnest(v_started, v_final) u(started_at, final) where u.final));
  end if;
  perform rhythm.notify_idle(rhythm.take_back(p_now,
    array(select u.id from unnest(v_ids, v_final) u(id, final) where not u.final),
    array(select u.attempts from unnest(v_attempts, v_final) u(attempts, final) where not u.final),
    array(select u.lost from unnest(v_lost, v_final) u(lost, final) where not u.final),
    'its worker was lost after it had been asked to stop'));
  return cardinality(v_ids);
end $$;

-- Ends executions that have lost their workers too often. A workflow keeps its snapshot and what it has not read. The
-- caller has locked their rows in waits and those of their parents. Returns nothing. Internal.
create or replace function rhythm.fail_lost(
  p_now timestamptz, p_ids uuid[], p_attempts integer[], p_lost integer[], p_started timestamptz[]) returns void
language plpgsql as $$
declare
  v_parents uuid[];
  v_operations integer[];
  v_workflow boolean[];
  v_payloads bytea[];
  v_queues integer[];
  v_more integer[];
begin
  select array_agg(e.parent_id order by u.position), array_agg(e.operation order by u.position),
         array_agg(e.definition_id is not null order by u.position),
         array_agg(rhythm.as_payload(json_build_object('name', 'LostError',
           'message', 'its worker was lost ' || u.lost || ' times while it ran', 'type', 'lost',
           'attempts', u.attempts, 'retryable', false)::text) order by u.position)
    into v_parents, v_operations, v_workflow, v_payloads
    from unnest(p_ids, p_attempts, p_lost) with ordinality u(id, attempts, lost, position)
    cross join lateral (select * from rhythm.executions e where e.id = u.id offset 0) e;
  select rhythm.settle(p_now, t.ids, t.actions, t.payloads, t.attempts, t.lost, t.started, t.parents, t.operations, null)
    into v_queues
    from (select array_agg(u.id) as ids, array_agg(4::smallint) as actions, array_agg(u.payload) as payloads,
            array_agg(u.attempts) as attempts, array_agg(u.lost) as lost, array_agg(u.started) as started,
            array_agg(u.parent) as parents, array_agg(u.operation) as operations
          from unnest(p_ids, v_payloads, p_attempts, p_lost, p_started, v_parents, v_operations, v_workflow)
            u(id, payload, attempts, lost, started, parent, operation, workflow)
          where not u.workflow) t
    where t.ids is not null;
  if true = any(v_workflow) then
    v_more := rhythm.end_workflows(p_now, p_ids, array_fill(2::smallint, array[cardinality(p_ids)]), v_payloads,
      null, null, p_started, p_attempts, p_lost, v_parents, v_operations, v_workflow, v_workflow,
      array(select w.version from unnest(p_ids) with ordinality u(id, position)
            left join rhythm.waits w on w.id = u.id order by u.position));
    perform rhythm.forget_workflows(p_ids, p_ids);
  end if;
  perform rhythm.notify_idle(v_queues || v_more);
end $$;

-- Ends attempts that are past their timeout by more than their claim allows, whatever their worker's heartbeat says: up to
-- p_limit claims. They fail with type "timeout"; those that somebody has asked to cancel are cancelled. Their worker's
-- reports of them will be refused.
-- Returns how many attempts were ended. Internal.
create or replace function rhythm.expire_attempts(p_now timestamptz, p_limit integer) returns integer
language plpgsql as $$
declare
  v_claims bigint[];
  v_ids uuid[];
  v_actions smallint[];
  v_payloads bytea[];
  v_attempts integer[];
  v_lost integer[];
  v_started timestamptz[];
  v_parents uuid[];
  v_operations integer[];
  v_gated uuid[];
begin
  select array_agg(c.id) into v_claims
    from (select c.id from rhythm.claims c where c.expires_at <= p_now order by c.id limit p_limit for update skip locked) c;
  if v_claims is null then
    return 0;
  end if;
  select coalesce(array_agg(u.id), '{}'), array_agg(u.attempts), array_agg(coalesce(u.lost, 0)), array_agg(c.started_at),
         array_agg(e.parent_id), array_agg(e.operation),
         array_agg(rhythm.as_payload(json_build_object('name', 'TimeoutError',
           'message', 'the attempt did not end within its timeout of ' || e.timeout_ms / 1000.0 || ' s', 'type', 'timeout',
           'attempts', u.attempts, 'retryable', true)::text)),
         array_agg(u.id) filter (where c.gated)
    into v_ids, v_attempts, v_lost, v_started, v_parents, v_operations, v_payloads, v_gated
    from rhythm.claims c, unnest(c.ids, c.attempts, c.lost) u(id, attempts, lost),
      lateral (select * from rhythm.executions e where e.id = u.id offset 0) e
    where c.id = any(v_claims) and e.timeout_ms > 0
      and c.started_at + make_interval(secs => e.timeout_ms / 1000.0 + case when c.single then 10 else 70 end) <= p_now;
  delete from rhythm.claims c where c.id = any(v_claims) and not exists (
    select from unnest(c.ids) u(id) where u.id is not null and u.id <> all(v_ids));
  update rhythm.claims c
    set ids = array(select case when u.id <> all(v_ids) then u.id end
                    from unnest(c.ids) with ordinality u(id, position) order by u.position),
        expires_at = (select c.started_at + make_interval(secs => min(e.timeout_ms) / 1000.0 + 70)
                      from rhythm.executions e
                      where e.id = any(c.ids) and e.id <> all(v_ids) and e.timeout_ms > 0)
    where c.id = any(v_claims);
  if v_ids = '{}' then
    return 0;
  end if;
  perform rhythm.lock_workflows(v_parents);
  if v_gated is not null then
    perform rhythm.notify_idle(rhythm.leave_places(v_gated));
  end if;
  select array_agg(case when c.id is not null then 3
                        when rhythm.retries_timeouts(e.retry) then 2 else 4 end::smallint order by u.position),
         array_agg(case when c.id is null then u.payload else rhythm.as_payload(json_build_object('name', 'CancelledError',
           'message', 'it did not stop within its timeout when it was asked to', 'type', 'cancelled',
           'attempts', u.attempts, 'retryable', false)::text) end order by u.position)
    into v_actions, v_payloads
    from unnest(v_ids, v_payloads, v_attempts) with ordinality u(id, payload, attempts, position)
    cross join lateral (select e.retry from rhythm.executions e where e.id = u.id offset 0) e
    left join lateral (select c.id from rhythm.cancels c where c.id = u.id offset 0) c on true;
  perform rhythm.notify_idle(rhythm.settle(p_now, v_ids, v_actions, v_payloads, v_attempts, v_lost, v_started, v_parents,
    v_operations, null));
  return cardinality(v_ids);
end $$;

-- Parks tasks that no live worker has known for a minute, so that people see why they wait, and returns those parked whose
-- names are known now. Returns how many were moved. Internal.
create or replace function rhythm.park_unknown(p_now timestamptz, p_limit integer) returns integer
language plpgsql as $$
declare
  v_names integer[];
  v_moved integer := 0;
  v_known integer[] := array(select distinct u.id from rhythm.workers w, unnest(w.name_ids) u(id));
begin
  update rhythm.names n set seen_at = p_now where n.id in (
    select n.id from rhythm.names n where n.id = any(v_known) and n.seen_at < p_now - interval '20 s'
      order by n.id for update skip locked);
  v_names := array(select n.id from rhythm.names n
    where n.kind = 1 and n.id <> all(v_known) and n.seen_at < p_now - interval '60 s');
  if v_names <> '{}' then
    with recursive present as (
      (select r.queue_id, r.name_id from rhythm.ready r order by r.queue_id, r.name_id limit 1)
      union all
      select n.queue_id, n.name_id from present p cross join lateral (
        select r.queue_id, r.name_id from rhythm.ready r
          where (r.queue_id, r.name_id) > (p.queue_id, p.name_id) order by r.queue_id, r.name_id limit 1) n),
    present_at_gates as (
      (select d.queue_id, d.name_id from rhythm.gated d order by d.queue_id, d.name_id limit 1)
      union all
      select n.queue_id, n.name_id from present_at_gates p cross join lateral (
        select d.queue_id, d.name_id from rhythm.gated d
          where (d.queue_id, d.name_id) > (p.queue_id, p.name_id) order by d.queue_id, d.name_id limit 1) n)
    select array_agg(distinct p.name_id) into v_names
      from (select * from present union select * from present_at_gates) p where p.name_id = any(v_names);
  end if;
  if v_names <> '{}' then
    with gone as (
      delete from rhythm.ready r where r.ctid = any(array(
        select r.ctid from unnest(v_names) n(id) cross join rhythm.queues q
          cross join lateral (select r.ctid from rhythm.ready r where r.queue_id = q.id and r.name_id = n.id
            order by r.priority_rank, r.seq limit p_limit for update skip locked) r limit p_limit))
      returning r.id, r.queue_id, r.name_id, r.seq, r.attempts, r.size, r.priority_rank, r.lost),
    gone_from_gates as (
      delete from rhythm.gated d where d.ctid = any(array(
        select d.ctid from unnest(v_names) n(id) cross join rhythm.queues q
          cross join lateral (select d.ctid from rhythm.gated d where d.queue_id = q.id and d.name_id = n.id
            order by d.limit_key, d.priority_rank, d.seq limit p_limit for update skip locked) d
          where q.limited limit p_limit))
      returning d.id, d.queue_id, d.name_id, d.seq, d.attempts, d.size, d.priority_rank, d.lost)
    insert into rhythm.later (id, available_at, queue_id, name_id, seq, attempts, size, priority_rank, lost, reason)
      select g.id, 'infinity', g.queue_id, g.name_id, g.seq, g.attempts, g.size, g.priority_rank, g.lost, 3
        from (select * from gone union all select * from gone_from_gates) g;
    get diagnostics v_moved = row_count;
  end if;

  with recursive parked as (
    (select l.name_id from rhythm.later l where l.reason = 3 order by l.name_id limit 1)
    union all
    select n.name_id from parked p cross join lateral (
      select l.name_id from rhythm.later l where l.reason = 3 and l.name_id > p.name_id order by l.name_id limit 1) n)
  select array_agg(z.id) into v_names
    from parked p join rhythm.names z on z.id = p.name_id
    join rhythm.names n on n.id = coalesce(z.resolved_id, z.id)
    where (n.kind = 1 and n.id = any(v_known)) or (n.kind = 2 and n.definition_id is not null);
  if v_names is not null then
    v_moved := v_moved + rhythm.return_parked(p_now, v_names, p_limit);
  end if;
  return v_moved;
end $$;

-- Deletes executions that finished before p_before, up to p_limit; a child only when its
-- parent needs it no more. Their keys stay if they were taken after p_keys_before. Returns how many were deleted. Internal.
create or replace function rhythm.prune(p_before timestamptz, p_keys_before timestamptz, p_limit integer) returns integer
language plpgsql as $$
declare
  v_ids uuid[];
begin
  select array_agg(f.id) into v_ids
    from (select o.id from rhythm.outcomes o join rhythm.executions e on e.id = o.id
          where o.finished_at < p_before
            and not exists (select from rhythm.waits w where w.id = e.parent_id)
            and not exists (select from rhythm.snapshots s where s.id = e.parent_id)
          limit p_limit for update of o skip locked) f;
  delete from rhythm.keys k using rhythm.executions e
    where e.id = any(v_ids) and k.name_id = e.name_id and k.key = e.key and k.execution_id = e.id
      and k.created_at < p_keys_before;
  perform rhythm.forget_workflows(v_ids);
  delete from rhythm.signals s where s.execution_id = any(v_ids);
  delete from rhythm.cancels c where c.id = any(v_ids);
  delete from rhythm.failures f where f.id = any(v_ids);
  delete from rhythm.logs l where l.id = any(v_ids);
  delete from rhythm.progress g where g.id = any(v_ids);
  delete from rhythm.outcomes o where o.id = any(v_ids);
  delete from rhythm.executions e where e.id = any(v_ids);
  update rhythm.maintenance m set pruned_at = rhythm.now() where m.pruned_at not between rhythm.now() - interval '1 h' and rhythm.now();
  if found then
    delete from rhythm.keys k where k.created_at < p_keys_before
      and not exists (select from rhythm.executions e where e.id = k.execution_id);
  end if;
  return coalesce(cardinality(v_ids), 0);
end $$;
