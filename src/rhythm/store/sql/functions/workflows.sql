-- Commits of workflow activations.

-- Applies the results of activations: what each starts, arms, drops and cancels, its snapshot or outcome, all or nothing
-- per workflow. The caller has verified the claims and locked the workflows, their parents and what they cancel.
-- Parallel arrays per commit; the arrays of children, timers, drops, groups and cancels point into them from 1.
-- p_statuses is null for a workflow that goes on (then the snapshot is set), else how it ended.
-- A commit that p_take does not admit, or whose version is not the workflow's, is refused. Afterwards a workflow with unread deliveries that its wake
-- groups say must wake is claimable again; otherwise it is suspended.
-- Returns the ids refused, and the queues in which something became claimable. Internal. Raises nothing of its own.
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
  p_group_commit integer[], p_group_modes smallint[], p_group_members text[], p_group_counts integer[],
  p_cancel_commit integer[], p_cancel_ids uuid[],
  out o_refused uuid[], out o_queues integer[])
language plpgsql as $$
declare
  v_taken boolean[];
  v_parents uuid[];
  v_operations integer[];
  v_roots uuid[];
  v_ended uuid[];
  v_kept uuid[];
  v_woken uuid[];
  v_more integer[];
begin
  select array_agg(w.id is not null order by u.position), array_agg(e.parent_id order by u.position),
         array_agg(e.operation order by u.position), array_agg(coalesce(e.root_id, e.id) order by u.position),
         coalesce(array_agg(u.id) filter (where w.id is null), '{}')
    into v_taken, v_parents, v_operations, v_roots, o_refused
    from unnest(p_ids, p_versions, p_take) with ordinality u(id, version, take, position)
    left join rhythm.waits w on w.id = u.id and w.version = u.version and u.take
    left join rhythm.executions e on e.id = u.id;

  if p_timer_commit is not null then
    insert into rhythm.timers (id, operation, due_at)
      select p_ids[u.commit], u.operation,
             coalesce(rhythm.time_after(p_now, u.delay), rhythm.time_after('epoch', u.due))
        from unnest(p_timer_commit, p_timer_operations, p_timer_delays, p_timer_due) u(commit, operation, delay, due)
        where v_taken[u.commit] and p_statuses[u.commit] is null
      on conflict (id, operation) do update set due_at = excluded.due_at;
  end if;
  if p_drop_commit is not null then
    delete from rhythm.timers t using unnest(p_drop_commit, p_drop_operations) u(commit, operation)
      where v_taken[u.commit] and t.id = p_ids[u.commit] and t.operation = u.operation;
  end if;

  select array_agg(u.id), coalesce(array_agg(u.id) filter (where u.keep), '{}') into v_ended, v_kept
    from unnest(p_ids, p_statuses, p_keep, v_taken) u(id, status, keep, taken) where u.taken and u.status is not null;
  if v_ended is not null then
    o_queues := o_queues || rhythm.end_workflows(p_now, p_ids, p_statuses, p_payloads, p_seen, p_unread_signals, p_started,
      p_attempts, p_lost, v_parents, v_operations, v_taken);
    perform rhythm.forget_workflows(v_ended, v_kept);
  end if;

  if cardinality(v_ended) is distinct from cardinality(p_ids) then
    perform rhythm.suspend_workflows(p_now, p_ids, p_versions, p_seen, p_snapshots, p_lines, p_functions, p_awaiting,
      p_outstanding, p_unread_signals, p_group_commit, p_group_modes, p_group_members, p_group_counts,
      array(select u.taken and u.status is null from unnest(v_taken, p_statuses) u(taken, status)));
  end if;

  if p_child_commit is not null then
    o_queues := o_queues || rhythm.start_children(p_now, p_ids, v_roots, v_taken, p_child_commit, p_child_ids,
      p_child_inputs, p_child_name, p_child_kinds, p_child_names, p_child_operations, p_child_queue, p_child_queues,
      p_child_priorities, p_child_delays, p_child_keys, p_child_retries, p_child_retry, p_child_timeouts);
  end if;
  if p_cancel_commit is not null then
    o_queues := o_queues || rhythm.cancel_many(p_now, array(
      select u.id from unnest(p_cancel_commit, p_cancel_ids) u(commit, id) where v_taken[u.commit]));
  end if;

  -- A later statement than the ones that locked and wrote: everything delivered so far is seen here.
  select array_agg(w.id) into v_woken
    from unnest(p_ids, v_taken) u(id, taken) join rhythm.waits w on w.id = u.id
    where u.taken and w.suspended and w.next_number - 1 > w.seen_through;
  if v_woken is not null then
    v_more := rhythm.wake_unread(v_woken);
    o_queues := o_queues || v_more;
  end if;
end $$;

-- Records the outcomes of ended workflows (those with a status that were taken) and delivers them to their parents.
-- Returns the queues in which something became claimable. Internal. Raises nothing.
create or replace function rhythm.end_workflows(
  p_now timestamptz, p_ids uuid[], p_statuses smallint[], p_payloads bytea[], p_seen bigint[], p_unread_signals integer[],
  p_started timestamptz[], p_attempts integer[], p_lost integer[], p_parents uuid[], p_operations integer[],
  p_taken boolean[]) returns integer[]
language plpgsql as $$
declare
  v_ids uuid[];
  v_kinds smallint[];
  v_operations integer[];
  v_children uuid[];
  v_sizes integer[];
begin
  insert into rhythm.outcomes (id, started_at, finished_at, attempts, lost, status, unread_signals, payload)
    select u.id, u.started_at, p_now, u.attempts, u.lost, u.status,
           u.unread_signals + (select count(*) from rhythm.deliveries d
                               where d.id = u.id and d.number > u.seen and d.kind = 4), u.payload
      from unnest(p_ids, p_statuses, p_payloads, p_seen, p_unread_signals, p_started, p_attempts, p_lost, p_taken)
        u(id, status, payload, seen, unread_signals, started_at, attempts, lost, taken)
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
  p_group_commit integer[], p_group_modes smallint[], p_group_members text[], p_group_counts integer[],
  p_taken boolean[]) returns void
language plpgsql as $$
begin
  insert into rhythm.snapshots (id, version, line, taken_at, function, awaiting, snapshot)
    select u.id, 1, u.line, p_now, u.function, u.awaiting, u.snapshot
      from unnest(p_ids, p_versions, p_snapshots, p_lines, p_functions, p_awaiting, p_taken)
        u(id, version, snapshot, line, function, awaiting, taken)
      where u.taken and u.version = 0;
  update rhythm.snapshots s
    set version = u.version + 1, line = u.line, taken_at = p_now, function = u.function, awaiting = u.awaiting,
        snapshot = u.snapshot
    from unnest(p_ids, p_versions, p_snapshots, p_lines, p_functions, p_awaiting, p_taken)
      u(id, version, snapshot, line, function, awaiting, taken)
    where u.taken and u.version > 0 and s.id = u.id;
  delete from rhythm.deliveries d using unnest(p_ids, p_seen, p_taken) u(id, seen, taken)
    where u.taken and d.id = u.id and d.number <= u.seen;
  update rhythm.waits w
    set version = u.version + 1, seen_through = u.seen, outstanding = u.outstanding, suspended = true,
        size = octet_length(u.snapshot), wake_modes = null, wake_members = null, wake_remaining = null,
        unread_signals = u.unread_signals + case when w.next_number - 1 > u.seen then (
          select count(*) from rhythm.deliveries d where d.id = u.id and d.number > u.seen and d.kind = 4) else 0 end
    from unnest(p_ids, p_versions, p_seen, p_snapshots, p_outstanding, p_unread_signals, p_taken)
      u(id, version, seen, snapshot, outstanding, unread_signals, taken)
    where u.taken and w.id = u.id;
  if p_group_commit is not null then
    update rhythm.waits w set wake_modes = g.modes, wake_members = g.members, wake_remaining = g.counts
      from (select u.commit, array_agg(u.mode order by u.position) as modes,
              array_agg(u.members::int4multirange order by u.position) as members, array_agg(u.count order by u.position) as counts
            from unnest(p_group_commit, p_group_modes, p_group_members, p_group_counts) with ordinality
              u(commit, mode, members, count, position)
            where p_taken[u.commit] group by u.commit) g
      where w.id = p_ids[g.commit];
  end if;
end $$;

-- Looks at what suspended workflows have not read and makes claimable those that must wake.
-- Returns the queues concerned. Internal; the caller has locked them in an earlier statement. Raises nothing.
create or replace function rhythm.wake_unread(p_ids uuid[]) returns integer[]
language plpgsql as $$
declare
  v_queues integer[];
begin
  with unread as materialized (
    select w.id, w.queue_id, w.priority_rank, w.seq, w.size, coalesce(g.o_wake, true) as woken, g.o_remaining as remaining
      from rhythm.waits w
      left join lateral (
        select array_agg(d.operation order by d.number) as operations,
               array_agg(case d.kind when 1 then true when 2 then false end order by d.number) as fulfilled
          from rhythm.deliveries d where d.id = w.id and d.number > w.seen_through) n on w.wake_modes is not null
      left join lateral rhythm.apply_groups(w.wake_modes, w.wake_members, w.wake_remaining, n.operations, n.fulfilled) g
        on w.wake_modes is not null
      where w.id = any(p_ids)),
  changed as (
    update rhythm.waits w set suspended = not u.woken, wake_remaining = coalesce(u.remaining, w.wake_remaining)
      from unread u where w.id = u.id),
  woken as (
    insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, attempts, size, id)
    select u.queue_id, 0, u.priority_rank, 0, u.seq, 0, u.size, u.id from unread u where u.woken)
  select array_agg(distinct u.queue_id) into v_queues from unread u where u.woken;
  return v_queues;
end $$;

-- Starts the children of commits that were taken. A child whose id exists already, for somebody else, is a failed
-- operation of its parent. Returns the queues in which something became claimable. Internal. Raises nothing of its own.
create or replace function rhythm.start_children(
  p_now timestamptz, p_ids uuid[], p_roots uuid[], p_taken boolean[],
  p_commit integer[], p_child_ids uuid[], p_inputs bytea[], p_name integer[], p_kinds smallint[], p_names text[],
  p_operations integer[], p_queue integer[], p_queues text[], p_priorities integer[], p_delays double precision[],
  p_keys text[], p_retries integer[], p_retry text[], p_timeouts bigint[]) returns integer[]
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
            array_agg(p_ids[u.commit] order by u.position) as parents,
            array_agg(u.operation order by u.position) as operations,
            array_agg(p_roots[u.commit] order by u.position) as roots
          from unnest(p_commit, p_child_ids, p_inputs, p_name, p_operations, p_queue, p_priorities, p_delays, p_keys,
                      p_retries, p_retry, p_timeouts) with ordinality
            u(commit, id, inputs, name, operation, queue, priority, delay, key, retries, retry, timeout, position)
          where p_taken[u.commit]) t,
      lateral rhythm.insert_executions(p_now, t.ids, t.inputs, t.name, rhythm.resolve_names(p_kinds, p_names), t.queue,
        v_queue_ids, t.priorities, null, t.delays, t.keys, t.retries, t.retry, t.timeouts, null, null, t.parents,
        t.operations, t.roots) i
    where t.ids is not null;
  if coalesce(cardinality(v_inserted), 0) = cardinality(p_child_ids) then
    return v_queues;
  end if;

  select array_agg(p_ids[u.commit] order by u.position), array_agg(2::smallint order by u.position),
         array_agg(u.operation order by u.position), array_agg(f.payload order by u.position),
         array_agg(octet_length(f.payload) order by u.position)
    into v_ids, v_kinds, v_operations, v_payloads, v_sizes
    from unnest(p_commit, p_child_ids, p_operations) with ordinality u(commit, id, operation, position)
    left join rhythm.executions e on e.id = u.id and e.parent_id = p_ids[u.commit] and e.operation = u.operation,
      (select rhythm.as_payload(json_build_object('name', 'StartRefused', 'message', 'the id is in use',
        'type', 'failed', 'retryable', false)::text)) f(payload)
    where p_taken[u.commit] and e.id is null;
  if v_ids is not null then
    v_queues := v_queues || rhythm.deliver(v_ids, v_kinds, v_operations, null, null, v_payloads, v_sizes);
  end if;
  return v_queues;
end $$;
