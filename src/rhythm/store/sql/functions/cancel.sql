-- Cancellation.

-- Cancels executions whose rows in waits, and those of their parents, the caller has locked. What nobody has claimed ends
-- here as cancelled, and its parent gets that as an outcome; a workflow that has begun gets a delivery, once; a running
-- task is marked, and its worker hears of it with its next heartbeat. What has finished is left alone.
-- Returns the queues in which something became claimable. Internal. Raises nothing.
create or replace function rhythm.cancel_many(p_now timestamptz, p_ids uuid[]) returns integer[]
language plpgsql as $$
declare
  v_row record;
  v_queues integer[];
begin
  for v_row in
    select e.id, e.parent_id, e.operation, exists (select from rhythm.waits w where w.id = e.id) as workflow
      from rhythm.executions e
      where e.id = any(p_ids) and not exists (select from rhythm.outcomes o where o.id = e.id) order by e.id
  loop
    if rhythm.remove_pending(p_now, v_row.id, 'cancelled before it was run') then
      if v_row.parent_id is not null then
        v_queues := v_queues || rhythm.deliver(array[v_row.parent_id], array[2::smallint], array[v_row.operation],
          array[v_row.id], null, null, array[100]);
      end if;
      continue;
    end if;
    insert into rhythm.cancels (id, requested_at) values (v_row.id, p_now) on conflict do nothing;
    if found and v_row.workflow then
      v_queues := v_queues || rhythm.deliver(array[v_row.id], array[5::smallint], array[null::integer], array[null::uuid],
        array[null::text], array[null::bytea], array[0]);
    end if;
  end loop;
  return v_queues;
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
  if exists (select from rhythm.outcomes o where o.id = p_id) then
    raise exception 'execution % has finished', p_id using errcode = 'RH004';
  end if;
  perform rhythm.notify_idle(rhythm.cancel_many(rhythm.now(), array[p_id]));
end $$;
