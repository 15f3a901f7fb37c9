-- Commits of workflow activations.

-- Applies the results of activations: what each starts, arms, drops and cancels, its snapshot or outcome, all or nothing
-- per workflow. The caller has verified the claims and locked the workflows, their parents and what they cancel.
-- Parallel arrays per commit; the arrays of children, timers, drops and cancels point into them from 1. The groups of
-- commit i stand from p_group_first[i] to before p_group_first[i + 1] (null: there are none).
-- p_statuses is null for a workflow that goes on (then the snapshot is set), else how it ended.
-- A commit that p_take does not admit, or whose version is not the workflow's, is refused. Afterwards a workflow with unread deliveries that its wake
-- groups say must wake is claimable again; otherwise it is suspended.
-- Returns which commits were taken, and the queues in which something became claimable. Internal. Raises nothing of its
-- own.
create or replace function rhythm.commit_workflows(
  p_now timestamptz, p_take boolean[], p_ids uuid[], p_versions integer[], p_seen bigint[], p_snapshots bytea[],
  p_statuses smallint[], p_payloads bytea[], p_keep boolean[], p_lines integer[], p_functions text[], p_awaiting bytea[], p_outstanding integer[],
  p_unread_signals integer[], p_started timestamptz[], p_attempts integer[], p_lost integer[],
  p_child_commit integer[], p_child_ids uuid[], p_child_inputs bytea[], p_child_name integer[], p_child_kinds smallint[],
  p_child_names text[], p_child_operations integer[], p_child_queue integer[], p_child_queues text[],
  p_child_priorities integer[], p_child_delays double precision[], p_child_keys text[], p_child_retries integer[],
  p_child_retry text[], p_child_timeouts bigint[],
  p_timer_commit integer[], p_timer_operations integer[], p_timer_delays double precision[], p_timer_due double precision[],
  p_drop_commit integer[], p_drop_operations integer[],
  p_group_first integer[], p_group_modes smallint[], p_group_members text[], p_group_counts integer[],
  p_cancel_commit integer[], p_cancel_ids uuid[], p_child_limit_keys text[],
  out o_taken boolean[], out o_queues integer[])
language plpgsql as $$
declare
  v_parents uuid[];
  v_operations integer[];
  v_roots uuid[];
  v_ended uuid[];
  v_kept uuid[];
  v_woken uuid[];
  v_more integer[];
begin
  select array_agg(w.id is not null order by u.position), array_agg(e.parent_id order by u.position),
         array_agg(e.operation order by u.position), array_agg(coalesce(e.root_id, e.id) order by u.position)
    into o_taken, v_parents, v_operations, v_roots
    from unnest(p_ids, p_versions, p_take) with ordinality u(id, version, take, position)
    left join lateral (
      select w.id from rhythm.waits w where w.id = u.id and w.version = u.version offset 0) w on u.take
    left join lateral (
      select e.id, e.parent_id, e.operation, e.root_id from rhythm.executions e where e.id = u.id offset 0) e on true;

  if p_timer_commit is not null then
    insert into rhythm.timers (id, operation, due_at)
      select p_ids[u.commit], u.operation,
             coalesce(rhythm.time_after(p_now, u.delay), rhythm.time_after('epoch', u.due))
        from unnest(p_timer_commit, p_timer_operations, p_timer_delays, p_timer_due) u(commit, operation, delay, due)
        where o_taken[u.commit] and p_statuses[u.commit] is null
      on conflict (id, operation) do update set due_at = excluded.due_at;
  end if;
  if p_drop_commit is not null then
    delete from rhythm.timers t where t.ctid = any(array(
      select d.row from unnest(p_drop_commit, p_drop_operations) u(commit, operation)
        cross join lateral (select t.ctid as row from rhythm.timers t
          where t.id = p_ids[u.commit] and t.operation = u.operation offset 0) d
        where o_taken[u.commit]));
  end if;

  select array_agg(u.id), coalesce(array_agg(u.id) filter (where u.keep), '{}') into v_ended, v_kept
    from unnest(p_ids, p_statuses, p_keep, o_taken) u(id, status, keep, taken) where u.taken and u.status is not null;
  if v_ended is not null then
    o_queues := o_queues || rhythm.end_workflows(p_now, p_ids, p_statuses, p_payloads, p_seen, p_unread_signals, p_started,
      p_attempts, p_lost, v_parents, v_operations, o_taken, p_keep, p_versions);
    perform rhythm.forget_workflows(v_ended, v_kept);
  end if;

  if cardinality(v_ended) is distinct from cardinality(p_ids) then
    perform rhythm.suspend_workflows(p_now, p_ids, p_versions, p_seen, p_snapshots, p_lines, p_functions, p_awaiting,
      p_outstanding, p_unread_signals, p_group_first, p_group_modes, p_group_members, p_group_counts,
      array(select u.taken and u.status is null from unnest(o_taken, p_statuses) u(taken, status)), p_started);
  end if;

  if p_child_commit is not null then
    o_queues := o_queues || rhythm.start_children(p_now, p_ids, v_roots, o_taken, p_child_commit, p_child_ids,
      p_child_inputs, p_child_name, p_child_kinds, p_child_names, p_child_operations, p_child_queue, p_child_queues,
      p_child_priorities, p_child_delays, p_child_keys, p_child_retries, p_child_retry, p_child_timeouts, p_child_limit_keys);
  end if;
  if p_cancel_commit is not null then
    o_queues := o_queues || rhythm.cancel_many(p_now, array(
      select u.id from unnest(p_cancel_commit, p_cancel_ids) u(commit, id)
        cross join lateral (select e.parent_id from rhythm.executions e where e.id = u.id offset 0) e
        where o_taken[u.commit] and e.parent_id = p_ids[u.commit]));
  end if;

  -- A later statement than the ones that locked and wrote: everything delivered so far is seen here.
  select array_agg(u.id) into v_woken
    from unnest(p_ids, o_taken) u(id, taken)
    cross join lateral (
      select w.suspended, w.next_number, w.seen_through from rhythm.waits w where w.id = u.id offset 0) w
    where u.taken and w.suspended and w.next_number - 1 > w.seen_through;
  if v_woken is not null then
    v_more := rhythm.wake_unread(v_woken);
    o_queues := o_queues || v_more;
  end if;
end $$;

-- Records the outcomes of ended workflows (those with a status that were taken) and delivers them to their parents. Of
-- those with p_keep nothing that the last activation did counts, so its signals are unread again.
-- Returns the queues in which something became claimable. Internal. Raises nothing.
create or replace function rhythm.end_workflows(
  p_now timestamptz, p_ids uuid[], p_statuses smallint[], p_payloads bytea[], p_seen bigint[], p_unread_signals integer[],
  p_started timestamptz[], p_attempts integer[], p_lost integer[], p_parents uuid[], p_operations integer[],
  p_taken boolean[], p_keep boolean[], p_versions integer[]) returns integer[]
language plpgsql as $$
declare
  v_ids uuid[];
  v_kinds smallint[];
  v_operations integer[];
  v_children uuid[];
  v_sizes integer[];
begin
  insert into rhythm.outcomes (id, started_at, finished_at, attempts, lost, status, unread_signals, resume_version, payload)
    select u.id,
           coalesce((select w.started_at from rhythm.waits w where w.id = u.id offset 0), u.started_at), p_now, u.attempts,
           u.lost, u.status,
           case when u.keep then (select w.unread_signals from rhythm.waits w where w.id = u.id offset 0)
                else u.unread_signals + (select count(*) from rhythm.deliveries d
                                         where d.id = u.id and d.number > u.seen and d.kind = 4) end,
           case when u.keep then u.version end, u.payload
      from unnest(p_ids, p_statuses, p_payloads, p_seen, p_unread_signals, p_started, p_attempts, p_lost, p_taken, p_keep,
                  p_versions)
        u(id, status, payload, seen, unread_signals, started_at, attempts, lost, taken, keep, version)
      where u.taken and u.status is not null
    on conflict (id) do nothing;
  select array_agg(u.parent order by u.position), array_agg(case when u.status = 1 then 1 else 2 end::smallint order by u.position),
         array_agg(u.operation order by u.position), array_agg(u.id order by u.position),
         array_agg(octet_length(u.payload) order by u.position)
    into v_ids, v_kinds, v_operations, v_children, v_sizes
    from unnest(p_ids, p_statuses, p_payloads, p_parents, p_operations, p_taken) with ordinality
      u(id, status, payload, parent, operation, taken, position)
    where u.taken and u.status is not null and u.parent is not null;
  if v_ids is null then
    return null;
  end if;
  return rhythm.deliver(v_ids, v_kinds, v_operations, v_children, null, null, v_sizes);
end $$;

-- Stores the snapshots of workflows that go on and marks them suspended; what they have taken in is deleted. Whether they
-- must wake at once is the caller's next question. Internal. Raises nothing.
create or replace function rhythm.suspend_workflows(
  p_now timestamptz, p_ids uuid[], p_versions integer[], p_seen bigint[], p_snapshots bytea[], p_lines integer[],
  p_functions text[], p_awaiting bytea[], p_outstanding integer[], p_unread_signals integer[],
  p_group_first integer[], p_group_modes smallint[], p_group_members text[], p_group_counts integer[],
  p_taken boolean[], p_started timestamptz[]) returns void
language plpgsql as $$
begin
  -- Updates are written as inserts that meet a conflict: they cannot be planned as joins that read a whole table.
  insert into rhythm.snapshots (id, version, line, taken_at, function, awaiting, snapshot)
    select u.id, u.version + 1, u.line, p_now, u.function, u.awaiting, u.snapshot
      from unnest(p_ids, p_versions, p_snapshots, p_lines, p_functions, p_awaiting, p_taken)
        u(id, version, snapshot, line, function, awaiting, taken)
      where u.taken
    on conflict (id) do update set version = excluded.version, line = excluded.line, taken_at = excluded.taken_at,
      function = excluded.function, awaiting = excluded.awaiting, snapshot = excluded.snapshot;
  delete from rhythm.deliveries d where d.ctid = any(array(
    select d.row from unnest(p_ids, p_seen, p_taken) u(id, seen, taken)
      cross join lateral (
        select d.ctid as row from rhythm.deliveries d where d.id = u.id and d.number <= u.seen offset 0) d
      where u.taken and u.seen > 0));
  insert into rhythm.waits as w (id, version, next_number, seen_through, outstanding, unread_signals, queue_id, size, seq,
      definition_id, priority_rank, suspended, started_at, wake_modes, wake_members, wake_remaining)
    select u.id, u.version + 1, w.next_number, u.seen, u.outstanding,
           u.unread_signals + case when w.next_number - 1 > u.seen and w.unread_signals > 0 then (
             select count(*) from rhythm.deliveries d where d.id = u.id and d.number > u.seen and d.kind = 4) else 0 end,
           w.queue_id, octet_length(u.snapshot), w.seq, w.definition_id, w.priority_rank, true, coalesce(w.started_at, u.started_at),
           g.modes, g.members, g.counts
      from unnest(p_ids, p_versions, p_seen, p_snapshots, p_outstanding, p_unread_signals, p_taken, p_started) with ordinality
        u(id, version, seen, snapshot, outstanding, unread_signals, taken, started_at, position)
      cross join lateral (select * from rhythm.waits w where w.id = u.id offset 0) w
      left join lateral (
        select array_agg(p_group_modes[i]) as modes, array_agg(p_group_members[i]::int4multirange) as members,
               array_agg(p_group_counts[i]) as counts
          from generate_series(p_group_first[u.position], p_group_first[u.position + 1] - 1) i
      ) g on p_group_first is not null
      where u.taken
    on conflict (id) do update set version = excluded.version, seen_through = excluded.seen_through,
      outstanding = excluded.outstanding, unread_signals = excluded.unread_signals, size = excluded.size, suspended = true,
      started_at = excluded.started_at,
      wake_modes = excluded.wake_modes, wake_members = excluded.wake_members, wake_remaining = excluded.wake_remaining;
end $$;

-- Looks at what suspended workflows have not read and makes claimable those that must wake: all that have more to read
-- than one activation is sure to take, so that a wide fan-out is not looked at again and again.
-- Returns the queues concerned. Internal; the caller has locked them in an earlier statement. Raises nothing.
create or replace function rhythm.wake_unread(p_ids uuid[]) returns integer[]
language plpgsql as $$
declare
  v_queues integer[];
begin
  with unread as materialized (
    select w.*, coalesce(g.o_wake, true) as woken, g.o_remaining as remaining
      from rhythm.waits w
      left join lateral (
        select array_agg(d.operation order by d.number) as operations,
               array_agg(case d.kind when 1 then true when 2 then false end order by d.number) as fulfilled
          from rhythm.deliveries d
          where d.id = w.id and d.number > w.seen_through and w.next_number - w.seen_through <= 1000) n
        on w.wake_modes is not null
      left join lateral rhythm.apply_groups(w.wake_modes, w.wake_members, w.wake_remaining, n.operations, n.fulfilled) g
        on w.wake_modes is not null
      where w.id = any(p_ids)),
  changed as (
    insert into rhythm.waits as w (id, version, next_number, seen_through, outstanding, unread_signals, queue_id, size, seq,
      definition_id, priority_rank, suspended, wake_remaining)
    select u.id, u.version, u.next_number, u.seen_through, u.outstanding, u.unread_signals, u.queue_id, u.size, u.seq,
           u.definition_id, u.priority_rank, not u.woken, coalesce(u.remaining, u.wake_remaining)
      from unread u
    on conflict (id) do update set suspended = excluded.suspended, wake_remaining = excluded.wake_remaining),
  woken as (
    insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, returned_seq, attempts, size, id)
    select u.queue_id, 0, u.priority_rank, 0, u.seq, u.seq, 0, u.size, u.id from unread u where u.woken)
  select array_agg(distinct u.queue_id) into v_queues from unread u where u.woken;
  return v_queues;
end $$;

-- Starts the children of commits that were taken. A child whose id exists already, for somebody else, is a failed
-- operation of its parent. Returns the queues in which something became claimable. Internal. Raises nothing of its own.
create or replace function rhythm.start_children(
  p_now timestamptz, p_ids uuid[], p_roots uuid[], p_taken boolean[],
  p_commit integer[], p_child_ids uuid[], p_inputs bytea[], p_name integer[], p_kinds smallint[], p_names text[],
  p_operations integer[], p_queue integer[], p_queues text[], p_priorities integer[], p_delays double precision[],
  p_keys text[], p_retries integer[], p_retry text[], p_timeouts bigint[], p_limit_keys text[]) returns integer[]
language plpgsql as $$
declare
  v_queue_ids integer[];
  v_inserted uuid[];
  v_queues integer[];
  v_ids uuid[];
  v_operations integer[];
  v_kinds smallint[];
  v_payloads bytea[];
  v_sizes integer[];
begin
  if p_queues is not null then
    v_queue_ids := rhythm.resolve_queues(p_queues);
  end if;
  select i.o_inserted, i.o_queues into v_inserted, v_queues
    from (select array_agg(u.id order by u.position) as ids, array_agg(u.inputs order by u.position) as inputs,
            array_agg(u.name order by u.position) as name, array_agg(u.queue order by u.position) as queue,
            array_agg(u.priority order by u.position) as priorities, array_agg(u.delay order by u.position) as delays,
            array_agg(u.key order by u.position) as keys, array_agg(u.retries order by u.position) as retries,
            array_agg(u.retry order by u.position) as retry, array_agg(u.timeout order by u.position) as timeouts,
            array_agg(u.limit_key order by u.position) as limit_keys,
            array_agg(p_ids[u.commit] order by u.position) as parents,
            array_agg(u.operation order by u.position) as operations,
            array_agg(p_roots[u.commit] order by u.position) as roots
          from unnest(p_commit, p_child_ids, p_inputs, p_name, p_operations, p_queue, p_priorities, p_delays, p_keys,
                      p_retries, p_retry, p_timeouts, p_limit_keys) with ordinality
            u(commit, id, inputs, name, operation, queue, priority, delay, key, retries, retry, timeout, limit_key, position)
          where p_taken[u.commit]) t,
      lateral rhythm.insert_executions(p_now, t.ids, t.inputs, t.name, rhythm.resolve_names(p_kinds, p_names), t.queue,
        v_queue_ids, t.priorities, null, t.delays, t.keys, t.retries, t.retry, t.timeouts, null, null, t.parents,
        t.operations, t.roots, t.limit_keys) i
    where t.ids is not null;
  if coalesce(cardinality(v_inserted), 0) = cardinality(p_child_ids) then
    return v_queues;
  end if;

  select array_agg(p_ids[u.commit] order by u.position), array_agg(2::smallint order by u.position),
         array_agg(u.operation order by u.position), array_agg(f.payload order by u.position),
         array_agg(octet_length(f.payload) order by u.position)
    into v_ids, v_kinds, v_operations, v_payloads, v_sizes
    from unnest(p_commit, p_child_ids, p_operations) with ordinality u(commit, id, operation, position)
    left join lateral (
      select e.id, e.parent_id, e.operation from rhythm.executions e where e.id = u.id offset 0) e
      on e.parent_id = p_ids[u.commit] and e.operation = u.operation,
      (select rhythm.as_payload(json_build_object('name', 'StartRefused', 'message', 'the id is in use',
        'type', 'failed', 'retryable', false)::text)) f(payload)
    where p_taken[u.commit] and e.id is null;
  if v_ids is not null then
    v_queues := v_queues || rhythm.deliver(v_ids, v_kinds, v_operations, null, null, v_payloads, v_sizes);
  end if;
  return v_queues;
end $$;
