-- Cancellation.
--
-- What has had no effect yet ends at once: a task that nobody holds a claim on, a workflow that has never committed a
-- step. A claimed task is marked, and its worker hears of it with its next heartbeat; a workflow that has begun gets a
-- delivery, once. Both settle with what really happens; but nothing that is marked makes another attempt: a failure that
-- is reported is final, and after a hand back, a lost worker or an expired attempt it ends as cancelled.
--
-- A forced cancel (terminate) ends an execution wherever it stands.
--
-- So that no mark is overlooked, whoever takes an attempt from its claim and whoever marks it have a lock in common: the
-- row in waits of a workflow or of a task's parent, or, for a task whose parent has none, its claim (hold_in_place).

-- Whether an execution that is about to become claimable again must not, because somebody has asked to cancel it and
-- nothing of it can answer that. Internal. Raises nothing.
create or replace function rhythm.ends_when_cancelled(p_id uuid) returns boolean
language sql stable as $$
  select exists (select from rhythm.cancels c where c.id = p_id)
    and not exists (select from rhythm.waits w where w.id = p_id and w.version > 0)
$$;

-- Ends as cancelled executions that the caller has taken from where they stood, and delivers that to their parents; all
-- those rows in waits are locked. p_started is null for attempts that had not begun, p_why for what had not been claimed.
-- Returns the queues in which something became claimable. Internal. Raises nothing.
create or replace function rhythm.end_cancelled(
  p_now timestamptz, p_ids uuid[], p_attempts integer[], p_lost integer[], p_started timestamptz[], p_why text)
returns integer[] language plpgsql as $$
declare
  v_parents uuid[];
  v_operations integer[];
  v_children uuid[];
begin
  insert into rhythm.outcomes (id, started_at, finished_at, attempts, lost, status, unread_signals, payload)
    select u.id, u.started, p_now, u.attempts, u.lost, 3, w.unread_signals,
           rhythm.as_payload(json_build_object('name', 'CancelledError', 'message', coalesce(p_why,
             case u.attempts when 0 then 'cancelled before it was run' else 'cancelled before another attempt' end),
             'type', 'cancelled', 'attempts', u.attempts, 'retryable', false)::text)
      from unnest(p_ids, p_attempts, p_lost, p_started) u(id, attempts, lost, started)
      left join lateral (select w.unread_signals from rhythm.waits w where w.id = u.id offset 0) w on true
    on conflict (id) do nothing;
  perform rhythm.forget_workflows(p_ids);
  select array_agg(e.parent_id order by u.position), array_agg(e.operation order by u.position),
         array_agg(u.id order by u.position)
    into v_parents, v_operations, v_children
    from unnest(p_ids) with ordinality u(id, position)
    cross join lateral (select e.parent_id, e.operation from rhythm.executions e where e.id = u.id offset 0) e
    where e.parent_id is not null;
  if v_parents is null then
    return null;
  end if;
  return rhythm.deliver(v_parents, array_fill(2::smallint, array[cardinality(v_parents)]), v_operations, v_children,
    null, null, array_fill(150, array[cardinality(v_parents)]));
end $$;

-- Takes those of the given executions out of ready, later and gated that can end where they are: tasks, and workflows that have
-- never committed a step. Returns them (null: none) with their attempts and losses. Internal; the caller has locked the
-- rows in waits. Raises nothing.
create or replace function rhythm.remove_pending(
  p_ids uuid[], out o_ids uuid[], out o_attempts integer[], out o_lost integer[])
language plpgsql as $$
declare
  v_ids uuid[] := array(
    select u.id from unnest(p_ids) u(id)
      where not exists (select from rhythm.waits w where w.id = u.id and w.version > 0));
  v_found uuid[];
  v_attempts integer[];
  v_lost integer[];
begin
  for v_turn in 1 .. 2 loop    -- twice: one may be on its way from one to the other
    with gone as (
      delete from rhythm.ready r where r.ctid = any(array(
        select r.row from unnest(v_ids) u(id)
          cross join lateral (select * from rhythm.executions e where e.id = u.id offset 0) e
          cross join lateral (
            select r.ctid as row from rhythm.ready r
              where r.queue_id = e.queue_id and r.priority_rank = -e.priority and r.seq = e.seq
                and r.name_id = case when e.definition_id is null then e.name_id else 0 end offset 0) r))
      returning r.id, r.attempts, r.lost)
    select array_agg(g.id), array_agg(g.attempts), array_agg(g.lost) into v_found, v_attempts, v_lost from gone g;
    o_ids := o_ids || v_found;
    o_attempts := o_attempts || v_attempts;
    o_lost := o_lost || v_lost;
    with gone as (
      delete from rhythm.later l where l.ctid = any(array(
        select l.row from unnest(v_ids) u(id)
          cross join lateral (select l.ctid as row from rhythm.later l where l.id = u.id offset 0) l))
      returning l.id, l.attempts, l.lost)
    select array_agg(g.id), array_agg(g.attempts), array_agg(g.lost) into v_found, v_attempts, v_lost from gone g;
    o_ids := o_ids || v_found;
    o_attempts := o_attempts || v_attempts;
    o_lost := o_lost || v_lost;
    exit when cardinality(o_ids) = cardinality(v_ids);
    with gone as (
      delete from rhythm.gated d where d.ctid = any(array(
        select rhythm.find_gated(u.id) from unnest(v_ids) u(id)))
      returning d.id, d.attempts, d.lost)
    select array_agg(g.id), array_agg(g.attempts), array_agg(g.lost) into v_found, v_attempts, v_lost from gone g;
    o_ids := o_ids || v_found;
    o_attempts := o_attempts || v_attempts;
    o_lost := o_lost || v_lost;
    exit when cardinality(o_ids) = cardinality(v_ids);
  end loop;
end $$;

-- Cancels executions whose rows in waits, and those of their parents, the caller has locked. What has finished is left
-- alone. Returns the queues in which something became claimable. Internal. Raises nothing.
create or replace function rhythm.cancel_many(p_now timestamptz, p_ids uuid[]) returns integer[]
language plpgsql as $$
declare
  v_ids uuid[];
  v_attempts integer[];
  v_lost integer[];
  v_queues integer[];
begin
  select r.o_ids, r.o_attempts, r.o_lost into v_ids, v_attempts, v_lost from rhythm.remove_pending(p_ids) r;
  if v_ids is not null then
    v_queues := rhythm.end_cancelled(p_now, v_ids, v_attempts, v_lost, null, null);
  end if;
  with marked as (
    insert into rhythm.cancels (id, requested_at)
      select distinct u.id, p_now from unnest(p_ids) u(id)
        where exists (select from rhythm.executions e where e.id = u.id)
          and not exists (select from rhythm.outcomes o where o.id = u.id)
        order by u.id
      on conflict do nothing returning id)
  select array_agg(m.id) into v_ids from marked m where exists (select from rhythm.waits w where w.id = m.id);
  if v_ids is not null then
    v_queues := v_queues || rhythm.deliver(v_ids, array_fill(5::smallint, array[cardinality(v_ids)]), null, null, null, null,
      array_fill(0, array[cardinality(v_ids)]));
  end if;
  return v_queues;
end $$;

-- Locks a task that has no row in waits to be locked by, nor a parent that has one, where it stands: in its claim, or
-- pending. Internal. Raises nothing.
create or replace function rhythm.hold_in_place(p_id uuid) returns void
language plpgsql as $$
begin
  for v_turn in 1 .. 100 loop  -- until it has been caught between two places
    perform 1 from rhythm.claims c where p_id = any(c.ids) order by c.id for update;
    exit when found;
    perform 1 from rhythm.ready r where r.ctid = any(array(
      select r.ctid from rhythm.executions e join rhythm.ready r
        on r.queue_id = e.queue_id and r.priority_rank = -e.priority and r.seq = e.seq and r.name_id = e.name_id
        where e.id = p_id)) for update;
    exit when found;
    perform 1 from rhythm.gated d where d.ctid = any(array(select rhythm.find_gated(p_id))) for update;
    exit when found;
    perform 1 from rhythm.later l where l.id = p_id for update;
    exit when found or exists (select from rhythm.outcomes o where o.id = p_id);
  end loop;
end $$;

-- Asks for an execution to be cancelled; asking twice is asking once.
-- Returns nothing. Raises RH003 when there is no such execution, RH004 when it has finished.
create or replace function rhythm.cancel(p_id uuid) returns void
language plpgsql as $$
declare
  v_parent uuid;
begin
  select e.parent_id into v_parent from rhythm.executions e where e.id = p_id;
  if not found then
    raise exception 'no execution has the id %', p_id using errcode = 'RH003';
  end if;
  perform rhythm.lock_workflows(array[p_id, v_parent]);
  if not exists (select from rhythm.waits w where w.id in (p_id, v_parent)) then
    perform rhythm.hold_in_place(p_id);
  end if;
  if exists (select from rhythm.outcomes o where o.id = p_id) then
    raise exception 'execution % has finished', p_id using errcode = 'RH004';
  end if;
  perform rhythm.notify_idle(rhythm.cancel_many(rhythm.now(), array[p_id]));
end $$;

-- Takes an execution, whose row in waits is locked, from wherever it stands. Returns the attempts, losses and start of its
-- attempt, and the incarnation that held it. Internal. Raises RH009 when it has just moved: to be tried again.
create or replace function rhythm.take_from_anywhere(
  p_id uuid, out o_attempts integer, out o_lost integer, out o_started timestamptz, out o_holder uuid)
language plpgsql as $$
declare
  v_claim rhythm.claims;
  v_position integer;
begin
  delete from rhythm.ready r where r.ctid = any(array(
    select r.ctid from rhythm.executions e join rhythm.ready r
      on r.queue_id = e.queue_id and r.priority_rank = -e.priority and r.seq = e.seq
        and r.name_id = case when e.definition_id is null then e.name_id else 0 end
      where e.id = p_id))
    returning r.attempts, r.lost into o_attempts, o_lost;
  if found then
    return;
  end if;
  delete from rhythm.later l where l.id = p_id returning l.attempts, l.lost into o_attempts, o_lost;
  if found then
    return;
  end if;
  delete from rhythm.gated d where d.ctid = any(array(select rhythm.find_gated(p_id)))
    returning d.attempts, d.lost into o_attempts, o_lost;
  if found then
    return;
  end if;
  select 1, 0, w.started_at into o_attempts, o_lost, o_started from rhythm.waits w where w.id = p_id and w.suspended;
  if found then
    return;
  end if;
  -- Claims come before waits in the order of locks, so this one is locked already, or not waited for.
  select c.* into v_claim from rhythm.claims c where p_id = any(c.ids) for update skip locked;
  if not found then
    raise exception 'execution % has moved', p_id using errcode = 'RH009';
  end if;
  v_position := array_position(v_claim.ids, p_id);
  o_attempts := v_claim.attempts[v_position];
  o_lost := coalesce(v_claim.lost[v_position], 0);
  o_started := v_claim.started_at;
  o_holder := v_claim.incarnation;
  if v_claim.gated then
    perform rhythm.notify_idle(rhythm.leave_places(array[p_id]));
  end if;
  if cardinality(array_remove(array_remove(v_claim.ids, p_id), null)) = 0 then
    delete from rhythm.claims c where c.id = v_claim.id;
  else
    update rhythm.claims c set ids[v_position] = null where c.id = v_claim.id;
  end if;
end $$;

-- One try of terminate. Internal. Raises RH009 when something has moved since it was looked for, so that locks would be
-- taken out of order; and what terminate raises.
create or replace function rhythm.try_to_terminate(p_id uuid) returns void
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_parent uuid;
  v_children uuid[];
  v_stops int4multirange;
  v_attempts integer;
  v_lost integer;
  v_started timestamptz;
  v_holder uuid;
  v_queues integer[];
begin
  select e.parent_id into v_parent from rhythm.executions e where e.id = p_id;
  if not found then
    raise exception 'no execution has the id %', p_id using errcode = 'RH003';
  end if;
  v_children := array(select e.id from rhythm.executions e
    where e.parent_id = p_id and not exists (select from rhythm.outcomes o where o.id = e.id));
  perform 1 from rhythm.claims c where p_id = any(c.ids) order by c.id for update;
  perform rhythm.lock_workflows(array[p_id, v_parent] || v_children);
  if exists (select from rhythm.outcomes o where o.id = p_id) then
    raise exception 'execution % has finished', p_id using errcode = 'RH004';
  elsif exists (select from rhythm.executions e where e.parent_id = p_id and e.id <> all(v_children)
                  and not exists (select from rhythm.outcomes o where o.id = e.id)) then
    raise exception 'execution % has started another child', p_id using errcode = 'RH009';
  end if;
  select t.o_attempts, t.o_lost, t.o_started, t.o_holder into v_attempts, v_lost, v_started, v_holder
    from rhythm.take_from_anywhere(p_id) t;

  select range_agg(r.range) into v_stops
    from rhythm.snapshots s
    cross join lateral json_array_elements(rhythm.as_json(s.awaiting)) a(entry)
    cross join lateral (
      select int4range((a.entry ->> 'operation')::integer, (a.entry ->> 'operation')::integer + 1) as range
        where a.entry ->> 'kind' <> 'more' and a.entry -> 'stops' is not null
      union all
      select int4range((m.pair ->> 0)::integer, (m.pair ->> 1)::integer)
        from json_array_elements(case a.entry ->> 'kind' when 'more' then a.entry -> 'stops' else '[]' end) m(pair)) r
    where s.id = p_id;
  v_queues := rhythm.end_cancelled(v_now, array[p_id], array[v_attempts], array[v_lost], array[v_started],
    'ended by force, without running any more of it');
  insert into rhythm.cancels as c (id, requested_at, incarnation) values (p_id, v_now, v_holder)
    on conflict (id) do update set requested_at = excluded.requested_at, incarnation = excluded.incarnation;
  v_queues := v_queues || rhythm.cancel_many(v_now, array(
    select e.id from rhythm.executions e where e.id = any(v_children) and v_stops @> e.operation));
  perform rhythm.notify_idle(v_queues);
end $$;

-- Ends an execution as cancelled wherever it stands, without running any more of it: a second, forced cancel. What its
-- worker still says of it is refused. The tasks and children that the workflow waits for are asked to cancel; those that it
-- does not wait for, or that it lets run on a cancel, carry on.
-- Returns nothing. Raises RH003 when there is no such execution, RH004 when it has finished.
create or replace function rhythm.terminate(p_id uuid) returns void
language plpgsql as $$
begin
  for v_turn in 1 .. 100 loop
    begin  -- a failed try gives its locks back
      perform rhythm.try_to_terminate(p_id);
      return;
    exception when sqlstate 'RH009' then
      null;
    end;
  end loop;
  raise exception 'execution % does not stand still', p_id using errcode = '40001';
end $$;
