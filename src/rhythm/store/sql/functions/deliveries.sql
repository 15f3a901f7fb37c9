-- What goes into workflows: deliveries and wake-ups.
--
-- No wake-up is lost because of one rule: whoever delivers to a workflow or suspends one first locks its row in waits, in
-- a statement of its own, and inserts, counts and reads deliveries in later statements. Those see everything that was
-- committed before the lock was granted; a statement that locks and counts at once does not (READ COMMITTED).

-- Locks workflows against delivery and commit, in the order of their ids. Internal. Raises nothing.
create or replace function rhythm.lock_workflows(p_ids uuid[]) returns void
language plpgsql as $$
begin
  perform 1 from rhythm.waits w where w.id = any(p_ids) order by w.id for update;
end $$;

-- What deliveries do to the groups of a suspended workflow. p_fulfilled is true for an output, false for an error,
-- null for what is no outcome. Returns whether it must wake, and how many outcomes each group still waits for.
-- A delivery that belongs to no group wakes; otherwise its group's mode decides, or being its last. Internal.
create or replace function rhythm.apply_groups(
  p_modes smallint[], p_members int4multirange[], p_remaining integer[], p_operations integer[], p_fulfilled boolean[],
  out o_wake boolean, out o_remaining integer[])
language plpgsql immutable strict as $$
declare
  v_in_group boolean;
begin
  o_wake := false;
  o_remaining := p_remaining;
  for d in 1 .. cardinality(p_operations) loop
    v_in_group := false;
    if p_fulfilled[d] is not null then
      for g in 1 .. cardinality(p_modes) loop
        if p_members[g] @> p_operations[d] then
          v_in_group := true;
          o_remaining[g] := o_remaining[g] - 1;
          if o_remaining[g] <= 0 or (p_modes[g] = 1 and not p_fulfilled[d]) or (p_modes[g] = 2 and p_fulfilled[d]) then
            o_wake := true;
          end if;
        end if;
      end loop;
    end if;
    if not v_in_group then
      o_wake := true;
    end if;
  end loop;
end $$;

-- Delivers to workflows, whose rows the caller has locked, and wakes those that must be. Parallel arrays, in the order of
-- settling for each workflow; p_sizes is the payload's bytes. Workflows that have finished get nothing.
-- Returns the queues in which something became claimable. Internal. Raises nothing.
create or replace function rhythm.deliver(
  p_ids uuid[], p_kinds smallint[], p_operations integer[], p_children uuid[], p_names text[], p_payloads bytea[],
  p_sizes integer[]) returns integer[]
language plpgsql as $$
declare
  v_queues integer[];
begin
  insert into rhythm.deliveries (id, number, kind, operation, child_id, name, payload)
    select u.id, w.next_number + row_number() over (partition by u.id order by u.position) - 1,
           u.kind, u.operation, u.child_id, u.name, u.payload
      from unnest(p_ids, p_kinds, p_operations, p_children, p_names, p_payloads)
        with ordinality u(id, kind, operation, child_id, name, payload, position)
      cross join lateral (select w.next_number from rhythm.waits w where w.id = u.id offset 0) w;

  with batch as materialized (
    select u.id, count(*)::integer as count, count(*) filter (where u.kind = 4)::integer as signals,
           sum(u.size)::integer as size, array_agg(u.operation order by u.position) as operations,
           array_agg(case u.kind when 1 then true when 2 then false end order by u.position) as fulfilled
      from unnest(p_ids, p_kinds, p_operations, p_sizes) with ordinality u(id, kind, operation, size, position)
      group by u.id),
  before as materialized (
    select w.*, w.suspended and coalesce(g.o_wake, true) as woken, g.o_remaining as remaining, b.count, b.signals,
           case when w.size::bigint + b.size < 1000000000 then w.size + b.size else 1000000000 end as claim_size
      from batch b cross join lateral (select * from rhythm.waits w where w.id = b.id offset 0) w
      left join lateral rhythm.apply_groups(w.wake_modes, w.wake_members, w.wake_remaining, b.operations, b.fulfilled) g
        on w.suspended and w.wake_modes is not null),
  changed as (
    -- an update by another name: this one cannot be planned as a join that reads all of waits
    insert into rhythm.waits as w (id, version, next_number, seen_through, outstanding, unread_signals, queue_id, size, seq,
      definition_id, priority_rank, suspended, wake_remaining)
    select b.id, b.version, b.next_number + b.count, b.seen_through, b.outstanding, b.unread_signals + b.signals, b.queue_id,
           b.size, b.seq, b.definition_id, b.priority_rank, b.suspended and not b.woken, coalesce(b.remaining, b.wake_remaining)
      from before b
    on conflict (id) do update set next_number = excluded.next_number, unread_signals = excluded.unread_signals,
      suspended = excluded.suspended, wake_remaining = excluded.wake_remaining),
  woken as (
    insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, returned_seq, attempts, size, id)
    select b.queue_id, 0, b.priority_rank, 0, b.seq, b.seq, 0, b.claim_size, b.id from before b where b.woken)
  select array_agg(distinct b.queue_id) into v_queues from before b where b.woken;
  return v_queues;
end $$;

-- Notes the timers of workflows that end uncatchably beside their snapshots. Internal. Raises nothing.
create or replace function rhythm.keep_timers(p_ids uuid[]) returns void
language plpgsql as $$
begin
  update rhythm.snapshots s
    set kept_timers = (select jsonb_object_agg(t.operation, t.due_at) from rhythm.timers t where t.id = s.id)
    where s.id = any(p_ids);
end $$;

-- Removes everything that only unfinished workflows have; of those in p_keep, their snapshots, what they have not read and
-- a note of their timers stay for a retry. The places they hold in queues with limits come free. Internal; the caller has
-- locked their rows. Raises nothing.
create or replace function rhythm.forget_workflows(p_ids uuid[], p_keep uuid[] default '{}') returns void
language plpgsql as $$
declare
  v_gated uuid[];
begin
  if p_keep <> '{}' then
    perform rhythm.keep_timers(p_keep);
  end if;
  delete from rhythm.timers t where t.id = any(p_ids);
  delete from rhythm.deliveries d where d.id = any(p_ids) and d.id <> all(p_keep);
  delete from rhythm.snapshots s where s.id = any(p_ids) and s.id <> all(p_keep);
  with gone as (delete from rhythm.waits w where w.id = any(p_ids) returning w.id, w.queue_id)
  select array_agg(g.id) into v_gated
    from gone g where g.queue_id = any(array(select q.id from rhythm.queues q where q.limited));
  if v_gated is not null then
    perform rhythm.notify_idle(rhythm.leave_places(v_gated));
  end if;
end $$;

-- Tells sleeping workers that something became claimable in these queues: of each queue the two that fell asleep last, each
-- on a channel of its own, so that nobody else is woken. A hint only. A worker that died in its sleep is found out by its
-- heartbeat only, some time later; whoever has worked since is told before it, so that it does not go on swallowing hints.
-- Returns nothing. Internal. Raises nothing.
create or replace function rhythm.notify_idle(p_queues integer[]) returns void
language plpgsql as $$
begin
  if p_queues is null or not exists (select from rhythm.idle) then
    return;
  end if;
  perform pg_notify('rhythm.' || t.incarnation, '') from (
    select distinct l.incarnation from unnest(p_queues) q(id)
      cross join lateral (
        select i.incarnation from rhythm.idle i where i.queue_id = q.id order by i.since desc limit 2) l
      limit 200) t;
end $$;

-- Sends a signal to a workflow execution. Repeating it with the same send id does nothing.
-- Returns nothing. Raises RH003 when there is no such execution, RH004 when it has finished, RH005 when 10,000 signals
-- are waiting to be read, RH006 when it is a task.
create or replace function rhythm.signal(p_id uuid, p_name text, p_payload bytea, p_send_id uuid) returns void
language plpgsql as $$
declare
  v_unread integer;
begin
  perform rhythm.lock_workflows(array[p_id]);
  select w.unread_signals into v_unread from rhythm.waits w where w.id = p_id;
  if not found then
    if exists (select from rhythm.signals s where s.execution_id = p_id and s.send_id = p_send_id) then
      return;
    elsif exists (select from rhythm.outcomes o where o.id = p_id) then
      raise exception 'execution % has finished', p_id using errcode = 'RH004';
    elsif exists (select from rhythm.executions e where e.id = p_id) then
      raise exception 'execution % is a task: only workflows take signals', p_id using errcode = 'RH006';
    end if;
    raise exception 'no execution has the id %', p_id using errcode = 'RH003';
  end if;
  insert into rhythm.signals (execution_id, send_id) values (p_id, p_send_id) on conflict do nothing;
  if not found then
    return;
  end if;
  if v_unread >= 10000 then
    raise exception 'execution % has % unread signals', p_id, v_unread using errcode = 'RH005';
  end if;
  perform rhythm.notify_idle(rhythm.deliver(array[p_id], array[4::smallint], array[null::integer], array[null::uuid],
    array[p_name], array[p_payload], array[octet_length(p_payload)]));
end $$;

-- Sends a signal from plain SQL, within the caller's transaction. Repeating it with the same send id does nothing; without
-- one every call is another signal. Until the transaction ends the workflow cannot take a step: send signals last.
-- Returns the send id. Raises RH001 for a name of no or more than 200 characters, and what signal raises.
create or replace function rhythm.send_signal(
  p_id uuid, p_name text, p_payload json default 'null', p_send_id uuid default rhythm.new_id())
returns uuid language plpgsql as $$
begin
  perform rhythm.check_signal(p_name, p_payload, p_send_id);
  perform rhythm.signal(p_id, p_name, rhythm.as_payload(p_payload::text), p_send_id);
  return p_send_id;
end $$;

-- Refuses what plain SQL may hand over as a signal. Returns nothing. Internal. Raises RH001.
create or replace function rhythm.check_signal(p_name text, p_payload json, p_send_id uuid) returns void
language plpgsql as $$
begin
  if p_payload is null or p_send_id is null or coalesce(length(p_name), 0) not between 1 and 200 then
    raise exception 'a signal needs a name of 1 to 200 characters, a JSON payload and a send id'
      using errcode = 'RH001', detail = 'invalid_signal';
  end if;
end $$;
