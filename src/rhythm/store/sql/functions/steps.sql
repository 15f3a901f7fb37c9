-- The sequential step: what an exchange does when one workflow waits for one task at a time and nothing else is there.

-- One task's final outcome, the next step of its parent in place, and the task which that starts, claimed at once: the same
-- as exchange with one report and one continuation with one child, at a fifth of its cost. Options of the child as in
-- start_many, null where not given. p_log_levels and p_log_texts: lines for the log of the parent.
-- It applies only if nothing in the given queues is claimable, so that nothing is overtaken; if this worker runs the
-- child's name and queue, which nobody has paused and which has no limits; and if report and continuation both count. Otherwise o_claim is null
-- and nothing was done: call exchange.
-- Returns the claim of the child, a single, what its registration adds, and what the parent is. Raises RH002 and RH007 as exchange does, and 23505
-- when the child's id is in use (call exchange).
create or replace function rhythm.step(
  p_incarnation uuid, p_epoch integer, p_claim bigint, p_id uuid, p_action smallint, p_payload bytea,
  p_parent uuid, p_version integer, p_number bigint, p_snapshot bytea, p_line integer, p_function text, p_awaiting bytea,
  p_outstanding integer, p_unread_signals integer,
  p_child uuid, p_inputs bytea, p_name text, p_operation integer, p_queue text, p_priority integer, p_key text,
  p_retries integer, p_retry text, p_timeout_ms bigint, p_queues integer[], p_names integer[],
  p_log_levels smallint[] default null, p_log_texts bytea[] default null,
  out o_claim bigint, out o_queue integer, out o_timeout_ms bigint, out o_retries integer, out o_retry text,
  out o_created double precision, out o_parent_name integer, out o_definition bigint, out o_parent_tags text)
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_name rhythm.names;
  v_claim rhythm.claims;
  v_wait rhythm.waits;
  v_root uuid;
  v_priority smallint;
begin
  perform rhythm.enter_exchange(p_incarnation, p_epoch);
  select n.* into v_name from rhythm.names n where n.kind = 1 and n.name = p_name;
  if v_name.registered_at is null or v_name.id <> all(p_names) then
    return;
  end if;
  if p_queue is null then
    select q.id into o_queue from rhythm.queues q where q.id = v_name.queue_id and not q.paused and not q.limited;
  else
    select q.id into o_queue from rhythm.queues q where q.name = p_queue and not q.paused and not q.limited;
  end if;
  if o_queue is null or o_queue <> all(p_queues)
      or rhythm.has_ready(p_queues, p_names || 0) then
    return;
  end if;

  select c.* into v_claim from rhythm.claims c where c.id = p_claim for update;
  if not found or not v_claim.single or v_claim.ids[1] <> p_id or v_claim.incarnation <> p_incarnation then
    return;
  end if;
  select w.* into v_wait from rhythm.waits w where w.id = p_parent for update;
  if not found or not v_wait.suspended or v_wait.version <> p_version or v_wait.next_number <> p_number
      or v_wait.seen_through <> p_number - 1 then
    return;
  end if;
  select coalesce(p.root_id, p.id), p.name_id, p.tags::text into v_root, o_parent_name, o_parent_tags from rhythm.executions e join rhythm.executions p on p.id = e.parent_id
    where e.id = p_id and e.parent_id = p_parent;
  if not found then
    return;
  end if;

  delete from rhythm.claims c where c.id = p_claim;
  insert into rhythm.outcomes (id, started_at, finished_at, attempts, lost, status, payload)
    values (p_id, v_claim.started_at, v_now, v_claim.attempts[1], coalesce(v_claim.lost[1], 0),
            case p_action when 1 then 1 when 3 then 3 else 2 end, p_payload);
  update rhythm.snapshots s
    set version = p_version + 1, line = p_line, taken_at = v_now, function = p_function, awaiting = p_awaiting,
        snapshot = p_snapshot
    where s.id = p_parent;
  update rhythm.waits w
    set version = p_version + 1, next_number = p_number + 1, seen_through = p_number, outstanding = p_outstanding,
        unread_signals = p_unread_signals, size = octet_length(p_snapshot), wake_modes = null, wake_members = null,
        wake_remaining = null
    where w.id = p_parent;
  if p_log_levels is not null then
    perform rhythm.write_logs(v_now, array_fill(p_parent, array[cardinality(p_log_levels)]), p_log_levels, p_log_texts);
  end if;

  o_definition := v_wait.definition_id;
  v_priority := coalesce(p_priority, v_name.priority);
  o_timeout_ms := coalesce(p_timeout_ms, v_name.timeout_ms);
  o_retries := coalesce(p_retries, v_name.retries);
  o_retry := rhythm.merge_retry(v_name.retry, p_retry::jsonb)::text;
  o_created := extract(epoch from v_now)::double precision * 1000;
  insert into rhythm.executions (id, created_at, name_id, queue_id, retries, timeout_ms, operation, priority, parent_id,
      root_id, key, retry, inputs)
    values (p_child, v_now, v_name.id, o_queue, o_retries, o_timeout_ms, p_operation, v_priority, p_parent,
      v_root, p_key, o_retry::jsonb, p_inputs);
  insert into rhythm.claims (incarnation, started_at, expires_at, single, ids, attempts, family)
    values (p_incarnation, v_now,
      case when o_timeout_ms > 0 then v_now + make_interval(secs => o_timeout_ms / 1000.0 + 10) end,
      true, array[p_child], array[1], true)
    returning id into o_claim;
  if exists (select from rhythm.idle) then
    perform rhythm.set_idle(p_incarnation, p_queues, false);
  end if;
end $$;
