-- The exchange: one round trip of a worker. Outcomes and commits in, claims out, one transaction.

-- Takes in how attempts ended and what activations did, hands back what was not run, and claims new work.
--
-- Reports are parallel arrays, one row per member: its claim, its position there (511: single), its id, what happened
-- (1 completed, 2 failed, 3 cancelled, 4 failed for good, 5 workflow committed, 6 handed back), payload, and seconds
-- until the next attempt instead of the policy's backoff (null: by policy). Rows are sorted by claim, batches first:
-- p_batches and p_batch_counts list the batch claims and their rows. A report counts if its claim holds that member;
-- otherwise its id is returned as refused. The members of a batch that were not reported become single claims.
--
-- Commits of workflows are parallel arrays as in commit_workflows; p_commit_report points to the report (from 1), or is
-- null for a continuation: then p_commit_child points to the report of the task whose outcome the commit has taken in. A continuation counts if its workflow is suspended at that version with nothing unread and that outcome is final.
--
-- Claims at most p_workflow_limit workflows, and tasks of the given names: those come in groups, p_task_counts says how
-- many names each has, p_task_limits how many tasks of them to claim at most. 4 MiB each kind, at most 500. Tasks of names
-- in p_singles are claimed singly: they are among o_new_ids and o_new_claims.
-- p_alone: this worker holds nothing and has no other exchange under way. p_idle: it will sleep if it gets nothing.
-- p_parents: suspended parents that a claimed task may continue come along.
-- o_check_again: it just fell asleep, or left behind something that it made claimable itself: exchange once more.
-- p_epoch: how often this incarnation has asked what it holds.
-- p_task_free: how many of p_task_limits would begin at once (null: all): no more are claimed from queues with limits, each
-- of them singly. o_next_pass: seconds until a rate lets something pass that this worker could run (null: look when
-- notified, or by the poll interval).
-- p_log_commits, p_log_levels, p_log_texts: lines for the logs of workflows, each of the commit it points to (from 1);
-- those of commits that do not count are dropped.
-- Raises RH002 when the incarnation is not registered or has been declared dead, RH007 when it has given this exchange up
-- (see held); nothing is done then.
create or replace function rhythm.exchange(
  p_incarnation uuid, p_epoch integer,
  p_claims bigint[], p_positions smallint[], p_ids uuid[], p_actions smallint[], p_payloads bytea[],
  p_retry_after double precision[], p_batches bigint[], p_batch_counts integer[],
  p_commit_report integer[], p_commit_child integer[], p_commit_ids uuid[], p_versions integer[], p_seen bigint[],
  p_snapshots bytea[], p_statuses smallint[], p_outcomes bytea[], p_keep boolean[], p_lines integer[], p_functions text[],
  p_awaiting bytea[], p_outstanding integer[], p_unread_signals integer[],
  p_child_commit integer[], p_child_ids uuid[], p_child_inputs bytea[], p_child_name integer[], p_child_kinds smallint[],
  p_child_names text[], p_child_operations integer[], p_child_queue integer[], p_child_queues text[],
  p_child_priorities integer[], p_child_delays double precision[], p_child_keys text[], p_child_retries integer[],
  p_child_retry text[], p_child_timeouts bigint[],
  p_timer_commit integer[], p_timer_operations integer[], p_timer_delays double precision[], p_timer_due double precision[],
  p_drop_commit integer[], p_drop_operations integer[],
  p_group_first integer[], p_group_modes smallint[], p_group_members text[], p_group_counts integer[],
  p_cancel_commit integer[], p_cancel_ids uuid[],
  p_queues integer[], p_names integer[], p_singles integer[], p_task_counts integer[], p_task_limits integer[],
  p_workflow_limit integer,
  p_alone boolean, p_idle boolean, p_parents boolean,
  p_task_free integer[] default null, p_child_limit_keys text[] default null,
  p_log_commits integer[] default null, p_log_levels smallint[] default null, p_log_texts bytea[] default null,
  out o_refused uuid[], out o_continued uuid[], out o_new_ids uuid[], out o_new_claims bigint[],
  out o_suspects boolean, out o_check_again boolean, out o_next_pass double precision,
  out t_claim bigint, out t_ids uuid[], out t_attempts integer[], out t_lost smallint[],
  out t_names integer[], out t_queues integer[], out t_inputs bytea[], out t_timeouts bigint[], out t_created double precision[],
  out t_extra integer[], out x_parents uuid[], out x_operations integer[], out x_keys text[], out x_tags text[],
  out x_retries integer[], out x_retry text[],
  out c_index integer[], out c_names integer[], out c_definitions bigint[], out c_versions integer[], out c_numbers bigint[],
  out c_snapshots bytea[], out c_tags text[],
  out w_claim bigint, out w_ids uuid[], out w_attempts integer[], out w_lost smallint[],
  out w_names integer[], out w_queues integer[], out w_inputs bytea[], out w_created double precision[],
  out w_definitions bigint[], out w_versions integer[], out w_snapshots bytea[], out w_parents uuid[], out w_operations integer[],
  out w_keys text[], out w_tags text[],
  out d_index integer[], out d_numbers bigint[], out d_kinds smallint[], out d_operations integer[], out d_names text[],
  out d_payloads bytea[])
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_queues integer[];
  v_known uuid[] := '{}';
  v_task_rows tid[] := '{}';
  v_workflow_rows tid[] := '{}';
  v_batched integer;
  v_ready integer;
  -- queues with limits, what has passed their gates, and how much more is to be claimed elsewhere
  v_limited integer[] := '{}';
  v_open integer[] := p_queues;
  v_began timestamptz := v_now;
  v_taken integer[];
  v_suspect_passed boolean := false;
  v_suspect_waits boolean := false;
  v_more boolean := false;
  v_task_limits integer[] := p_task_limits;
  v_workflow_limit integer := p_workflow_limit;
  v_full integer[] := '{}';
  v_suspect tid;
  v_suspect_name integer;
begin
  perform rhythm.enter_exchange(p_incarnation, p_epoch);
  o_refused := '{}';
  o_continued := '{}';
  if p_claims is not null then
    select r.o_refused, r.o_continued, r.o_new_ids, r.o_new_claims, r.o_queues
      into o_refused, o_continued, o_new_ids, o_new_claims, v_queues
      from rhythm.report(v_now, p_incarnation,
        p_claims, p_positions, p_ids, p_actions, p_payloads, p_retry_after, p_batches, p_batch_counts,
        p_commit_report, p_commit_child, p_commit_ids, p_versions, p_seen, p_snapshots, p_statuses, p_outcomes, p_keep,
        p_lines, p_functions, p_awaiting, p_outstanding, p_unread_signals,
        p_child_commit, p_child_ids, p_child_inputs, p_child_name, p_child_kinds, p_child_names, p_child_operations,
        p_child_queue, p_child_queues, p_child_priorities, p_child_delays, p_child_keys, p_child_retries, p_child_retry,
        p_child_timeouts, p_timer_commit, p_timer_operations, p_timer_delays, p_timer_due,
        p_drop_commit, p_drop_operations, p_group_first, p_group_modes, p_group_members, p_group_counts,
        p_cancel_commit, p_cancel_ids, p_child_limit_keys) r;
    v_known := coalesce(p_commit_ids, '{}');
    if p_log_commits is not null then
      perform rhythm.write_logs(v_now, t.ids, t.levels, t.texts)
        from (select array_agg(p_commit_ids[u.commit] order by u.position) as ids,
                array_agg(u.level order by u.position) as levels, array_agg(u.text order by u.position) as texts
              from unnest(p_log_commits, p_log_levels, p_log_texts) with ordinality u(commit, level, text, position)
              where case when p_commit_report[u.commit] is null then p_commit_ids[u.commit] = any(o_continued)
                         else p_commit_ids[u.commit] <> all(o_refused) end) t
        where t.ids is not null;
    end if;
  end if;

  o_suspects := false;
  if p_task_counts <> '{}' or p_workflow_limit > 0 then
    v_limited := array(select q.id from rhythm.queues q where q.limited and q.id = any(p_queues));
    if v_limited <> '{}' then
      v_open := array(select u.id from unnest(p_queues) with ordinality u(id, position)
                      where u.id <> all(v_limited) order by u.position);
    end if;
    if p_alone then
      select s.o_row, s.o_name into v_suspect, v_suspect_name from rhythm.find_suspect(v_open,
        p_names || case when p_workflow_limit > 0 then array[0] end) s;
    end if;
    if v_suspect is null and v_limited <> '{}' then
      select g.o_now, g.t_ids, g.t_attempts, g.t_lost, g.o_taken, g.w_ids, g.w_attempts, g.w_lost, g.o_suspect, g.o_suspects,
             g.o_next, g.o_full, g.o_more
        into v_began, t_ids, t_attempts, t_lost, v_taken, w_ids, w_attempts, w_lost, v_suspect_passed, v_suspect_waits,
             o_next_pass, v_full, v_more
        from rhythm.pass_gates(
          array(select u.id from unnest(p_queues) with ordinality u(id, position)
                cross join lateral (select q.limited, q.paused from rhythm.queues q where q.id = u.id offset 0) q
                where q.limited and not q.paused order by u.position),
          p_names, p_task_counts, coalesce(p_task_free, p_task_limits), p_workflow_limit, p_alone) g;
      v_task_limits := array(select u.wanted - u.taken from unnest(p_task_limits, v_taken)
        with ordinality u(wanted, taken, position) order by u.position);
      v_workflow_limit := p_workflow_limit - coalesce(cardinality(w_ids), 0);
    end if;
    if v_suspect is null and not v_suspect_passed then
      v_task_rows := rhythm.find_ready_in(v_open, p_names, p_task_counts, v_task_limits, 4194304);
      v_workflow_rows := rhythm.find_ready_in(v_open, array[0], array[1], array[v_workflow_limit], 4194304);
      if v_limited <> '{}' then
        v_workflow_rows := v_workflow_rows || rhythm.find_woken_in(v_limited, v_workflow_limit - cardinality(v_workflow_rows));
      end if;
    elsif v_suspect_name = 0 then
      v_workflow_rows := array[v_suspect];
    elsif v_suspect is not null then
      v_task_rows := array[v_suspect];
    end if;
  end if;

  if cardinality(v_task_rows) > 0 or t_ids is not null then
    -- first those of a batch, then singles, then what has passed a gate
    v_batched := 0;
    v_ready := 0;
    if cardinality(v_task_rows) > 0 then
      select t.o_ids || t_ids, t.o_attempts || t_attempts, coalesce(t.o_lost, t_lost), cardinality(t.o_ids) - t.o_singles,
             cardinality(t.o_ids)
        into t_ids, t_attempts, t_lost, v_batched, v_ready
        from rhythm.take_ready(v_task_rows, p_singles) t;
    end if;
    select t.o_names, t.o_queues, t.o_inputs, t.o_timeouts, t.o_created, t.o_extra, t.x_parents, t.x_operations,
           t.x_keys, t.x_tags, t.x_retries, t.x_retry
      into t_names, t_queues, t_inputs, t_timeouts, t_created, t_extra, x_parents, x_operations,
           x_keys, x_tags, x_retries, x_retry
      from rhythm.describe_tasks(t_ids) t;
    if v_batched > 0 then
      t_claim := rhythm.add_claim(v_now, p_incarnation, t_ids[:v_batched], t_attempts[:v_batched], t_lost[:v_batched],
        x_operations is not null, t_timeouts[:v_batched], false);
    end if;
    if v_batched < v_ready then
      select o_new_ids || s.o_ids, o_new_claims || s.o_claims into o_new_ids, o_new_claims
        from rhythm.split_claim(v_now, p_incarnation, t_ids[v_batched + 1 : v_ready], t_attempts[v_batched + 1 : v_ready],
          t_lost[v_batched + 1 : v_ready], x_operations is not null, '{}', false) s;
    end if;
    if v_ready < cardinality(t_ids) then
      select o_new_ids || s.o_ids, o_new_claims || s.o_claims into o_new_ids, o_new_claims
        from rhythm.split_claim(v_began, p_incarnation, t_ids[v_ready + 1 :], t_attempts[v_ready + 1 :],
          t_lost[v_ready + 1 :], x_operations is not null, '{}', true) s;
    end if;
    if p_parents and x_parents is not null then
      select p.o_index, p.o_names, p.o_definitions, p.o_versions, p.o_numbers, p.o_snapshots, p.o_tags
        into c_index, c_names, c_definitions, c_versions, c_numbers, c_snapshots, c_tags
        from rhythm.describe_parents(x_parents, v_known) p;
    end if;
  end if;
  if cardinality(v_workflow_rows) > 0 or w_ids is not null then
    if cardinality(v_workflow_rows) > 0 then
      select w_ids || t.o_ids, w_attempts || t.o_attempts, coalesce(w_lost, t.o_lost) into w_ids, w_attempts, w_lost
        from rhythm.take_ready(v_workflow_rows, '{}') t;
    end if;
    select w.o_names, w.o_queues, w.o_inputs, w.o_created, w.o_definitions, w.o_versions, w.o_snapshots, w.o_parents,
           w.o_operations, w.o_keys, w.o_tags, w.d_index, w.d_numbers, w.d_kinds, w.d_operations, w.d_names, w.d_payloads
      into w_names, w_queues, w_inputs, w_created, w_definitions, w_versions, w_snapshots, w_parents,
           w_operations, w_keys, w_tags, d_index, d_numbers, d_kinds, d_operations, d_names, d_payloads
      from rhythm.describe_workflows(w_ids, 16777216) w;
    w_claim := rhythm.add_claim(v_began, p_incarnation, w_ids, w_attempts, w_lost, true, null, w_queues && v_limited);
  end if;

  o_suspects := v_suspect_waits;
  if v_suspect is null and not o_suspects and exists (select from rhythm.ready r where r.lost > 0) then
    o_suspects := exists (
      select from rhythm.ready r where r.lost > 0 and r.queue_id = any(p_queues) and r.name_id = any(p_names || 0));
  end if;
  o_check_again := rhythm.set_idle(p_incarnation, p_queues, p_idle and t_ids is null and w_ids is null)
    or v_more;
  if v_queues is not null then
    if exists (select from rhythm.idle) and rhythm.has_ready(v_queues, null) then
      perform rhythm.notify_idle(v_queues);
    end if;
    o_check_again := o_check_again or rhythm.has_ready(
      array(select u.id from unnest(v_queues) u(id) where u.id = any(p_queues)), p_names || 0);
  end if;
  if v_queues is not null then                    -- places that came free and were not taken at once
    v_queues := array(select q.id from rhythm.queues q where q.limited and q.id = any(v_queues) and q.id <> all(v_full)
                        and exists (select from rhythm.gated d where d.queue_id = q.id offset 0));
    if v_queues <> '{}' then
      perform rhythm.notify_idle(v_queues);
    end if;
  end if;
end $$;

-- Admits an exchange of an incarnation, until the end of its transaction. held() waits for those admitted and shuts out the
-- rest of their epoch; so an exchange whose answer was lost cannot claim anything that held() did not tell of.
-- The lock ends with the transaction: no session state. Returns nothing. Internal. Raises RH002 and RH007 as exchange does.
create or replace function rhythm.enter_exchange(p_incarnation uuid, p_epoch integer) returns void
language plpgsql as $$
declare
  v_epoch integer;
begin
  perform pg_advisory_xact_lock_shared(uuid_hash_extended(p_incarnation, 0));
  select w.epoch into v_epoch from rhythm.workers w where w.incarnation = p_incarnation;
  if v_epoch is null then
    raise exception 'incarnation % is dead', p_incarnation using errcode = 'RH002';
  elsif v_epoch > p_epoch then
    raise exception 'incarnation % has given this exchange up', p_incarnation using errcode = 'RH007';
  end if;
end $$;

-- Registers an incarnation as asleep, to be notified, or as awake. Returns whether it was awake before and sleeps now: it
-- then has to look once more, for what came before anybody could see it asleep. Internal. Raises nothing.
create or replace function rhythm.set_idle(p_incarnation uuid, p_queues integer[], p_idle boolean) returns boolean
language plpgsql as $$
begin
  if p_idle then
    insert into rhythm.idle (queue_id, incarnation) select q.id, p_incarnation from unnest(p_queues) q(id)
      on conflict do nothing;
    return found;
  end if;
  if exists (select from rhythm.idle) then
    delete from rhythm.idle i where i.incarnation = p_incarnation;
  end if;
  return false;
end $$;

-- The first half of an exchange: everything that is said. Arguments as there. Returns the ids refused, the parents whose
-- continuation counted, the members of split batches with their new claims, and the queues in which something became
-- claimable. Internal. Raises 22023 when a report does not fit its claim, which is a fault of the worker's program.
create or replace function rhythm.report(
  p_now timestamptz, p_incarnation uuid,
  p_claims bigint[], p_positions smallint[], p_ids uuid[], p_actions smallint[], p_payloads bytea[],
  p_retry_after double precision[], p_batches bigint[], p_batch_counts integer[],
  p_commit_report integer[], p_commit_child integer[], p_commit_ids uuid[], p_versions integer[], p_seen bigint[],
  p_snapshots bytea[], p_statuses smallint[], p_outcomes bytea[], p_keep boolean[], p_lines integer[], p_functions text[],
  p_awaiting bytea[], p_outstanding integer[], p_unread_signals integer[],
  p_child_commit integer[], p_child_ids uuid[], p_child_inputs bytea[], p_child_name integer[], p_child_kinds smallint[],
  p_child_names text[], p_child_operations integer[], p_child_queue integer[], p_child_queues text[],
  p_child_priorities integer[], p_child_delays double precision[], p_child_keys text[], p_child_retries integer[],
  p_child_retry text[], p_child_timeouts bigint[],
  p_timer_commit integer[], p_timer_operations integer[], p_timer_delays double precision[], p_timer_due double precision[],
  p_drop_commit integer[], p_drop_operations integer[],
  p_group_first integer[], p_group_modes smallint[], p_group_members text[], p_group_counts integer[],
  p_cancel_commit integer[], p_cancel_ids uuid[], p_child_limit_keys text[],
  out o_refused uuid[], out o_continued uuid[], out o_new_ids uuid[], out o_new_claims bigint[], out o_queues integer[])
language plpgsql as $$
declare
  -- accepted reports that need more than an outcome: their rows in p_claims, and what their claims say
  v_rows integer[];
  v_attempts integer[];
  v_lost integer[];
  v_started timestamptz[];
  v_parents uuid[];
  v_operations integer[];
  v_take boolean[];
  v_commit_attempts integer[];
  v_commit_lost integer[];
  v_commit_started timestamptz[];
  v_continued_children uuid[] := '{}';
  v_taken boolean[];
  v_queues integer[];
begin
  o_continued := '{}';
  select e.o_rows, e.o_attempts, e.o_lost, e.o_started, e.o_refused, e.o_new_ids, e.o_new_claims, e.o_queues
    into v_rows, v_attempts, v_lost, v_started, o_refused, o_new_ids, o_new_claims, o_queues
    from rhythm.end_claims(p_now, p_incarnation, p_claims, p_positions, p_ids, p_actions, p_payloads, p_batches,
      p_batch_counts) e;
  if v_rows = '{}' and p_commit_ids is null then
    return;
  end if;

  select array_agg(e.parent_id order by u.position), array_agg(e.operation order by u.position)
    into v_parents, v_operations
    from unnest(v_rows) with ordinality u(row, position)
    cross join lateral (
      select e.parent_id, e.operation from rhythm.executions e where e.id = p_ids[u.row] offset 0) e;
  -- Parents of ending workflows are among v_parents, except those of continuations.
  perform rhythm.lock_workflows(array(
    select u.id from unnest(v_parents) u(id) where u.id is not null
    union select u.id from unnest(p_commit_ids) u(id)
    union select u.id from unnest(p_cancel_ids) u(id)
    union select p_ids[u.row] from unnest(v_rows) u(row) where p_actions[u.row] = 6
    union select e.parent_id from unnest(p_commit_ids, p_commit_report, p_statuses) u(id, report, status)
      cross join lateral (select e.parent_id from rhythm.executions e where e.id = u.id offset 0) e
      where u.report is null and u.status is not null and e.parent_id is not null));

  if p_commit_ids is not null then
    with commits as (
      select u.position, u.id, p_ids[u.child] as child, u.report is null as continuation, u.version, u.seen,
             row_number() over (partition by u.id order by u.position) as turn,
             -- both are sorted, and the same but for refused ones
             case when v_rows[coalesce(u.report, u.child)] = coalesce(u.report, u.child) then coalesce(u.report, u.child)
                  else array_position(v_rows, coalesce(u.report, u.child)) end as slot
        from unnest(p_commit_ids, p_commit_report, p_commit_child, p_versions, p_seen) with ordinality
          u(id, report, child, version, seen, position)),
    judged as (
      select c.*, c.slot is not null and c.turn = 1 and (not c.continuation or v_parents[c.slot] = c.id
               and p_actions[v_rows[c.slot]] in (1, 3, 4) and exists (
               select from rhythm.waits w where w.id = c.id and w.suspended and w.version = c.version
                 and w.next_number = c.seen and w.next_number - 1 = w.seen_through)) as take
        from commits c)
    select array_agg(j.take order by j.position),
           array_agg(case when j.continuation then 1 else v_attempts[j.slot] end order by j.position),
           array_agg(case when j.continuation then 0 else v_lost[j.slot] end order by j.position),
           array_agg(v_started[j.slot] order by j.position),
           coalesce(array_agg(j.id) filter (where j.take and j.continuation), '{}'),
           coalesce(array_agg(j.child) filter (where j.take and j.continuation), '{}')
      into v_take, v_commit_attempts, v_commit_lost, v_commit_started, o_continued, v_continued_children
      from judged j;
    if o_continued <> '{}' then
      update rhythm.waits w set next_number = w.next_number + 1 where w.id = any(o_continued);
    end if;
  end if;

  select o_queues || s.queues into v_queues
    from (select array_agg(p_ids[u.row] order by u.position) as ids, array_agg(p_actions[u.row] order by u.position) as actions,
            array_agg(p_payloads[u.row] order by u.position) as payloads, array_agg(u.attempts order by u.position) as attempts,
            array_agg(u.lost order by u.position) as lost, array_agg(u.started order by u.position) as started,
            array_agg(u.parent order by u.position) as parents, array_agg(u.operation order by u.position) as operations,
            array_agg(p_retry_after[u.row] order by u.position) as after
          from unnest(v_rows, v_attempts, v_lost, v_started, v_parents, v_operations) with ordinality
            u(row, attempts, lost, started, parent, operation, position)
          where p_actions[u.row] <= 4) t,
      lateral (select rhythm.settle(p_now, t.ids, t.actions, t.payloads, t.attempts, t.lost, t.started, t.parents,
        t.operations, t.after, v_continued_children) as queues) s
    where t.ids is not null;
  o_queues := coalesce(v_queues, o_queues);

  if 6 = any(p_actions) then
    o_queues := o_queues || rhythm.take_back(p_now,
      array(select p_ids[u.row] from unnest(v_rows) u(row) where p_actions[u.row] = 6),
      array(select u.attempts - 1 from unnest(v_rows, v_attempts) u(row, attempts) where p_actions[u.row] = 6),
      array(select u.lost from unnest(v_rows, v_lost) u(row, lost) where p_actions[u.row] = 6), null);
  end if;

  if p_commit_ids is not null then
    select c.o_taken, c.o_queues into v_taken, v_queues
      from rhythm.commit_workflows(p_now, v_take, p_commit_ids, p_versions, p_seen, p_snapshots, p_statuses, p_outcomes,
        p_keep, p_lines, p_functions, p_awaiting, p_outstanding, p_unread_signals, v_commit_started, v_commit_attempts,
        v_commit_lost, p_child_commit, p_child_ids, p_child_inputs, p_child_name, p_child_kinds, p_child_names,
        p_child_operations, p_child_queue, p_child_queues, p_child_priorities, p_child_delays, p_child_keys,
        p_child_retries, p_child_retry, p_child_timeouts, p_timer_commit, p_timer_operations,
        p_timer_delays, p_timer_due, p_drop_commit, p_drop_operations, p_group_first, p_group_modes, p_group_members,
        p_group_counts, p_cancel_commit, p_cancel_ids, p_child_limit_keys) c;
    o_queues := o_queues || v_queues;
    if false = any(v_taken) then
      -- A refused continuation is no refused report. What was held, but is not at that version, is a fault of the worker's
      -- program: it is claimable again.
      select o_refused || array_agg(u.id),
             o_queues || rhythm.make_ready(array_agg(u.id) filter (where w.id is not null),
               array_agg(u.attempts) filter (where w.id is not null), array_agg(u.lost) filter (where w.id is not null))
        into o_refused, o_queues
        from unnest(p_commit_ids, p_commit_report, v_take, v_taken, v_commit_attempts, v_commit_lost)
          u(id, report, take, taken, attempts, lost)
        left join lateral (select w.id from rhythm.waits w where w.id = u.id offset 0) w on u.take
        where u.report is not null and not u.taken;
    end if;
  end if;
end $$;

-- Ends the claims that reports name. Members that completed and have no parent get their outcomes here and now, which is
-- all there is to do for most tasks; other accepted reports are returned as rows of the arguments, with attempts, losses
-- and start. Members of a batch that were not reported become single claims, whose time starts anew.
-- Returns also the ids refused, the new single claims, and the queues in which a place came free. Internal. Raises 22023 as report does.
create or replace function rhythm.end_claims(
  p_now timestamptz, p_incarnation uuid, p_claims bigint[], p_positions smallint[], p_ids uuid[], p_actions smallint[],
  p_payloads bytea[], p_batches bigint[], p_batch_counts integer[],
  out o_rows integer[], out o_attempts integer[], out o_lost integer[], out o_started timestamptz[],
  out o_refused uuid[], out o_new_ids uuid[], out o_new_claims bigint[], out o_queues integer[])
language plpgsql as $$
declare
  v_first integer;
  v_last integer := 0;
  v_count integer;
  v_started timestamptz;
  v_family boolean;
  v_ids uuid[];
  v_attempts integer[];
  v_lost smallint[];
  v_more_ids uuid[];
  v_more_rows integer[] := '{}';
  v_more_claims bigint[];
  v_found bigint[];
  v_found_ids uuid[];
  v_found_started timestamptz[];
  v_found_gated boolean[];
  v_gated boolean;
  v_leaving uuid[];                               -- may hold places, and are let go
begin
  o_rows := '{}';
  o_refused := '{}';
  for b in 1 .. coalesce(cardinality(p_batches), 0) loop
    v_first := v_last + 1;
    v_last := v_last + p_batch_counts[b];
    -- "not distinct": found by the id, never by the incarnation, which may hold many
    delete from rhythm.claims c
      where c.id = p_batches[b] and c.incarnation is not distinct from p_incarnation and not c.single
      returning c.ids, c.attempts, c.lost, c.started_at, c.family, c.gated
      into v_ids, v_attempts, v_lost, v_started, v_family, v_gated;
    if not found then
      o_refused := o_refused || p_ids[v_first:v_last];
      continue;
    end if;
    if v_gated then
      v_leaving := v_leaving || array(
        select u.id from unnest(p_ids[v_first:v_last], p_positions[v_first:v_last], p_actions[v_first:v_last]) u(id, position, action)
          where v_ids[u.position + 1] = u.id and u.action <> 5);
    end if;
    if not v_family and 1 = all(p_actions[v_first:v_last]) then
      insert into rhythm.outcomes (id, started_at, finished_at, attempts, lost, status, payload)
        select u.id, v_started, p_now, v_attempts[u.position + 1], coalesce(v_lost[u.position + 1], 0), 1, u.payload
          from unnest(p_ids[v_first:v_last], p_positions[v_first:v_last], p_payloads[v_first:v_last]) u(id, position, payload)
          where v_ids[u.position + 1] = u.id
        on conflict (id) do nothing;
      get diagnostics v_count = row_count;
    else
      select o_rows || array_agg(u.row::integer + v_first - 1 order by u.row),
             o_attempts || array_agg(v_attempts[u.position + 1] order by u.row),
             o_lost || array_agg(coalesce(v_lost[u.position + 1], 0)::integer order by u.row),
             o_started || array_agg(v_started order by u.row), count(distinct u.position)
        into o_rows, o_attempts, o_lost, o_started, v_count
        from unnest(p_ids[v_first:v_last], p_positions[v_first:v_last]) with ordinality u(id, position, row)
        where v_ids[u.position + 1] = u.id;
    end if;
    if v_count <> v_last - v_first + 1 then
      v_more_ids := array(select u.id from unnest(p_ids[v_first:v_last], p_positions[v_first:v_last]) u(id, position)
                          where v_ids[u.position + 1] is null);
      if v_count + cardinality(v_more_ids) <> v_last - v_first + 1 then
        raise exception 'reports do not fit claim %', p_batches[b] using errcode = '22023';
      end if;
      o_refused := o_refused || v_more_ids;
    end if;
    if v_count < cardinality(v_ids) then
      select s.o_ids, s.o_claims into v_more_ids, v_more_claims
        from rhythm.split_claim(p_now, p_incarnation, v_ids, v_attempts, v_lost, v_family, p_positions[v_first:v_last],
          v_gated) s;
      o_new_ids := o_new_ids || v_more_ids;
      o_new_claims := o_new_claims || v_more_claims;
    end if;
  end loop;

  if v_leaving is not null then
    o_queues := rhythm.leave_places(v_leaving);
  end if;
  v_first := v_last + 1;
  if v_first > cardinality(p_claims) then
    return;
  end if;
  if v_first = cardinality(p_claims) and p_ids[v_first] is not null then
    delete from rhythm.claims c where c.id = p_claims[v_first] and c.single and c.ids[1] = p_ids[v_first]
      returning c.attempts, c.lost, c.started_at, c.family, c.gated into v_attempts, v_lost, v_started, v_family, v_gated;
    if not found then
      perform rhythm.refuse(p_claims[v_first], p_ids[v_first]);
      o_refused := o_refused || p_ids[v_first];
      return;
    end if;
    if v_gated and p_actions[v_first] <> 5 then
      o_queues := o_queues || rhythm.leave_places(p_ids[v_first:v_first]);
    end if;
    if v_family or p_actions[v_first] <> 1 then
      o_rows := o_rows || v_first;
      o_attempts := o_attempts || v_attempts[1];
      o_lost := o_lost || coalesce(v_lost[1], 0)::integer;
      o_started := o_started || v_started;
    else
      insert into rhythm.outcomes (id, started_at, finished_at, attempts, lost, status, payload)
        values (p_ids[v_first], v_started, p_now, v_attempts[1], coalesce(v_lost[1], 0), 1, p_payloads[v_first])
        on conflict (id) do nothing;
    end if;
    return;
  end if;
  select array_agg(c.id), array_agg(c.ids[1]), array_agg(c.attempts[1]), array_agg(coalesce(c.lost[1], 0)),
         array_agg(c.started_at), bool_or(c.family), array_agg(c.gated)
    into v_found, v_found_ids, v_attempts, v_lost, v_found_started, v_family, v_found_gated
    from (select c.* from rhythm.claims c where c.id = any(p_claims[v_first:]) and c.single order by c.id for update) c;
  if v_found is null then
    o_refused := o_refused || p_ids[v_first:];
    return;
  end if;
  delete from rhythm.claims c where c.id = any(v_found);
  v_last := v_first - 1;
  for i in v_first .. cardinality(p_claims) loop
    -- both lists are sorted: walk them side by side
    v_count := v_last - v_first + 2;
    if p_claims[i] is not distinct from v_found[v_count] then
      if v_found_ids[v_count] <> p_ids[i] then
        raise exception 'reports do not fit claim %', p_claims[i] using errcode = '22023';
      end if;
      v_last := v_last + 1;
      v_more_rows := v_more_rows || i;
    else
      o_refused := o_refused || p_ids[i];
    end if;
  end loop;
  if v_last - v_first + 1 <> cardinality(v_found) then
    raise exception 'reports are not sorted by claim' using errcode = '22023';
  end if;
  if true = any(v_found_gated) then
    o_queues := o_queues || rhythm.leave_places(array(
      select u.id from unnest(v_found_ids, v_found_gated, v_more_rows) u(id, gated, row)
        where u.gated and p_actions[u.row] <> 5));
  end if;
  if v_family or 1 <> any(p_actions[v_first:]) then
    o_rows := o_rows || v_more_rows;
    o_attempts := o_attempts || v_attempts;
    o_lost := o_lost || v_lost::integer[];
    o_started := o_started || v_found_started;
  else
    insert into rhythm.outcomes (id, started_at, finished_at, attempts, lost, status, payload)
      select u.id, u.started_at, p_now, u.attempts, u.lost, 1, p_payloads[u.row]
        from unnest(v_found_ids, v_found_started, v_attempts, v_lost, v_more_rows) u(id, started_at, attempts, lost, row)
      on conflict (id) do nothing;
  end if;
end $$;

-- Raises 22023 if the claim is there, but not the member's. Internal.
create or replace function rhythm.refuse(p_claim bigint, p_id uuid) returns void
language plpgsql as $$
begin
  if exists (select from rhythm.claims c where c.id = p_claim) then
    raise exception 'report of % does not fit claim %', p_id, p_claim using errcode = '22023';
  end if;
end $$;

-- Makes single claims of the members of an ended batch whose positions (from 0) are not in p_done. Their time limits count
-- from now. Returns the members and their new claims. Internal. Raises nothing.
create or replace function rhythm.split_claim(
  p_now timestamptz, p_incarnation uuid, p_ids uuid[], p_attempts integer[], p_lost smallint[], p_family boolean,
  p_done smallint[], p_gated boolean, out o_ids uuid[], out o_claims bigint[])
language plpgsql as $$
begin
  with singles as (
    insert into rhythm.claims (incarnation, started_at, expires_at, single, ids, attempts, lost, family, gated)
    select p_incarnation, p_now, p_now + make_interval(secs => nullif(e.timeout_ms, 0) / 1000.0 + 10), true,
           array[u.id], array[u.attempts], array[u.lost], p_family, p_gated
      from unnest(p_ids, p_attempts, p_lost) with ordinality u(id, attempts, lost, position)
      cross join lateral (select e.timeout_ms from rhythm.executions e where e.id = u.id offset 0) e
      where u.id is not null and u.position - 1 <> all(p_done)
    returning ids[1] as member, id)
  select array_agg(s.member), array_agg(s.id) into o_ids, o_claims from singles s;
end $$;

-- Hands back members of claims that were not run, uncharged. Returns the ids refused, and the members of split batches
-- with their new claims. Arguments as in exchange. Raises nothing.
create or replace function rhythm.hand_back(
  p_incarnation uuid, p_claims bigint[], p_positions smallint[], p_ids uuid[], p_batches bigint[], p_batch_counts integer[],
  out o_refused uuid[], out o_new_ids uuid[], out o_new_claims bigint[])
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_queues integer[];
begin
  select r.o_refused, r.o_new_ids, r.o_new_claims, r.o_queues into o_refused, o_new_ids, o_new_claims, v_queues
    from rhythm.report(v_now, p_incarnation, p_claims, p_positions, p_ids, array_fill(6::smallint, array[cardinality(p_ids)]),
      null, null, p_batches, p_batch_counts, null, null, null, null, null, null, null, null, null, null, null, null,
      null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
      null, null, null, null, null, null, null, null, null, null) r;
  perform rhythm.notify_idle(v_queues);
end $$;

-- What an incarnation holds, to be compared with what it believes to hold after an answer was lost. It is known by id,
-- attempt and version (0 for tasks): what was reported, and claimed again since, is not what the worker knows.
-- Waits for exchanges of this incarnation that are under way; those that arrive later are refused, unless they come with
-- p_epoch (0: they are not).
-- Returns every member with its claim and position (511: single), and whether it is known; the others are described as
-- in exchange (arrays t, x, w and d; t_members and w_members point into the member arrays). Raises nothing.
create or replace function rhythm.held(
  p_incarnation uuid, p_epoch integer, p_known uuid[], p_attempts integer[], p_versions integer[],
  out m_ids uuid[], out m_claims bigint[], out m_positions integer[], out m_known boolean[],
  out t_members integer[], out t_attempts integer[], out t_lost integer[],
  out t_names integer[], out t_queues integer[], out t_inputs bytea[], out t_timeouts bigint[], out t_created double precision[],
  out t_extra integer[], out x_parents uuid[], out x_operations integer[], out x_keys text[], out x_tags text[],
  out x_retries integer[], out x_retry text[],
  out w_members integer[], out w_attempts integer[], out w_lost integer[],
  out w_names integer[], out w_queues integer[], out w_inputs bytea[], out w_created double precision[],
  out w_definitions bigint[], out w_versions integer[], out w_snapshots bytea[], out w_parents uuid[], out w_operations integer[],
  out w_keys text[], out w_tags text[],
  out d_index integer[], out d_numbers bigint[], out d_kinds smallint[], out d_operations integer[], out d_names text[],
  out d_payloads bytea[])
language plpgsql as $$
declare
  v_attempts integer[];
  v_lost integer[];
  v_tasks uuid[];
  v_workflows uuid[];
begin
  perform pg_advisory_xact_lock(uuid_hash_extended(p_incarnation, 0));
  update rhythm.workers w set epoch = p_epoch where w.incarnation = p_incarnation and w.epoch < p_epoch;
  select array_agg(m.id), array_agg(m.claim), array_agg(m.position), array_agg(m.known), array_agg(m.attempts),
         array_agg(m.lost)
    into m_ids, m_claims, m_positions, m_known, v_attempts, v_lost
    from (select u.id, c.id as claim, case when c.single then 511 else u.position::integer - 1 end as position, u.attempts,
            coalesce(u.lost, 0)::integer as lost, k.id is not null as known
          from rhythm.claims c
          cross join lateral unnest(c.ids, c.attempts, c.lost) with ordinality u(id, attempts, lost, position)
          left join lateral (select w.version from rhythm.waits w where w.id = u.id offset 0) w on true
          left join unnest(p_known, p_attempts, p_versions) k(id, attempts, version)
            on k.id = u.id and k.attempts = u.attempts and k.version = coalesce(w.version, 0)
          where c.incarnation = p_incarnation and u.id is not null order by c.id, u.position) m;
  select array_agg(u.position::integer) filter (where e.definition_id is null),
         array_agg(u.attempts) filter (where e.definition_id is null),
         array_agg(u.lost) filter (where e.definition_id is null), array_agg(u.id) filter (where e.definition_id is null),
         array_agg(u.position::integer) filter (where e.definition_id is not null),
         array_agg(u.attempts) filter (where e.definition_id is not null),
         array_agg(u.lost) filter (where e.definition_id is not null),
         array_agg(u.id) filter (where e.definition_id is not null)
    into t_members, t_attempts, t_lost, v_tasks, w_members, w_attempts, w_lost, v_workflows
    from (select * from unnest(m_ids, v_attempts, v_lost, m_known) with ordinality u(id, attempts, lost, known, position)
          where not u.known order by u.position) u
    cross join lateral (select e.definition_id from rhythm.executions e where e.id = u.id offset 0) e;
  if v_tasks is not null then
    select t.o_names, t.o_queues, t.o_inputs, t.o_timeouts, t.o_created, t.o_extra, t.x_parents, t.x_operations,
           t.x_keys, t.x_tags, t.x_retries, t.x_retry
      into t_names, t_queues, t_inputs, t_timeouts, t_created, t_extra, x_parents, x_operations,
           x_keys, x_tags, x_retries, x_retry
      from rhythm.describe_tasks(v_tasks) t;
  end if;
  if v_workflows is not null then
    select w.o_names, w.o_queues, w.o_inputs, w.o_created, w.o_definitions, w.o_versions, w.o_snapshots, w.o_parents,
           w.o_operations, w.o_keys, w.o_tags, w.d_index, w.d_numbers, w.d_kinds, w.d_operations, w.d_names, w.d_payloads
      into w_names, w_queues, w_inputs, w_created, w_definitions, w_versions, w_snapshots, w_parents,
           w_operations, w_keys, w_tags, d_index, d_numbers, d_kinds, d_operations, d_names, d_payloads
      from rhythm.describe_workflows(v_workflows, 16777216) w;
  end if;
end $$;
