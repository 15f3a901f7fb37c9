-- Retrying by hand what has failed.
--
-- An outcome is final for everybody but these two functions. retry takes it away and makes the execution claimable in one
-- transaction; there is no claim left of the attempts before, so nothing that they report can count. What the outcome has
-- already led to cannot be taken back: so a child is retried only while nobody has taken its outcome in.
--
-- A workflow resumes where it stood when it ended uncatchably (a limit, UnsupportedError, the activation budget, lost): its
-- last snapshot, what it had not read, and its timers are kept for that (outcomes.resume_version). Whatever its children
-- came to meanwhile is delivered then.

-- Takes the outcome of a failed child back from its parent. Internal. Raises RH008 when the parent has taken it in, may be
-- doing so now, or is gone.
create or replace function rhythm.take_outcome_back(p_parent uuid, p_operation integer, p_child uuid) returns void
language plpgsql as $$
declare
  v_wait rhythm.waits;
  v_number bigint;
  v_parent_finished timestamptz;
begin
  for v_turn in 1 .. 100 loop  -- the parent may be retried meanwhile
    perform rhythm.lock_workflows(array[p_parent]);
    select w.* into v_wait from rhythm.waits w where w.id = p_parent;
    exit when found;
    select o.finished_at into v_parent_finished from rhythm.outcomes o where o.id = p_parent for update;
    exit when found or not exists (select from rhythm.executions e where e.id = p_parent);
  end loop;
  if v_wait.id is null then
    delete from rhythm.deliveries d where d.id = p_parent and d.child_id = p_child;
    if not found and (select o.finished_at from rhythm.outcomes o where o.id = p_child) > v_parent_finished is not true then
      raise exception 'execution % cannot be retried: its parent % has finished with its outcome', p_child, p_parent
        using errcode = 'RH008', detail = 'consumed';
    end if;
    return;
  end if;

  select d.number into v_number from rhythm.deliveries d
    where d.id = p_parent and d.number > v_wait.seen_through and d.child_id = p_child;
  if not found then
    raise exception 'execution % cannot be retried: its parent % has taken its outcome in', p_child, p_parent
      using errcode = 'RH008', detail = 'consumed';
  end if;
  if not v_wait.suspended then
    perform 1 from rhythm.ready r
      where r.queue_id = v_wait.queue_id and r.name_id = 0 and r.priority_rank = v_wait.priority_rank and r.seq = v_wait.seq
      for update skip locked;
    if not found then
      perform 1 from rhythm.gated d where d.ctid = any(array(select rhythm.find_gated(p_parent))) for update skip locked;
    end if;
    if not found then
      raise exception 'execution % cannot be retried: its parent % is taking its outcome in', p_child, p_parent
        using errcode = 'RH008', detail = 'consumed';
    end if;
  end if;
  -- Deliveries are numbered without gaps: what stays in its place is the outcome of operation 0, which nobody waits for.
  update rhythm.deliveries d set operation = 0, child_id = null, payload = null where d.id = p_parent and d.number = v_number;
  update rhythm.waits w
    set wake_remaining = array(select u.remaining + (u.members @> p_operation)::integer
                               from unnest(w.wake_remaining, w.wake_members) with ordinality u(remaining, members, position)
                               order by u.position)
    where w.id = p_parent and w.suspended and w.wake_modes is not null;
end $$;

-- Puts back what a workflow needs that ended uncatchably: its row in waits, its timers, and what it has not read, followed
-- by the outcomes that its children have had since. Internal. Raises nothing.
create or replace function rhythm.restore_workflow(p_id uuid, p_outcome rhythm.outcomes) returns void
language plpgsql as $$
declare
  v_seen bigint;
  v_count bigint;
begin
  select coalesce(min(d.number) - 1, 0) into v_seen from rhythm.deliveries d where d.id = p_id;
  with gone as (
    delete from rhythm.deliveries d where d.id = p_id returning d.*),
  missed as (
    -- An hour is more than clocks of servers differ. Outcomes taken in before are ignored: nobody waits for them.
    select e.operation, o.id, o.finished_at, case o.status when 1 then 1 else 2 end::smallint as kind
      from rhythm.executions e join rhythm.outcomes o on o.id = e.id
      where e.parent_id = p_id
        and o.finished_at >= (select s.taken_at - interval '1 h' from rhythm.snapshots s where s.id = p_id)),
  everything as (
    select g.number, null::timestamptz as at, g.kind, g.operation, g.child_id, g.name, g.payload from gone g
    union all
    select null, m.finished_at, m.kind, m.operation, m.id, null, null from missed m
      where m.id not in (select g.child_id from gone g where g.child_id is not null)),
  put as (
    insert into rhythm.deliveries (id, number, kind, operation, child_id, name, payload)
      select p_id, v_seen + row_number() over (order by a.number nulls last, a.at, a.operation), a.kind, a.operation,
             a.child_id, a.name, a.payload
        from everything a
      returning 1)
  select count(*) into v_count from put;
  insert into rhythm.waits (id, version, next_number, seen_through, outstanding, unread_signals, queue_id, size, seq,
      definition_id, priority_rank, suspended, started_at)
    select p_id, p_outcome.resume_version, v_seen + v_count + 1, v_seen, 0, p_outcome.unread_signals, e.queue_id,
           coalesce(octet_length(s.snapshot), octet_length(e.inputs)), e.seq, e.definition_id, -e.priority, false,
           case when p_outcome.resume_version > 0 then p_outcome.started_at end
      from rhythm.executions e left join rhythm.snapshots s on s.id = e.id where e.id = p_id;
  insert into rhythm.timers (id, operation, due_at)
    select p_id, t.key::integer, t.value::timestamptz
      from rhythm.snapshots s, jsonb_each_text(s.kept_timers) t where s.id = p_id
    on conflict do nothing;
  update rhythm.snapshots s set kept_timers = null where s.id = p_id and s.kept_timers is not null;
end $$;

-- The outcome of an execution, locked, if it can be retried at all. Internal. Raises RH003 when there is no such execution,
-- RH008 when it has not failed, or its key belongs to another execution by now.
create or replace function rhythm.lock_failed(p_id uuid) returns rhythm.outcomes
language plpgsql as $$
declare
  v_execution rhythm.executions;
  v_outcome rhythm.outcomes;
  v_holder uuid;
begin
  select e.* into v_execution from rhythm.executions e where e.id = p_id;
  if not found then
    raise exception 'no execution has the id %', p_id using errcode = 'RH003';
  end if;
  if v_execution.parent_id is null and v_execution.key is not null then
    select k.execution_id into v_holder from rhythm.keys k
      where k.name_id = v_execution.name_id and k.key = v_execution.key for update;
    if v_holder <> p_id then
      raise exception 'execution % cannot be retried: its key belongs to execution % by now', p_id, v_holder
        using errcode = 'RH008', detail = 'key_taken';
    end if;
  end if;
  if v_execution.parent_id is not null then
    perform rhythm.lock_workflows(array[v_execution.parent_id]);
  end if;
  select o.* into v_outcome from rhythm.outcomes o where o.id = p_id for update;
  if not found then
    if not exists (select from rhythm.executions e where e.id = p_id) then
      raise exception 'no execution has the id %', p_id using errcode = 'RH003';
    end if;
    raise exception 'execution % cannot be retried: it has not finished', p_id using errcode = 'RH008', detail = 'not_finished';
  elsif v_outcome.status = 1 then
    raise exception 'execution % cannot be retried: it has completed', p_id using errcode = 'RH008', detail = 'completed';
  end if;
  return v_outcome;
end $$;

-- Gives a failed or cancelled task another attempt, its retries renewed; resumes a workflow that ended uncatchably.
-- p_retry_id makes repeating the same retry harmless. Returns nothing.
-- Raises RH003 when there is no such execution, RH008 when it cannot be retried; the detail is a code: not_finished, completed,
-- consumed, key_taken, nothing_kept, name_unknown.
create or replace function rhythm.retry(p_id uuid, p_retry_id uuid default null) returns void
language plpgsql as $$
declare
  v_execution rhythm.executions;
  v_outcome rhythm.outcomes;
  v_lost smallint;
begin
  select e.* into v_execution from rhythm.executions e where e.id = p_id;
  if v_execution.retry_id = p_retry_id then
    return;
  end if;
  if v_execution.parent_id is not null and exists (select from rhythm.outcomes o where o.id = p_id and o.status <> 1) then
    perform rhythm.take_outcome_back(v_execution.parent_id, v_execution.operation, p_id);
  end if;
  v_outcome := rhythm.lock_failed(p_id);
  if exists (select from rhythm.names n where n.id = v_execution.name_id and n.kind = 0) then
    raise exception 'execution % cannot be retried: nobody knew its name; start it anew (from_start)', p_id
      using errcode = 'RH008', detail = 'name_unknown';
  elsif v_execution.definition_id is not null and v_outcome.resume_version is null then
    raise exception 'execution % cannot be resumed: a workflow that % leaves nothing to resume; start it anew (from_start)',
      p_id, case v_outcome.status when 3 then 'was cancelled' else 'failed by an error of its own code' end
      using errcode = 'RH008', detail = 'nothing_kept';
  end if;

  v_lost := least(v_outcome.lost, 1);  -- claimed alone still, if it was
  update rhythm.executions e set forgiven = v_outcome.attempts - v_lost, retry_id = coalesce(p_retry_id, rhythm.new_id())
    where e.id = p_id;
  delete from rhythm.outcomes o where o.id = p_id;
  insert into rhythm.failures (id, attempt, failed_at, payload)
    values (p_id, v_outcome.attempts, v_outcome.finished_at, v_outcome.payload)
    on conflict (id) do update set attempt = excluded.attempt, failed_at = excluded.failed_at, payload = excluded.payload;
  if v_execution.definition_id is null then
    delete from rhythm.cancels c where c.id = p_id;
  else
    perform rhythm.restore_workflow(p_id, v_outcome);
  end if;
  perform rhythm.notify_idle(rhythm.make_ready(array[p_id], array[v_outcome.attempts], array[v_lost::integer]));
end $$;

-- Starts a new execution, p_new_id, of what a failed or cancelled one was to do: same name, inputs and options, no parent;
-- a workflow on its current definition. An idempotency key passes to it. Repeating it does nothing. Returns nothing.
-- Raises RH003 and RH008 as retry does.
create or replace function rhythm.start_again(p_id uuid, p_new_id uuid) returns void
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_execution rhythm.executions;
  v_name integer;
  v_queues integer[];
begin
  if exists (select from rhythm.executions e where e.id = p_new_id) then
    return;
  end if;
  perform rhythm.lock_failed(p_id);
  select e.* into v_execution from rhythm.executions e where e.id = p_id;
  select coalesce(n.resolved_id, n.id) into v_name from rhythm.names n where n.id = v_execution.name_id;
  if v_execution.parent_id is not null then
    v_execution.key := null;
  elsif v_execution.key is not null then
    insert into rhythm.keys as k (name_id, key, execution_id, inputs_digest, created_at)
      values (v_name, v_execution.key, p_new_id, sha256(v_execution.inputs), v_now)
      on conflict (name_id, key) do update set execution_id = excluded.execution_id, created_at = excluded.created_at;
  end if;
  select i.o_queues into v_queues
    from rhythm.insert_executions(v_now, array[p_new_id], array[v_execution.inputs], array[1], array[v_name],
      array[1], array[v_execution.queue_id], array[v_execution.priority::integer], null, null, array[v_execution.key],
      array[v_execution.retries], array[v_execution.retry::text], array[v_execution.timeout_ms],
      array[v_execution.tags::text], null, null, null, null, array[v_execution.limit_key]) i;
  perform rhythm.notify_idle(v_queues);
end $$;
