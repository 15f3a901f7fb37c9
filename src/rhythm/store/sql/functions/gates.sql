-- Gates: limits of queues and of the limit keys in them.
--
-- What is started on a queue with limits waits in rhythm.gated. It passes the gate when a worker that can run it now
-- claims it: in that exchange, under the lock of the gate's row, it gets a place, and, where there is a rate, a pass. So
-- nothing stands between the gate and its worker: no place is held by what nobody runs, and a pass is a start. A place is
-- given back in the transaction that ends the attempt (outcome, failure to be tried again, hand back, reclaim); what is
-- tried again goes to the gate again, where its age puts it in front. A suspended workflow keeps its place.
--
-- Concurrency: places are counted under the lock, in a statement of its own, so everything that passed before is seen.
-- What gives a place back does not take the lock: it can only make the count too high for a moment.
-- Rate: passes are numbered. The next one may pass if the one `rate` numbers before it is older than the period, so any
-- window of that length holds at most `rate` of them; how many may pass is found by their numbers, without counting the
-- window. Passes older than the period are of no use, and maintenance deletes them.
-- Keys take turns: those with something waiting are visited in their order, from the one after the last that passed; each
-- visit looks up one key, however much waits under it. One exchange visits a limited number and the next one goes on.
--
-- Locks: a gate comes after the incarnations' exchanges, claims, waits, outcomes and names, and before timers, later, ready
-- and rows of gated; several of them in the order of their queues. Only an exchange and limit_queue take one; what gives a
-- place back, starts, or ends at a gate takes none, so an open transaction of an application holds up nobody there.
--
-- Limits are set while everything runs (limit_queue). Starts do not lock the queue, so a few may still go where the queue's
-- executions stood before: what has no place is not claimed from ready, and maintenance moves it (tend_gates).
--
-- What is started, claimed and ended in queues without limits reads rhythm.queues.limited, and none of the tables here.

-- Up to p_limit limit keys that something of this name waits under, in order: after p_after (null: from the first), up to
-- p_until (null: to the last). Internal. Raises nothing.
create or replace function rhythm.keys_at_gate(
  p_queue integer, p_name integer, p_after text, p_until text, p_limit integer) returns text[]
language plpgsql as $$
declare
  v_keys text[] := '{}';
  v_key text;
begin
  if p_after is null then
    select d.limit_key into v_key from rhythm.gated d
      where d.queue_id = p_queue and d.name_id = p_name order by d.limit_key limit 1;
  else
    select d.limit_key into v_key from rhythm.gated d
      where d.queue_id = p_queue and d.name_id = p_name and d.limit_key > p_after order by d.limit_key limit 1;
  end if;
  while v_key is not null and cardinality(v_keys) < p_limit and (p_until is null or v_key collate "C" <= p_until) loop
    v_keys := v_keys || v_key;
    select d.limit_key into v_key from rhythm.gated d
      where d.queue_id = p_queue and d.name_id = p_name and d.limit_key > v_keys[cardinality(v_keys)]
      order by d.limit_key limit 1;
  end loop;
  return v_keys;
end $$;

-- The same for several names: the limit keys that something of one of them waits under. Internal. Raises nothing.
create or replace function rhythm.keys_waiting(
  p_queue integer, p_names integer[], p_after text, p_until text, p_limit integer) returns text[]
language sql as $$
  select array(
    select distinct k.key collate "C" from unnest(p_names) n(id)
      cross join lateral unnest(rhythm.keys_at_gate(p_queue, n.id, p_after, p_until, p_limit)) k(key)
      order by 1 limit p_limit)
$$;

-- How many may pass at once under a rate (null: none), up to p_want, and when the next one may if none may now. Internal:
-- the caller holds the gate. Raises nothing.
create or replace function rhythm.room_by_rate(
  p_queue integer, p_key text, p_rate integer, p_seconds double precision, p_now timestamptz, p_want integer,
  out o_room integer, out o_next timestamptz)
language plpgsql as $$
declare
  v_before bigint;
begin
  o_room := p_want;
  if p_rate is null then
    return;
  end if;
  o_room := least(p_want, p_rate);
  select p.number - p_rate into v_before from rhythm.passes p
    where p.queue_id = p_queue and p.limit_key = p_key order by p.number desc limit 1;
  if found then
    o_room := o_room - (
      select count(*) from rhythm.passes p
        where p.queue_id = p_queue and p.limit_key = p_key and p.number > v_before and p.number <= v_before + o_room
          and p.at > p_now - make_interval(secs => p_seconds));
    if o_room = 0 then
      select p.at + make_interval(secs => p_seconds) into o_next from rhythm.passes p
        where p.queue_id = p_queue and p.limit_key = p_key and p.number = v_before + 1;
    end if;
  end if;
end $$;

-- How many may pass at once by the limits of a queue, up to p_want, and when the next one may if its rate is all that
-- none may now. Internal: the caller holds the gate. Raises nothing.
create or replace function rhythm.room_in_queue(
  p_gate rhythm.gates, p_now timestamptz, p_want integer, out o_room integer, out o_next timestamptz)
language plpgsql as $$
begin
  o_room := p_want;
  if p_gate.concurrency is not null then
    o_room := least(o_room, p_gate.concurrency - (
      select count(*) from (
        select from rhythm.places p where p.queue_id = p_gate.queue_id limit p_gate.concurrency) c));
  end if;
  if o_room > 0 then
    select r.o_room, r.o_next into o_room, o_next
      from rhythm.room_by_rate(p_gate.queue_id, '', p_gate.rate, p_gate.rate_seconds, p_now, o_room) r;
  end if;
end $$;

-- The same for a limit key, by its limits only. What has no key ('') has no limits of a key. Internal. Raises nothing.
create or replace function rhythm.room_of_key(
  p_gate rhythm.gates, p_key text, p_now timestamptz, p_want integer, out o_room integer, out o_next timestamptz)
language plpgsql as $$
begin
  o_room := p_want;
  if p_key = '' then
    return;
  end if;
  if p_gate.key_concurrency is not null then
    o_room := least(o_room, p_gate.key_concurrency - (
      select count(*) from (
        select from rhythm.places p
          where p.queue_id = p_gate.queue_id and p.limit_key = p_key limit p_gate.key_concurrency) c));
  end if;
  if o_room > 0 then
    select r.o_room, r.o_next into o_room, o_next
      from rhythm.room_by_rate(p_gate.queue_id, p_key, p_gate.key_rate, p_gate.key_rate_seconds, p_now, o_room) r;
  end if;
end $$;

-- Lets the given rows of gated, which the caller has locked, pass: places, passes. Returns the executions in their order,
-- their attempts (the one beginning included) and losses. Internal: the caller holds the gate. Raises nothing.
create or replace function rhythm.let_pass(
  p_gate rhythm.gates, p_now timestamptz, p_rows tid[], out o_ids uuid[], out o_attempts integer[], out o_lost smallint[])
language plpgsql as $$
declare
  v_keys text[];
begin
  with gone as (
    delete from rhythm.gated d where d.ctid = any(p_rows) returning d.ctid as row, d.id, d.attempts, d.lost, d.limit_key)
  select array_agg(g.id), array_agg(g.attempts + 1), array_agg(g.lost), array_agg(g.limit_key)
    into o_ids, o_attempts, o_lost, v_keys
    from (select * from gone order by array_position(p_rows, gone.row)) g;
  insert into rhythm.places (id, queue_id, limit_key, since)
    select u.id, p_gate.queue_id, u.key, p_now from unnest(o_ids, v_keys) u(id, key);
  if p_gate.rate is not null then
    insert into rhythm.passes (queue_id, limit_key, number, at)
      select p_gate.queue_id, '', coalesce(l.number, 0) + i, p_now
        from generate_series(1, cardinality(o_ids)) i
        left join (select p.number from rhythm.passes p
                     where p.queue_id = p_gate.queue_id and p.limit_key = '' order by p.number desc limit 1) l on true;
  end if;
  if p_gate.key_rate is not null then
    insert into rhythm.passes (queue_id, limit_key, number, at)
      select p_gate.queue_id, k.key, coalesce(l.number, 0) + i, p_now
        from (select u.key, count(*) as count from unnest(v_keys) u(key) where u.key <> '' group by u.key) k
        left join lateral (
          select p.number from rhythm.passes p
            where p.queue_id = p_gate.queue_id and p.limit_key = k.key order by p.number desc limit 1) l on true
        cross join lateral generate_series(1, k.count) i;
  end if;
end $$;

-- Lets up to p_limit executions of the given names pass, of p_bytes together (at least one): keys in turn, within a key
-- by priority and age. p_limit is within what the queue's own limits allow.
-- Returns as let_pass, the bytes, when a key's rate lets something pass that it held up now, and whether there are keys
-- that were not visited. Internal: the caller holds the gate. Raises nothing.
create or replace function rhythm.pass_gate(
  p_gate rhythm.gates, p_now timestamptz, p_names integer[], p_limit integer, p_bytes bigint,
  out o_ids uuid[], out o_attempts integer[], out o_lost smallint[], out o_size bigint, out o_next timestamptz,
  out o_more boolean)
language plpgsql as $$
declare
  v_names integer[] := array(
    select n.id from unnest(p_names) n(id)
      where exists (select from rhythm.gated d where d.queue_id = p_gate.queue_id and d.name_id = n.id offset 0));
  v_turn text;
  v_first text;                                   -- where the round has begun
  v_after text;
  v_until text;
  v_keys text[];
  v_share integer;
  v_visits integer;
  v_rows tid[];
  v_size bigint;
  v_next timestamptz;
  v_served text;
  v_again boolean := false;                       -- a key had more than its share
  v_passed record;
begin
  o_size := 0;
  o_more := false;
  if v_names = '{}' or p_limit <= 0 or p_bytes <= 0 then
    return;
  end if;
  select g.turn into v_turn from rhythm.gates g where g.queue_id = p_gate.queue_id;
  v_first := v_turn;
  v_after := v_turn;
  for v_portion in 1 .. 10 loop
    v_visits := p_limit - coalesce(cardinality(o_ids), 0) + 10;
    v_keys := rhythm.keys_waiting(p_gate.queue_id, v_names, v_after, v_until, v_visits);
    if cardinality(v_keys) < v_visits and v_until is null then  -- on from the first key up to where the round has begun
      v_until := v_first;
      v_keys := v_keys
        || rhythm.keys_waiting(p_gate.queue_id, v_names, null, v_until, v_visits - cardinality(v_keys));
    end if;
    if v_keys <> '{}' then
      v_share := (p_limit - coalesce(cardinality(o_ids), 0) + cardinality(v_keys) - 1) / cardinality(v_keys);
      with visited as materialized (
        select u.key, u.position, r.o_room as room, r.o_next as next
          from unnest(v_keys) with ordinality u(key, position)
          cross join lateral rhythm.room_of_key(p_gate, u.key, p_now, v_share) r),
      found as (
        select d.row, d.size, v.key, v.position, v.room,
               row_number() over (partition by v.position order by d.priority_rank, d.seq) as nth
          from visited v cross join unnest(v_names) n(id)
          cross join lateral (
            select d.ctid as row, d.priority_rank, d.seq, d.size from rhythm.gated d
              where d.queue_id = p_gate.queue_id and d.name_id = n.id and d.limit_key = v.key and d.lost = 0
              order by d.priority_rank, d.seq limit v.room for update skip locked) d
          where v.room > 0),
      first as (
        select f.* from found f where f.nth <= f.room
          order by f.nth, f.position limit p_limit - coalesce(cardinality(o_ids), 0)),
      chosen as (
        select f.*, o_size + sum(f.size) over (order by f.nth, f.position rows unbounded preceding) - f.size as before
          from first f)
      select array_agg(c.row order by c.nth, c.position), sum(c.size), max(c.nth) = v_share,
             (array_agg(c.key order by c.nth desc, c.position desc))[1], (select min(v.next) from visited v)
        into v_rows, v_size, v_again, v_served, v_next
        from chosen c where c.before < p_bytes;
      v_again := coalesce(v_again, false);
      o_next := least(o_next, v_next);
      if v_rows is not null then
        select * into v_passed from rhythm.let_pass(p_gate, p_now, v_rows);
        o_ids := o_ids || v_passed.o_ids;
        o_attempts := o_attempts || v_passed.o_attempts;
        o_lost := o_lost || v_passed.o_lost;
        o_size := o_size + v_size;
        v_turn := v_served;
      end if;
      exit when coalesce(cardinality(o_ids), 0) >= p_limit or o_size >= p_bytes;
    end if;
    if cardinality(v_keys) = v_visits then
      v_after := v_keys[v_visits];
      o_more := v_portion = 10;
    else                                          -- the round is over
      exit when not v_again;
      v_first := v_turn;
      v_after := v_turn;
      v_until := null;
    end if;
  end loop;
  if o_more and o_ids is null then
    v_turn := v_after;                            -- the next exchange goes on from here
  end if;
  update rhythm.gates g set turn = v_turn where g.queue_id = p_gate.queue_id and g.turn <> v_turn;
end $$;

-- Looks for what was lost before, in queues in their order, of these names, and which the limits allow. With p_alone lets
-- the first one pass. Returns whether that is a workflow, and as let_pass; and without p_alone whether there is one. Internal:
-- the caller holds the gates. Raises nothing.
create or replace function rhythm.pass_suspects(
  p_queues integer[], p_now timestamptz, p_names integer[], p_alone boolean,
  out o_workflow boolean, out o_ids uuid[], out o_attempts integer[], out o_lost smallint[], out o_waits boolean)
language plpgsql as $$
declare
  v_gate rhythm.gates;
  v_queue integer;
  v_row tid;
begin
  o_waits := false;
  foreach v_queue in array p_queues loop
    select g.* into v_gate from rhythm.gates g where g.queue_id = v_queue;
    continue when (select r.o_room from rhythm.room_in_queue(v_gate, p_now, 1) r) <= 0;
    select d.row, d.name_id = 0 into v_row, o_workflow
      from (select d.ctid as row, d.name_id, d.limit_key, d.priority_rank, d.seq from rhythm.gated d
            where d.queue_id = v_queue and d.name_id = any(p_names) and d.lost > 0
            order by d.priority_rank, d.seq limit 100 for update skip locked) d
      where (select r.o_room from rhythm.room_of_key(v_gate, d.limit_key, p_now, 1) r) > 0
      order by d.priority_rank, d.seq limit 1;
    continue when not found;
    if p_alone then
      select l.o_ids, l.o_attempts, l.o_lost into o_ids, o_attempts, o_lost
        from rhythm.let_pass(v_gate, p_now, array[v_row]) l;
    else
      o_waits := true;
    end if;
    return;
  end loop;
end $$;

-- Claims from the given queues, all of which have limits, what their gates let pass: up to p_free[g] tasks of the group g
-- of names (as in find_ready_in), up to p_workflows workflows, 4 MiB of each. p_alone: one that was lost before comes first,
-- and then nothing else.
-- Returns the time it was, tasks and workflows (as let_pass), how many tasks of each group, whether it is a suspect, whether
-- one waits that could pass, seconds until the next pass of what this worker could run now (null: not by time), queues
-- that are full, and whether not all keys were visited. Internal. Raises nothing.
create or replace function rhythm.pass_gates(
  p_queues integer[], p_names integer[], p_counts integer[], p_free integer[], p_workflows integer, p_alone boolean,
  out o_now timestamptz, out t_ids uuid[], out t_attempts integer[], out t_lost smallint[], out o_taken integer[],
  out w_ids uuid[], out w_attempts integer[], out w_lost smallint[],
  out o_suspect boolean, out o_suspects boolean, out o_next double precision, out o_full integer[], out o_more boolean)
language plpgsql as $$
declare
  v_locked integer[];
  v_gate rhythm.gates;
  v_queue integer;
  v_room integer;
  v_next timestamptz;
  v_first integer;
  v_names integer[];
  v_free integer;
  v_bytes bigint := 4194304;
  v_workflow_bytes bigint := 4194304;
  v_passed record;
begin
  o_taken := array_fill(0, array[cardinality(p_counts)]);
  o_suspect := false;
  o_suspects := false;
  o_full := '{}';
  o_more := false;
  v_locked := array(
    select g.queue_id from rhythm.gates g
      where g.queue_id = any(p_queues) and exists (select from rhythm.gated d where d.queue_id = g.queue_id offset 0)
      order by g.queue_id for update);
  o_now := rhythm.now();  -- not before the gates are held: passes are numbered in the order of their times
  if exists (select from rhythm.passes p where p.queue_id = any(v_locked) and p.at > o_now) then  -- the clock was put back
    update rhythm.passes p set at = o_now where p.queue_id = any(v_locked) and p.at > o_now;
  end if;
  if exists (select from rhythm.gated d where d.lost > 0) then
    select s.o_workflow, s.o_ids, s.o_attempts, s.o_lost, s.o_waits into v_passed
      from rhythm.pass_suspects(v_locked, o_now, p_names || case when p_workflows > 0 then array[0] end, p_alone) s;
    o_suspects := v_passed.o_waits;
    if v_passed.o_ids is not null then
      o_suspect := true;
      if v_passed.o_workflow then
        w_ids := v_passed.o_ids; w_attempts := v_passed.o_attempts; w_lost := v_passed.o_lost;
      else
        t_ids := v_passed.o_ids; t_attempts := v_passed.o_attempts; t_lost := v_passed.o_lost;
      end if;
      return;
    end if;
  end if;

  foreach v_queue in array p_queues loop
    continue when v_queue <> all(v_locked);
    select g.* into v_gate from rhythm.gates g where g.queue_id = v_queue;
    select r.o_room, r.o_next into v_room, v_next from rhythm.room_in_queue(v_gate, o_now, 500) r;
    v_first := 1;
    for g in 1 .. cardinality(p_counts) + 1 loop
      if g <= cardinality(p_counts) then
        v_names := p_names[v_first : v_first + p_counts[g] - 1];
        v_free := p_free[g] - o_taken[g];
        v_first := v_first + p_counts[g];
      else
        v_names := array[0];
        v_free := p_workflows - coalesce(cardinality(w_ids), 0);
      end if;
      continue when v_free <= 0;
      if v_room > 0 then
        select * into v_passed from rhythm.pass_gate(v_gate, o_now, v_names, least(v_free, v_room),
          case when g <= cardinality(p_counts) then v_bytes else v_workflow_bytes end);
        v_room := v_room - coalesce(cardinality(v_passed.o_ids), 0);
        o_more := o_more or v_passed.o_more;
        o_next := least(o_next, extract(epoch from v_passed.o_next - o_now)::double precision);
        if g > cardinality(p_counts) then
          w_ids := w_ids || v_passed.o_ids;
          w_attempts := w_attempts || v_passed.o_attempts;
          w_lost := w_lost || v_passed.o_lost;
          v_workflow_bytes := v_workflow_bytes - v_passed.o_size;
        else
          t_ids := t_ids || v_passed.o_ids;
          t_attempts := t_attempts || v_passed.o_attempts;
          t_lost := t_lost || v_passed.o_lost;
          v_bytes := v_bytes - v_passed.o_size;
          o_taken[g] := o_taken[g] + coalesce(cardinality(v_passed.o_ids), 0);
        end if;
      end if;
      if v_room = 0 then                          -- its rate may be why
        select r.o_room, r.o_next into v_room, v_next from rhythm.room_in_queue(v_gate, o_now, 500) r;
      end if;
      if v_room <= 0 and v_next is not null and exists (
          select from unnest(v_names) n(id)
            where exists (select from rhythm.gated d where d.queue_id = v_queue and d.name_id = n.id offset 0)) then
        o_next := least(o_next, extract(epoch from v_next - o_now)::double precision);
      end if;
    end loop;
    if v_room <= 0 then
      o_full := o_full || v_queue;
    end if;
  end loop;
  if 0 = all(t_lost) then
    t_lost := null;
  end if;
  if 0 = all(w_lost) then
    w_lost := null;
  end if;
end $$;

-- Locks the workflows that were woken in a queue with limits: in ready, and holding a place. What has none stands there only
-- until maintenance sees it. Arguments and answer as find_ready, for workflows. Internal. Raises nothing.
create or replace function rhythm.find_woken(
  p_queue integer, p_limit integer, p_bytes bigint, out o_rows tid[], out o_size bigint)
language plpgsql as $$
begin
  select array_agg(s.row), sum(s.size) into o_rows, o_size
    from (select c.row, c.size, sum(c.size) over (rows unbounded preceding) - c.size as before
          from (select r.ctid as row, r.size::bigint as size from rhythm.ready r
                where r.queue_id = p_queue and r.name_id = 0 and r.lost = 0
                  and exists (select from rhythm.places p where p.id = r.id offset 0)
                order by r.priority_rank, r.seq limit p_limit for update of r skip locked) c) s
    where s.before < p_bytes;
end $$;

-- The same in several queues, 4 MiB in each. Returns addresses (empty: nothing there). Internal. Raises nothing.
create or replace function rhythm.find_woken_in(p_queues integer[], p_limit integer) returns tid[]
language plpgsql as $$
declare
  v_queue integer;
  v_rows tid[] := '{}';
begin
  foreach v_queue in array p_queues loop
    exit when cardinality(v_rows) >= p_limit;
    continue when exists (select from rhythm.queues q where q.id = v_queue and q.paused);
    v_rows := v_rows || (select f.o_rows from rhythm.find_woken(v_queue, p_limit - cardinality(v_rows), 4194304) f);
  end loop;
  return v_rows;
end $$;

-- Where an execution waits at its gate (null: it does not). Internal. Raises nothing.
create or replace function rhythm.find_gated(p_id uuid) returns tid
language sql stable as $$
  select d.ctid
    from rhythm.executions e
    cross join lateral (
      select d.ctid from rhythm.gated d
        where d.queue_id = e.queue_id and d.limit_key = coalesce(e.limit_key, '') and d.priority_rank = -e.priority
          and d.seq = e.seq and d.name_id = case when e.definition_id is null then e.name_id else 0 end offset 0) d
    where e.id = p_id
$$;

-- Gives back the places of executions that are let go. The caller owns them: it has ended their claims, or locked their
-- rows in waits. Returns the queues in which a place came free (null: none). Internal. Raises nothing.
create or replace function rhythm.leave_places(p_ids uuid[]) returns integer[]
language plpgsql as $$
declare
  v_queues integer[];
begin
  with gone as (delete from rhythm.places p where p.id = any(p_ids) returning p.queue_id)
  select array_agg(distinct g.queue_id) into v_queues from gone g;
  return v_queues;
end $$;

-- Puts executions of queues with limits to their gates, with the given counts of claims and losses; they give their places
-- back. The caller has taken them from where they were. Returns nothing. Internal. Raises nothing.
create or replace function rhythm.put_at_gates(p_ids uuid[], p_attempts integer[], p_lost integer[]) returns void
language plpgsql as $$
begin
  perform rhythm.leave_places(p_ids);
  insert into rhythm.gated (queue_id, name_id, limit_key, priority_rank, seq, lost, attempts, size, id)
    select e.queue_id, case when e.definition_id is null then e.name_id else 0 end, coalesce(e.limit_key, ''), -e.priority,
           e.seq, coalesce(u.lost, 0), u.attempts, coalesce(w.size, octet_length(e.inputs)), e.id
      from unnest(p_ids, p_attempts, p_lost) u(id, attempts, lost)
      cross join lateral (select * from rhythm.executions e where e.id = u.id offset 0) e
      left join lateral (select w.size from rhythm.waits w where w.id = u.id offset 0) w on true;
end $$;

-- Moves up to p_limit executions that stand in ready, in a queue with limits, but have no place, to the gate. Rows that
-- others have locked are skipped. Returns how many. Internal. Raises nothing.
create or replace function rhythm.gather_at_gate(p_queue integer, p_limit integer) returns integer
language plpgsql as $$
declare
  v_ids uuid[];
  v_attempts integer[];
  v_lost integer[];
begin
  with gone as (
    delete from rhythm.ready r where r.ctid = any(array(
      select r.ctid from rhythm.ready r
        where r.queue_id = p_queue and not exists (select from rhythm.places p where p.id = r.id offset 0)
        order by r.name_id, r.priority_rank, r.seq limit p_limit for update skip locked))
    returning r.id, r.attempts, r.lost)
  select array_agg(g.id), array_agg(g.attempts), array_agg(g.lost) into v_ids, v_attempts, v_lost from gone g;
  if v_ids is null then
    return 0;
  end if;
  perform rhythm.put_at_gates(v_ids, v_attempts, v_lost);
  return cardinality(v_ids);
end $$;

-- Moves up to p_limit executions that wait at a gate which is not there any more to ready. Returns how many. Internal.
-- Raises nothing.
create or replace function rhythm.let_all_pass(p_queue integer, p_limit integer) returns integer
language plpgsql as $$
declare
  v_count integer;
begin
  with gone as (
    delete from rhythm.gated d where d.ctid = any(array(
      select d.ctid from rhythm.gated d where d.queue_id = p_queue
        order by d.name_id, d.limit_key, d.priority_rank, d.seq limit p_limit for update skip locked))
    returning d.*)
  insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, returned_seq, attempts, size, id)
    select g.queue_id, g.name_id, g.priority_rank, g.lost, g.seq, g.seq, g.attempts, g.size, g.id from gone g;
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- What maintenance does for gates: passes that count no more are deleted, and what stands on the wrong side since limits
-- were set or removed is moved; up to p_limit of each. Returns how many were deleted and moved. Internal. Raises nothing.
create or replace function rhythm.tend_gates(p_limit integer) returns integer
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_queue integer;
  v_count integer;
  v_all integer := 0;
begin
  for v_queue in select q.id from rhythm.queues q where q.limited order by q.id loop
    delete from rhythm.passes p where p.ctid = any(array(
      select p.ctid from rhythm.gates g cross join lateral (
        select p.ctid from rhythm.passes p
          where p.queue_id = g.queue_id
            and p.at <= v_now - make_interval(secs => greatest(g.rate_seconds, g.key_rate_seconds, 0))
          order by p.at limit p_limit for update skip locked) p
        where g.queue_id = v_queue));
    get diagnostics v_count = row_count;
    v_all := v_all + v_count;
    v_count := rhythm.gather_at_gate(v_queue, p_limit);
    v_all := v_all + v_count;
    if v_count > 0 then
      perform rhythm.notify_idle(array[v_queue]);
    end if;
  end loop;
  for v_queue in
    with recursive present as (
      (select d.queue_id from rhythm.gated d order by d.queue_id limit 1)
      union all
      select n.queue_id from present p cross join lateral (
        select d.queue_id from rhythm.gated d where d.queue_id > p.queue_id order by d.queue_id limit 1) n)
    select p.queue_id from present p
      where not exists (select from rhythm.queues q where q.id = p.queue_id and q.limited)
  loop
    v_all := v_all + rhythm.let_all_pass(v_queue, p_limit);
    perform rhythm.notify_idle(array[v_queue]);
  end loop;
  return v_all;
end $$;

-- Sets the limits of a queue, or removes them (all null). The newest wins. A rate is so many starts in any period of so many
-- seconds; limits of keys are for each limit key. It takes effect at once; what runs is not touched, and counts.
-- p_known: only a queue that is there already.
-- Returns whether that changed anything. Raises RH003 for an unknown queue, 23514 for limits that cannot be.
create or replace function rhythm.limit_queue(
  p_queue text, p_concurrency integer, p_rate integer, p_rate_seconds double precision,
  p_key_concurrency integer, p_key_rate integer, p_key_rate_seconds double precision, p_known boolean default false)
returns boolean language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_queue integer;
  v_before rhythm.gates;
  v_none boolean := coalesce(p_concurrency, p_rate, p_key_concurrency, p_key_rate) is null;
begin
  if p_known and not exists (select from rhythm.queues q where q.name = p_queue) then
    raise exception 'no queue is named %', p_queue using errcode = 'RH003';
  end if;
  select g.* into v_before from rhythm.gates g join rhythm.queues q on q.id = g.queue_id where q.name = p_queue;
  if v_before.queue_id is null and v_none or not v_none
      and (v_before.concurrency, v_before.rate, v_before.rate_seconds, v_before.key_concurrency, v_before.key_rate,
           v_before.key_rate_seconds)
        is not distinct from (p_concurrency, p_rate, p_rate_seconds, p_key_concurrency, p_key_rate, p_key_rate_seconds) then
    return false;
  end if;
  v_queue := v_before.queue_id;
  if not v_none and v_queue is not null then
    select g.* into v_before from rhythm.gates g where g.queue_id = v_queue for update;
  end if;
  if v_none or v_before.queue_id is null then     -- from no limits to some, or the other way
    perform rhythm.stop_exchanges();
    select u.id into v_queue from unnest(rhythm.resolve_queues(array[p_queue])) u(id);
    perform 1 from rhythm.queues q where q.id = v_queue for no key update;
    select g.* into v_before from rhythm.gates g where g.queue_id = v_queue for update;
  end if;
  if v_none then
    update rhythm.queues q set limited = false where q.id = v_queue;
    delete from rhythm.gates g where g.queue_id = v_queue;
    delete from rhythm.places p where p.queue_id = v_queue;
    delete from rhythm.passes p where p.queue_id = v_queue;
    perform rhythm.let_all_pass(v_queue, 10000);
  else
    if v_before.queue_id is null then
      perform rhythm.give_places(v_now, v_queue);
    end if;
    insert into rhythm.gates as g (queue_id, set_at, concurrency, rate, rate_seconds, key_concurrency, key_rate,
        key_rate_seconds)
      values (v_queue, v_now, p_concurrency, p_rate, p_rate_seconds, p_key_concurrency, p_key_rate, p_key_rate_seconds)
      on conflict (queue_id) do update set set_at = excluded.set_at, concurrency = excluded.concurrency,
        rate = excluded.rate, rate_seconds = excluded.rate_seconds, key_concurrency = excluded.key_concurrency,
        key_rate = excluded.key_rate, key_rate_seconds = excluded.key_rate_seconds;
    update rhythm.queues q set limited = true where q.id = v_queue and not q.limited;
    perform rhythm.gather_at_gate(v_queue, 10000);
  end if;
  perform rhythm.notify_idle(array[v_queue]);
  return true;
end $$;

-- Waits for the exchanges under way, and holds up the next ones until the end of the transaction: so that those that did
-- not see a queue's limits have ended before it has them. A worker that registers meanwhile waits as well. Internal. Raises
-- nothing.
create or replace function rhythm.stop_exchanges() returns void
language plpgsql as $$
begin
  perform pg_advisory_xact_lock(x'72687967'::integer, 0);  -- "rhyg"; registrations share it
  perform pg_advisory_xact_lock(uuid_hash_extended(w.incarnation, 0))
    from (select w.incarnation from rhythm.workers w order by w.incarnation) w;
end $$;

-- Gives places to what has begun in a queue that is about to get limits: what is claimed, and workflows that have taken a
-- step, unless they were lost since. The caller has stopped exchanges. Internal. Raises nothing.
create or replace function rhythm.give_places(p_now timestamptz, p_queue integer) returns void
language plpgsql as $$
declare
  v_claims bigint[];
begin
  v_claims := array(
    select c.id from rhythm.claims c
      where exists (select from unnest(c.ids) u(id) join rhythm.executions e on e.id = u.id where e.queue_id = p_queue)
      order by c.id for update);
  perform 1 from rhythm.waits w where w.queue_id = p_queue order by w.id for update;
  update rhythm.claims c set gated = true where c.id = any(v_claims);
  insert into rhythm.places (id, queue_id, limit_key, since)
    select b.id, p_queue, coalesce(e.limit_key, ''), p_now
      from (select u.id from rhythm.claims c, unnest(c.ids) u(id) where c.id = any(v_claims)
            union
            select w.id from rhythm.waits w where w.queue_id = p_queue and (w.suspended or w.version > 0)) b
      join rhythm.executions e on e.id = b.id
      where e.queue_id = p_queue and not exists (
        select from rhythm.ready r
          where r.queue_id = p_queue and r.name_id = 0 and r.priority_rank = -e.priority and r.seq = e.seq and r.lost > 0)
    on conflict do nothing;
end $$;

-- Why an execution waits at its gate: the limits of its queue, how many hold a place of the queue and of its key, and when a
-- rate (of the queue, of its key) lets the next one pass, null where nothing keeps it now. Returns no row when it does
-- not wait at a gate. Raises nothing.
create or replace function rhythm.gate_of(p_id uuid)
returns table (queue text, limit_key text, paused boolean, concurrency integer, holding bigint, key_concurrency integer,
  key_holding bigint, rate integer, rate_seconds double precision, next_at timestamptz, key_rate integer,
  key_rate_seconds double precision, key_next_at timestamptz)
language plpgsql stable as $$
begin
  return query
  select q.name, nullif(d.limit_key, '')::text, q.paused, g.concurrency,
    (select count(*) from rhythm.places p where p.queue_id = g.queue_id), g.key_concurrency,
    (select count(*) from rhythm.places p where p.queue_id = g.queue_id and p.limit_key = d.limit_key and d.limit_key <> ''),
    g.rate, g.rate_seconds,
    (select r.o_next from rhythm.room_by_rate(g.queue_id, '', g.rate, g.rate_seconds, (select rhythm.now()), 1) r),
    g.key_rate, g.key_rate_seconds,
    case when d.limit_key <> '' then (
      select r.o_next
        from rhythm.room_by_rate(g.queue_id, d.limit_key, g.key_rate, g.key_rate_seconds, (select rhythm.now()), 1) r) end
    from rhythm.gated d
    join rhythm.gates g on g.queue_id = d.queue_id
    join rhythm.queues q on q.id = g.queue_id
    where d.ctid = any(array(select rhythm.find_gated(p_id)));
end $$;
