-- How attempts end.

-- Makes executions claimable, or puts them to the gates of their queues, with the given counts of claims and losses. Internal: the caller has taken them from where
-- they were. Returns the queues concerned. Raises nothing.
create or replace function rhythm.make_ready(p_ids uuid[], p_attempts integer[], p_lost integer[]) returns integer[]
language plpgsql as $$
declare
  v_limited integer[] := array(select q.id from rhythm.queues q where q.limited);
  v_gated uuid[];
  v_attempts integer[];
  v_lost integer[];
  v_queues integer[];
begin
  with given as materialized (
    select u.attempts, coalesce(u.lost, 0) as lost, e.queue_id, case when e.definition_id is null then e.name_id else 0 end as name_id,
           e.priority, e.seq, coalesce(w.size, octet_length(e.inputs)) as size, e.id, e.queue_id = any(v_limited) as limited
      from unnest(p_ids, p_attempts, p_lost) u(id, attempts, lost)
      cross join lateral (select * from rhythm.executions e where e.id = u.id offset 0) e
      left join lateral (select w.size from rhythm.waits w where w.id = u.id offset 0) w on true),
  moved as (
    insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, returned_seq, attempts, size, id)
    select g.queue_id, g.name_id, -g.priority, g.lost, g.seq, g.seq, g.attempts, g.size, g.id from given g where not g.limited)
  select array_agg(distinct g.queue_id), array_agg(g.id) filter (where g.limited),
         array_agg(g.attempts) filter (where g.limited), array_agg(g.lost) filter (where g.limited)
    into v_queues, v_gated, v_attempts, v_lost from given g;
  if v_gated is not null then
    perform rhythm.put_at_gates(v_gated, v_attempts, v_lost);
  end if;
  return v_queues;
end $$;

-- Makes executions claimable again whose attempts have come to nothing, but ends those as cancelled that somebody has asked
-- to cancel (p_why as in end_cancelled). The caller has deleted their claims, and locked their rows in waits and those of
-- their parents. Returns the queues in which something became claimable. Internal. Raises nothing.
create or replace function rhythm.take_back(
  p_now timestamptz, p_ids uuid[], p_attempts integer[], p_lost integer[], p_why text) returns integer[]
language plpgsql as $$
declare
  v_ends boolean[];
  v_queues integer[];
begin
  if not exists (select from rhythm.cancels) then
    return rhythm.make_ready(p_ids, p_attempts, p_lost);
  end if;
  v_ends := array(select rhythm.ends_when_cancelled(u.id) from unnest(p_ids) with ordinality u(id, position) order by u.position);
  v_queues := rhythm.make_ready(
    array(select u.id from unnest(p_ids, v_ends) u(id, ends) where not u.ends),
    array(select u.attempts from unnest(p_attempts, v_ends) u(attempts, ends) where not u.ends),
    array(select u.lost from unnest(p_lost, v_ends) u(lost, ends) where not u.ends));
  if true = any(v_ends) then
    v_queues := v_queues || rhythm.end_cancelled(p_now,
      array(select u.id from unnest(p_ids, v_ends) u(id, ends) where u.ends),
      array(select u.attempts from unnest(p_attempts, v_ends) u(attempts, ends) where u.ends),
      array(select u.lost from unnest(p_lost, v_ends) u(lost, ends) where u.ends), null, p_why);
  end if;
  return v_queues;
end $$;

-- Settles ended attempts of tasks whose claims the caller has deleted, and whose parents it has locked.
-- Parallel arrays. p_actions: 1 completed, 2 failed (may be retried), 3 cancelled, 4 failed for good.
-- A failure is followed by another attempt while the reported failures (attempts minus lost, since the last retry by hand)
-- do not exceed its retries and nobody has asked to cancel it. Outcomes of children are delivered to their parents, except to p_continued.
-- Returns the queues in which something became claimable. Internal. Raises nothing.
create or replace function rhythm.settle(
  p_now timestamptz, p_ids uuid[], p_actions smallint[], p_payloads bytea[], p_attempts integer[], p_lost integer[],
  p_started timestamptz[], p_parents uuid[], p_operations integer[], p_retry_after double precision[],
  p_continued uuid[] default '{}') returns integer[]
language plpgsql as $$
declare
  v_retried uuid[] := '{}';
  v_again uuid[];
  v_again_attempts integer[];
  v_again_lost integer[];
  v_queues integer[];
  v_ids uuid[];
  v_kinds smallint[];
  v_operations integer[];
  v_children uuid[];
  v_sizes integer[];
begin
  if 2 = any(p_actions) then
    with wanted as materialized (
      select u.id, u.attempts, u.lost, e.queue_id, e.name_id, e.seq, e.priority, octet_length(e.inputs) as size, u.payload,
             rhythm.time_after(p_now, greatest(coalesce(u.after,
               rhythm.backoff(e.retry, u.attempts - u.lost - coalesce(e.forgiven, 0))), 0)) as at
        from unnest(p_ids, p_actions, p_payloads, p_attempts, p_lost, p_retry_after)
          u(id, action, payload, attempts, lost, after)
        cross join lateral (select * from rhythm.executions e where e.id = u.id offset 0) e
        where u.action = 2 and u.attempts - u.lost - coalesce(e.forgiven, 0) <= e.retries
          and not exists (select from rhythm.cancels c where c.id = u.id)),
    delayed as (
      insert into rhythm.later (id, available_at, queue_id, name_id, seq, attempts, size, priority_rank, lost, reason)
      select w.id, w.at, w.queue_id, w.name_id, w.seq, w.attempts, w.size, -w.priority, w.lost, 2
        from wanted w where w.at > p_now),
    noted as (
      insert into rhythm.failures (id, attempt, failed_at, payload)
      select w.id, w.attempts, p_now, w.payload from wanted w
      on conflict (id) do update set attempt = excluded.attempt, failed_at = excluded.failed_at, payload = excluded.payload)
    select coalesce(array_agg(w.id), '{}'), array_agg(w.id) filter (where w.at <= p_now),
           array_agg(w.attempts) filter (where w.at <= p_now), array_agg(w.lost) filter (where w.at <= p_now)
      into v_retried, v_again, v_again_attempts, v_again_lost from wanted w;
    if v_again is not null then
      v_queues := rhythm.make_ready(v_again, v_again_attempts, v_again_lost);
    end if;
  end if;

  insert into rhythm.outcomes (id, started_at, finished_at, attempts, lost, status, payload)
    select u.id, u.started_at, p_now, u.attempts, u.lost, least(u.action, 2) + (u.action = 3)::integer, u.payload
      from unnest(p_ids, p_actions, p_payloads, p_attempts, p_lost, p_started)
        u(id, action, payload, attempts, lost, started_at)
      where u.id <> all(v_retried)
    on conflict (id) do nothing;

  select array_agg(u.parent order by u.position), array_agg(case when u.action = 1 then 1 else 2 end::smallint order by u.position),
         array_agg(u.operation order by u.position), array_agg(u.id order by u.position),
         array_agg(octet_length(u.payload) order by u.position)
    into v_ids, v_kinds, v_operations, v_children, v_sizes
    from unnest(p_ids, p_actions, p_payloads, p_parents, p_operations) with ordinality
      u(id, action, payload, parent, operation, position)
    where u.parent is not null and u.id <> all(v_retried) and u.id <> all(p_continued);
  if v_ids is not null then
    v_queues := v_queues || rhythm.deliver(v_ids, v_kinds, v_operations, v_children, null, null, v_sizes);
  end if;
  return v_queues;
end $$;

-- Completes a task inside the transaction that its own writes were made in, so that all of it is committed or nothing. To
-- be called last: from here on the transaction holds locks that others wait for, and PostgreSQL ends it when it then lies
-- idle for 10 s. The claim must be a single one, and the transaction the one in which rhythm.execution was set to the
-- task's id (set_config, local): what the task has committed by itself could not be undone.
-- Returns nothing. Raises RH002 when the claim is not held any more, 25000 for another transaction.
create or replace function rhythm.complete(p_incarnation uuid, p_claim bigint, p_id uuid, p_payload bytea) returns void
language plpgsql as $$
declare
  v_claim rhythm.claims;
  v_parent uuid;
  v_operation integer;
begin
  if current_setting('rhythm.execution', true) is distinct from p_id::text then
    raise exception 'the transaction of task % was ended by the task itself', p_id using errcode = '25000';
  end if;
  delete from rhythm.claims c
    where c.id = p_claim and c.single and c.incarnation is not distinct from p_incarnation and c.ids[1] = p_id
    returning * into v_claim;
  if not found then
    raise exception 'claim % is not held any more', p_claim using errcode = 'RH002';
  end if;
  select e.parent_id, e.operation into v_parent, v_operation from rhythm.executions e where e.id = p_id;
  perform rhythm.lock_workflows(array[v_parent]);
  if v_claim.gated then
    perform rhythm.notify_idle(rhythm.leave_places(array[p_id]));
  end if;
  perform rhythm.notify_idle(rhythm.settle(rhythm.now(), array[p_id], array[1::smallint], array[p_payload],
    v_claim.attempts, array[coalesce(v_claim.lost[1], 0)::integer], array[v_claim.started_at], array[v_parent],
    array[v_operation], null));
  perform set_config('idle_in_transaction_session_timeout', '10s', true);
end $$;
