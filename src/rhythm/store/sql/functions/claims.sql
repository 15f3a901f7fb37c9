-- Claims: the right of a worker incarnation to run executions.
--
-- claim id * 512 + position is a member's token; position 511 marks a single claim.

-- Locks one execution that was lost before, first by queue, then by priority and age. p_names as in find_ready.
-- Returns its address and name (nulls: there is none). Internal. Raises nothing.
create or replace function rhythm.find_suspect(
  p_queues integer[], p_names integer[], out o_row tid, out o_name integer)
language plpgsql as $$
declare
  v_queue integer;
begin
  if not exists (select from rhythm.ready r where r.lost > 0) then
    return;
  end if;
  foreach v_queue in array p_queues loop
    select r.ctid, r.name_id into o_row, o_name from rhythm.ready r
      where r.queue_id = v_queue and r.name_id = any(p_names) and r.lost > 0
        and not exists (select from rhythm.queues q where q.id = v_queue and q.paused)
      order by r.priority_rank, r.seq limit 1 for update skip locked;
    exit when o_row is not null;
  end loop;
end $$;

-- Locks what a claim may take from several queues, in the order of the queues. The names come in groups: p_counts says
-- how many names each has, p_limits how many executions of them to take at most; 500 all together. Returns addresses
-- (empty: nothing there). Internal. Raises nothing.
create or replace function rhythm.find_ready_in(
  p_queues integer[], p_names integer[], p_counts integer[], p_limits integer[], p_bytes bigint) returns tid[]
language plpgsql as $$
declare
  v_queue integer;
  v_rows tid[] := '{}';
  v_found tid[];
  v_left integer[] := p_limits;
  v_bytes bigint := p_bytes;
  v_size bigint;
  v_first integer;
begin
  foreach v_queue in array p_queues loop
    v_first := 1;
    for g in 1 .. cardinality(p_counts) loop
      if v_left[g] > 0 and v_bytes > 0 and cardinality(v_rows) < 500 then
        select f.o_rows, f.o_size into v_found, v_size
          from rhythm.find_ready(v_queue, p_names[v_first : v_first + p_counts[g] - 1],
            least(v_left[g], 500 - cardinality(v_rows)), v_bytes) f;
        v_rows := v_rows || v_found;
        v_left[g] := v_left[g] - coalesce(cardinality(v_found), 0);
        v_bytes := v_bytes - coalesce(v_size, 0);
      end if;
      v_first := v_first + p_counts[g];
    end loop;
  end loop;
  return v_rows;
end $$;

-- Takes locked rows out of ready. Returns the executions by priority and age, their attempts (the one beginning included)
-- and losses (null: all 0); last, and counted in o_singles, those of names in p_singles. Internal. Raises nothing.
create or replace function rhythm.take_ready(
  p_rows tid[], p_singles integer[], out o_ids uuid[], out o_attempts integer[], out o_lost smallint[], out o_singles integer)
language plpgsql as $$
begin
  with taken as (
    delete from rhythm.ready r where r.ctid = any(p_rows)
    returning r.id, r.priority_rank, r.seq, r.attempts, r.lost, r.name_id = any(p_singles) as single)
  select array_agg(t.id), array_agg(t.attempts + 1), array_agg(t.lost), count(*) filter (where t.single)
    into o_ids, o_attempts, o_lost, o_singles
    from (select * from taken order by single, priority_rank, seq) t;
  if 0 = all(o_lost) then
    o_lost := null;
  end if;
end $$;

-- Writes a claim. p_timeouts are those of its members in milliseconds (0: none). An attempt is expired by maintenance
-- 10 s after its timeout; in a batch, 60 s more, since its members take turns until it is split. p_gated: a member may hold a
-- place.
-- Returns the claim's id. Internal. Raises nothing.
create or replace function rhythm.add_claim(
  p_now timestamptz, p_incarnation uuid, p_ids uuid[], p_attempts integer[], p_lost smallint[], p_family boolean,
  p_timeouts bigint[], p_gated boolean) returns bigint
language sql as $$
  insert into rhythm.claims (incarnation, started_at, expires_at, single, ids, attempts, lost, family, gated)
    select p_incarnation, p_now,
      p_now + make_interval(secs => nullif(t.least, 0) / 1000.0 + case when cardinality(p_ids) = 1 then 10 else 70 end),
      cardinality(p_ids) = 1, p_ids, p_attempts, p_lost, p_family, p_gated
    from (select min(u.timeout) as least from unnest(p_timeouts) u(timeout) where u.timeout > 0) t
  returning id
$$;

-- Locks the rows of one queue that a claim may take: by priority and age across the given names, never lost before, up to
-- p_limit and p_bytes (at least one). Rows that others have locked are skipped.
-- Returns their addresses (null: none) and their size. Internal. Raises nothing.
create or replace function rhythm.find_ready(
  p_queue integer, p_names integer[], p_limit integer, p_bytes bigint, out o_rows tid[], out o_size bigint)
language plpgsql as $$
declare
  v_name integer;
  v_locked bigint;
  v_wanted bigint;
  v_walked bigint;
  v_paused boolean;
  v_marked boolean;
  v_due boolean;
begin
  select q.paused, rhythm.walked(),
         -- not exists(): that would forget the order, and walk over marks that are gone
         (select true from rhythm.marks m where m.queue_id = q.id order by m.name_id desc, m.number desc limit 1)
    into v_paused, v_walked, v_marked from rhythm.queues q where q.id = p_queue;
  if v_paused then
    return;
  end if;
  if v_marked then
    select f.o_rows, f.o_size, f.o_due into o_rows, o_size, v_due
      from rhythm.find_ready_by_marks(p_queue, p_names, p_limit, p_bytes) f;
  elsif cardinality(p_names) = 1 then
    v_name := p_names[1];
    select array_agg(s.row), sum(s.size) into o_rows, o_size
      from (select c.row, c.size, sum(c.size) over (rows unbounded preceding) - c.size as before
            from (select r.ctid as row, r.size::bigint as size from rhythm.ready r
                  where r.queue_id = p_queue and r.name_id = v_name and r.lost = 0
                  order by r.priority_rank, r.seq limit p_limit for update skip locked) c) s
      where s.before < p_bytes;
  else
    -- How many of each name stand among the first p_limit is found without locks; then that many are locked.
    with first as (
      select f.name_id from unnest(p_names) n(id)
        cross join lateral (
          select r.name_id, r.priority_rank, r.seq from rhythm.ready r
            where r.queue_id = p_queue and r.name_id = n.id and r.lost = 0
            order by r.priority_rank, r.seq limit p_limit) f
        order by f.priority_rank, f.seq limit p_limit),
    shares as materialized (select f.name_id, count(*) as count from first f group by f.name_id)
    select array_agg(s.row) filter (where s.before < p_bytes), sum(s.size) filter (where s.before < p_bytes), count(*),
           (select sum(h.count) from shares h)
      into o_rows, o_size, v_locked, v_wanted
      from (select c.row, c.size, sum(c.size) over (order by c.priority_rank, c.seq rows unbounded preceding) - c.size as before
            from shares h cross join lateral (
              select r.ctid as row, r.size::bigint as size, r.priority_rank, r.seq from rhythm.ready r
                where r.queue_id = p_queue and r.name_id = h.name_id and r.lost = 0
                order by r.priority_rank, r.seq limit h.count for update skip locked) c) s;
    -- Others were there first: take what they have left, name by name.
    if v_locked < v_wanted and coalesce(o_size, 0) < p_bytes then
      foreach v_name in array p_names loop
        exit when coalesce(cardinality(o_rows), 0) >= p_limit;
        select o_rows || array_agg(c.row), coalesce(o_size, 0) + coalesce(sum(c.size), 0) into o_rows, o_size
          from (select r.ctid as row, r.size from rhythm.ready r
                where r.queue_id = p_queue and r.name_id = v_name and r.lost = 0 and r.ctid <> all(coalesce(o_rows, '{}'))
                order by r.priority_rank, r.seq limit p_limit - coalesce(cardinality(o_rows), 0) for update skip locked) c;
        exit when o_size >= p_bytes;
      end loop;
    end if;
  end if;
  if v_due or rhythm.walked() - v_walked - p_limit * (cardinality(p_names) + 2) > rhythm.walk_limit() then
    perform rhythm.note_marks(p_queue, p_names);
  end if;
end $$;

-- The same in a queue with marks: the rows come from the ranges above them, and from those that have returned. Internal.
-- Returns also whether it is time to walk the whole index. Raises nothing.
create or replace function rhythm.find_ready_by_marks(
  p_queue integer, p_names integer[], p_limit integer, p_bytes bigint, out o_rows tid[], out o_size bigint, out o_due boolean)
language plpgsql as $$
declare
  l record;
  v_lane record;
  v_locked bigint;
  v_wanted bigint;
begin
  l := rhythm.lanes(p_queue, p_names);
  o_due := l.o_due;
  -- How many of each lane (fresh: from 1; returned: down from -1) stand among the first, and where they begin, is found
  -- without locks; then that many are locked from there on.
  with fresh as materialized (
    select u.* from unnest(l.o_names, l.o_from_ranks, l.o_from_seqs, l.o_to_ranks, l.o_to_seqs) with ordinality
      u(name_id, from_rank, from_seq, to_rank, to_seq, lane)),
  returned as materialized (
    select u.id as name_id, -u.position as lane from unnest(p_names) with ordinality u(id, position)),
  first as (
    select s.lane, s.priority_rank, s.seq from (
      select f.lane, r.priority_rank, r.seq from fresh f cross join lateral (
        select r.priority_rank, r.seq from rhythm.ready r
          where r.queue_id = p_queue and r.name_id = f.name_id and r.lost = 0 and r.returned_seq is null
            and (r.priority_rank, r.seq) >= (f.from_rank, f.from_seq) and (r.priority_rank, r.seq) < (f.to_rank, f.to_seq)
          order by r.priority_rank, r.seq limit p_limit) r
      union all
      select b.lane, r.priority_rank, r.returned_seq from returned b cross join lateral (
        select r.priority_rank, r.returned_seq from rhythm.ready r
          where r.queue_id = p_queue and r.name_id = b.name_id and r.lost = 0 and r.returned_seq is not null
          order by r.priority_rank, r.returned_seq limit p_limit) r) s
      order by s.priority_rank, s.seq limit p_limit),
  shares as materialized (
    select f.lane, count(*) as count, min(f.priority_rank) as from_rank, min(f.seq) as from_seq from first f group by f.lane),
  locked as (
    select r.* from shares h join fresh f on f.lane = h.lane cross join lateral (
      select r.ctid as row, r.size::bigint as size, r.priority_rank, r.seq from rhythm.ready r
        where r.queue_id = p_queue and r.name_id = f.name_id and r.lost = 0 and r.returned_seq is null
          and (r.priority_rank, r.seq) >= (h.from_rank, h.from_seq) and (r.priority_rank, r.seq) < (f.to_rank, f.to_seq)
        order by r.priority_rank, r.seq limit h.count for update skip locked) r
    union all
    select r.* from shares h join returned b on b.lane = h.lane cross join lateral (
      select r.ctid, r.size::bigint, r.priority_rank, r.returned_seq from rhythm.ready r
        where r.queue_id = p_queue and r.name_id = b.name_id and r.lost = 0 and r.returned_seq is not null
        order by r.priority_rank, r.returned_seq limit h.count for update skip locked) r)
  select array_agg(s.row) filter (where s.before < p_bytes), sum(s.size) filter (where s.before < p_bytes), count(*),
         (select sum(h.count) from shares h)
    into o_rows, o_size, v_locked, v_wanted
    from (select k.row, k.size, sum(k.size) over (order by k.priority_rank, k.seq rows unbounded preceding) - k.size as before
          from locked k) s;
  -- Others were there first: take what they have left, lane by lane.
  if v_locked < v_wanted and coalesce(o_size, 0) < p_bytes then
    for v_lane in
      select false as returned, u.* from unnest(l.o_names, l.o_from_ranks, l.o_from_seqs, l.o_to_ranks, l.o_to_seqs)
        u(name_id, from_rank, from_seq, to_rank, to_seq)
      union all
      select true, u.id, null, null, null, null from unnest(p_names) u(id)
    loop
      exit when coalesce(cardinality(o_rows), 0) >= p_limit;
      if v_lane.returned then
        select o_rows || array_agg(c.row), coalesce(o_size, 0) + coalesce(sum(c.size), 0) into o_rows, o_size
          from (select r.ctid as row, r.size from rhythm.ready r
                where r.queue_id = p_queue and r.name_id = v_lane.name_id and r.lost = 0 and r.returned_seq is not null
                  and r.ctid <> all(coalesce(o_rows, '{}'))
                order by r.priority_rank, r.returned_seq limit p_limit - coalesce(cardinality(o_rows), 0)
                for update skip locked) c;
      else
        select o_rows || array_agg(c.row), coalesce(o_size, 0) + coalesce(sum(c.size), 0) into o_rows, o_size
          from (select r.ctid as row, r.size from rhythm.ready r
                where r.queue_id = p_queue and r.name_id = v_lane.name_id and r.lost = 0 and r.returned_seq is null
                  and (r.priority_rank, r.seq) >= (v_lane.from_rank, v_lane.from_seq)
                  and (r.priority_rank, r.seq) < (v_lane.to_rank, v_lane.to_seq)
                  and r.ctid <> all(coalesce(o_rows, '{}'))
                order by r.priority_rank, r.seq limit p_limit - coalesce(cardinality(o_rows), 0)
                for update skip locked) c;
      end if;
      exit when o_size >= p_bytes;
    end loop;
  end if;
end $$;

-- What a worker needs to run the given tasks, as arrays in their order; o_extra points (from 1) to the rows that the
-- x arrays describe: those with a parent, a key, tags, retries or a policy of their own. Internal. Raises nothing.
create or replace function rhythm.describe_tasks(
  p_ids uuid[],
  out o_names integer[], out o_queues integer[], out o_inputs bytea[], out o_timeouts bigint[], out o_created double precision[],
  out o_extra integer[], out x_parents uuid[], out x_operations integer[], out x_keys text[], out x_tags text[],
  out x_retries integer[], out x_retry text[])
language plpgsql as $$
begin
  select array_agg(t.name_id), array_agg(t.queue_id), array_agg(t.inputs), array_agg(t.timeout_ms),
         array_agg(extract(epoch from t.created_at)::double precision * 1000),
         array_agg(t.position) filter (where t.extra), array_agg(t.parent_id) filter (where t.extra),
         array_agg(t.operation) filter (where t.extra), array_agg(t.key) filter (where t.extra),
         array_agg(t.tags::text) filter (where t.extra), array_agg(t.retries) filter (where t.extra),
         array_agg(t.retry::text) filter (where t.extra)
    into o_names, o_queues, o_inputs, o_timeouts, o_created,
         o_extra, x_parents, x_operations, x_keys, x_tags, x_retries, x_retry
    from (select e.name_id, e.queue_id, e.inputs, e.timeout_ms, e.created_at, u.position::integer, e.parent_id, e.operation,
            e.key, e.tags, e.retries, e.retry, e.parent_id is not null or e.key is not null or e.tags is not null
              or e.retries > 0 or e.retry is not null as extra
          from unnest(p_ids) with ordinality u(id, position)
          cross join lateral (select * from rhythm.executions e where e.id = u.id offset 0) e
          order by u.position) t;
end $$;

-- What a worker needs to continue the given suspended parents of its tasks in place: those that wait for one operation
-- only and have nothing unread. o_index points (from 1) into p_parents. A snapshot is
-- left out for workflows in p_known: the worker has just sent it. Internal. Raises nothing.
create or replace function rhythm.describe_parents(
  p_parents uuid[], p_known uuid[],
  out o_index integer[], out o_names integer[], out o_definitions bigint[], out o_versions integer[], out o_numbers bigint[],
  out o_snapshots bytea[], out o_tags text[])
language plpgsql as $$
begin
  select array_agg(u.position::integer), array_agg(e.name_id), array_agg(w.definition_id), array_agg(w.version),
         array_agg(w.next_number), array_agg(case when w.id <> all(p_known) then s.snapshot end), array_agg(e.tags::text)
    into o_index, o_names, o_definitions, o_versions, o_numbers, o_snapshots, o_tags
    from unnest(p_parents) with ordinality u(id, position)
    cross join lateral (
      select * from rhythm.waits w
        where w.id = u.id and w.suspended and w.outstanding = 1 and w.next_number - 1 = w.seen_through offset 0) w
    cross join lateral (select s.snapshot from rhythm.snapshots s where s.id = u.id offset 0) s
    cross join lateral (select e.name_id, e.tags from rhythm.executions e where e.id = u.id offset 0) e;
end $$;

-- What a worker needs to run the given workflows, as arrays in their order, and what has been delivered to them: up to
-- 10,000 each and p_bytes in all, 100 more for each (at least one each), in the order of their numbers. d_index points
-- (from 1) to the workflow. Internal. Raises nothing.
create or replace function rhythm.describe_workflows(
  p_ids uuid[], p_bytes bigint,
  out o_names integer[], out o_queues integer[], out o_inputs bytea[], out o_created double precision[],
  out o_definitions bigint[], out o_versions integer[], out o_snapshots bytea[], out o_parents uuid[], out o_operations integer[],
  out o_keys text[], out o_tags text[],
  out d_index integer[], out d_numbers bigint[], out d_kinds smallint[], out d_operations integer[], out d_names text[],
  out d_payloads bytea[])
language plpgsql as $$
begin
  select array_agg(e.name_id order by u.position), array_agg(e.queue_id order by u.position),
         array_agg(e.inputs order by u.position),
         array_agg(extract(epoch from e.created_at)::double precision * 1000 order by u.position),
         array_agg(w.definition_id order by u.position), array_agg(w.version order by u.position),
         array_agg(s.snapshot order by u.position), array_agg(e.parent_id order by u.position),
         array_agg(e.operation order by u.position), array_agg(e.key order by u.position),
         array_agg(e.tags::text order by u.position)
    into o_names, o_queues, o_inputs, o_created, o_definitions, o_versions, o_snapshots, o_parents, o_operations,
         o_keys, o_tags
    from unnest(p_ids) with ordinality u(id, position)
    cross join lateral (select * from rhythm.executions e where e.id = u.id offset 0) e
    left join lateral (
      select w.definition_id, w.version from rhythm.waits w where w.id = u.id offset 0) w on true
    left join lateral (select s.snapshot from rhythm.snapshots s where s.id = u.id offset 0) s on true;

  select array_agg(t.position::integer), array_agg(t.number), array_agg(t.kind), array_agg(t.operation), array_agg(t.name),
         array_agg(t.payload)
    into d_index, d_numbers, d_kinds, d_operations, d_names, d_payloads
    from (select u.position, d.rank, d.number, d.kind, d.operation, d.name, coalesce(d.payload, o.payload) as payload,
            sum(coalesce(octet_length(coalesce(d.payload, o.payload)), 0) + 100) over (order by u.position, d.number) as bytes
          from unnest(p_ids) with ordinality u(id, position)
          cross join lateral (select w.seen_through from rhythm.waits w where w.id = u.id offset 0) w
          cross join lateral (
            select d.*, row_number() over (order by d.number) as rank from rhythm.deliveries d
              where d.id = u.id and d.number > w.seen_through order by d.number limit 10000) d
          left join lateral (select o.payload from rhythm.outcomes o where o.id = d.child_id offset 0) o on true
          order by u.position, d.number) t
    where t.rank = 1 or t.bytes <= p_bytes;
end $$;
