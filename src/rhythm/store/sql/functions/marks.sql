-- Low-water marks: claims do not walk over what is deleted but cannot be cleaned up.
--
-- A session with an open snapshot (a report, a dump, an abandoned transaction) keeps every index entry that is deleted after
-- it began. Claims take the oldest rows first, so they would walk over all of these: at 100 ns each a queue that moves
-- 25,000 tasks per second would stand still after minutes. A mark says of a queue, a name and a priority rank that nothing
-- below some seq stands in ready and nothing will, and the claim starts there.
--
-- It is exact, not a guess. A row is either fresh (its seq was drawn by the transaction that inserts it) or has returned,
-- and those are found by an index of their own. A transaction that inserts fresh rows holds its lock on ready before it draws
-- a seq, and until it ends. So of a seq read from the sequence, and the holders of such locks read after it: when these have
-- all ended, every fresh row up to that seq is visible that ever will be, and the mark is the first of them, or that seq.
-- A holder that goes on for longer than 2 s is not waited for but remembered as doubtful: once it has ended the whole
-- index is walked again, before the next claim. The index is walked again in any case from time to time, which also finds
-- that a mark is not needed any more.
--
-- Without much to walk over there is no mark, and claims read as they always did.

-- How many index entries without a row a claim may walk over before a mark is looked for. Internal. Raises nothing.
create or replace function rhythm.walk_limit() returns bigint
language sql immutable as $$ select 2000::bigint $$;

-- How many entries of the index that claims read this transaction has walked over. Internal. Raises nothing.
create or replace function rhythm.walked() returns bigint
language sql volatile as $$ select pg_stat_get_xact_tuples_returned('rhythm.ready_pkey'::regclass) $$;

-- The virtual ids of other transactions that may have inserted into ready and have not ended. Prepared ones begin with
-- "-1/". Internal. Raises nothing.
create or replace function rhythm.ready_writers() returns text[]
language sql volatile as $$
  select coalesce(array_agg(distinct l.virtualtransaction), '{}') from pg_locks l
    where l.locktype = 'relation' and l.relation = 'rhythm.ready'::regclass and l.mode = 'RowExclusiveLock' and l.granted
      and l.database = (select d.oid from pg_database d where d.datname = current_database())
      and l.pid is distinct from pg_backend_pid()
$$;

-- When the whole index is to be walked again: a walk of 100 ns for each entry costs less than 1 % of the time. Internal.
-- Raises nothing.
create or replace function rhythm.test_due(p_tested_at timestamptz, p_walked bigint) returns timestamptz
language sql immutable as $$ select p_tested_at + make_interval(secs => 10 + p_walked / 50000.0) $$;

-- The ranges of the index of ready in which fresh rows of the given names may stand, as arrays: from (rank, seq), included,
-- to (rank, seq), not included; and whether marks are to be noted after the search. Internal. Raises nothing.
create or replace function rhythm.lanes(
  p_queue integer, p_names integer[],
  out o_names integer[], out o_from_ranks smallint[], out o_from_seqs bigint[], out o_to_ranks smallint[], out o_to_seqs bigint[],
  out o_due boolean)
language plpgsql as $$
declare
  c_first constant bigint := -9223372036854775808;
  v_now timestamptz := rhythm.now();
  v_name integer;
  v_mark rhythm.marks;
  v_doubtful text[] := '{}';
begin
  o_names := '{}';
  o_from_ranks := '{}';
  o_from_seqs := '{}';
  o_to_ranks := '{}';
  o_to_seqs := '{}';
  o_due := false;
  foreach v_name in array p_names loop
    select m.* into v_mark from rhythm.marks m
      where m.queue_id = p_queue and m.name_id = v_name order by m.number desc limit 1;
    if v_mark.server_started_at = pg_postmaster_start_time() then
      v_doubtful := v_doubtful || v_mark.doubtful;
      o_due := o_due or v_now > rhythm.test_due(v_mark.tested_at, v_mark.walked);
    else
      v_mark.ranks := '{}';
      v_mark.seqs := '{}';
    end if;
    o_names := o_names || array_fill(v_name, array[cardinality(v_mark.ranks) + 1]);
    o_from_ranks := o_from_ranks || (-32768)::smallint || v_mark.ranks;
    o_from_seqs := o_from_seqs || c_first || v_mark.seqs;
    o_to_ranks := o_to_ranks || v_mark.ranks || 32767::smallint;
    o_to_seqs := o_to_seqs || array_fill(c_first, array[cardinality(v_mark.ranks) + 1]);
  end loop;
  if v_doubtful <> '{}' and not v_doubtful <@ rhythm.ready_writers() then
    o_names := p_names;
    o_from_ranks := array_fill((-32768)::smallint, array[cardinality(p_names)]);
    o_from_seqs := array_fill(c_first, array[cardinality(p_names)]);
    o_to_ranks := array_fill(32767::smallint, array[cardinality(p_names)]);
    o_to_seqs := o_from_seqs;
    o_due := true;
  end if;
end $$;

-- Whether some of the queues has something that a claim may take, of the given names (null: of any that a live worker knows, or
-- a workflow). Internal. Raises nothing.
create or replace function rhythm.has_ready(p_queues integer[], p_names integer[]) returns boolean
language plpgsql as $$
declare
  v_queue integer;
  v_names integer[] := p_names;
  l record;
begin
  foreach v_queue in array p_queues loop
    perform 1 from rhythm.marks m where m.queue_id = v_queue order by m.name_id desc, m.number desc limit 1;
    if found then
      v_names := coalesce(v_names, array(select distinct u.id from rhythm.workers w, unnest(w.name_ids || 0) u(id)));
      l := rhythm.lanes(v_queue, v_names);
      perform 1
        from unnest(l.o_names, l.o_from_ranks, l.o_from_seqs, l.o_to_ranks, l.o_to_seqs)
          u(name_id, from_rank, from_seq, to_rank, to_seq)
        cross join lateral (
          select from rhythm.ready r
            where r.queue_id = v_queue and r.name_id = u.name_id and r.returned_seq is null
              and (r.priority_rank, r.seq) >= (u.from_rank, u.from_seq) and (r.priority_rank, r.seq) < (u.to_rank, u.to_seq)
            order by r.priority_rank, r.seq limit 1) r
        limit 1;
      if not found then
        perform 1
          from unnest(v_names) u(id)
          cross join lateral (
            select from rhythm.ready r
              where r.queue_id = v_queue and r.name_id = u.id and r.returned_seq is not null
              order by r.priority_rank, r.returned_seq limit 1) r
          limit 1;
      end if;
    elsif p_names is null then
      perform 1 from rhythm.ready r where r.queue_id = v_queue limit 1;
    else
      perform 1 from rhythm.ready r where r.queue_id = v_queue and r.name_id = any(p_names) limit 1;
    end if;
    if found then
      return true;
    end if;
  end loop;
  return false;
end $$;

-- Forgets marks that nobody has looked after for an hour: no worker runs these names in these queues any more. Internal.
-- Raises nothing.
create or replace function rhythm.forget_marks(p_now timestamptz) returns void
language sql as $$
  delete from rhythm.marks m where m.ctid = any(array(
    select m.ctid from rhythm.marks m where m.noted_at < p_now - interval '1 h' for update skip locked))
$$;

-- Looks for marks of a queue and names after a claim that had far to walk, moves them on, and takes away those that are not
-- needed. Does nothing while another transaction does it, and in one that reads from one snapshot. Internal. Raises nothing.
create or replace function rhythm.note_marks(p_queue integer, p_names integer[]) returns void
language plpgsql as $$
declare
  c_first constant bigint := -9223372036854775808;
  v_now timestamptz := rhythm.now();
  v_server timestamptz := pg_postmaster_start_time();
  v_few bigint := least(rhythm.walk_limit(), greatest(rhythm.walk_limit() / cardinality(p_names), 50));
  v_name integer;
  v_mark rhythm.marks;
  v_next rhythm.marks;
  v_candidate bigint;
  v_writers text[];
  v_known boolean;
  v_whole boolean;
  v_ended boolean;
  v_taken boolean;
  v_walked bigint;
  v_ranks smallint[];
  v_seqs bigint[];
begin
  if current_setting('transaction_isolation') <> 'read committed'
      or not pg_try_advisory_xact_lock(x'7268796d'::integer, p_queue) then  -- "rhym"
    return;
  end if;
  v_candidate := (select s.last_value from rhythm.executions_seq_seq s);
  v_writers := rhythm.ready_writers();            -- after the candidate was read, before the rows are
  foreach v_name in array p_names loop
    select m.* into v_mark from rhythm.marks m
      where m.queue_id = p_queue and m.name_id = v_name order by m.number desc limit 1;
    if v_mark.server_started_at <> v_server then
      delete from rhythm.marks m where m.queue_id = p_queue and m.name_id = v_name and m.number = v_mark.number;
      v_mark := null;
    end if;
    v_known := v_mark.number is not null;
    v_ended := v_known and not v_mark.doubtful <@ v_writers;
    v_whole := not v_known or v_ended or v_now > rhythm.test_due(v_mark.tested_at, v_mark.walked);
    continue when not v_whole and v_now < v_mark.noted_at + interval '100 ms';
    if not v_known then
      v_mark.ranks := '{}';
      v_mark.seqs := '{}';
    end if;

    -- the first fresh row of each rank
    v_walked := rhythm.walked();
    with recursive ranges as (
      select u.* from unnest(
        (-32768)::smallint || case when v_whole then '{}' else v_mark.ranks end,
        c_first || case when v_whole then '{}' else v_mark.seqs end,
        case when v_whole then '{}' else v_mark.ranks end || 32767::smallint) u(from_rank, from_seq, to_rank)),
    firsts as (
      select g.to_rank, f.* from ranges g cross join lateral (
        select r.priority_rank, r.seq from rhythm.ready r
          where r.queue_id = p_queue and r.name_id = v_name and r.returned_seq is null
            and (r.priority_rank, r.seq) >= (g.from_rank, g.from_seq) and (r.priority_rank, r.seq) < (g.to_rank, c_first)
          order by r.priority_rank, r.seq limit 1) f
      union all
      select g.to_rank, f.* from firsts g cross join lateral (
        select r.priority_rank, r.seq from rhythm.ready r
          where r.queue_id = p_queue and r.name_id = v_name and r.returned_seq is null
            and (r.priority_rank, r.seq) >= (g.priority_rank + 1::smallint, c_first)
            and (r.priority_rank, r.seq) < (g.to_rank, c_first)
          order by r.priority_rank, r.seq limit 1) f)
    select array_agg(f.priority_rank order by f.priority_rank), array_agg(f.seq order by f.priority_rank)
      into v_ranks, v_seqs from firsts f;
    v_walked := rhythm.walked() - v_walked;
    continue when not v_known and v_walked <= v_few;

    v_next := v_mark;
    v_next.noted_at := v_now;
    if v_whole then
      v_next.tested_at := v_now;
      v_next.walked := v_walked;
    end if;
    v_taken := v_known and (not v_mark.writers && v_writers or v_now > v_mark.candidate_at + interval '2 s');
    if v_taken or v_ended then
      -- up to 16 ranks: those that have rows first, then those that had a mark, and the name's own
      select array_agg(t.rank order by t.rank),
             array_agg(least(t.first, case when v_taken then v_mark.candidate else t.mark end) order by t.rank)
        into v_next.ranks, v_next.seqs
        from (select k.rank, min(k.first) as first, coalesce(min(k.mark), c_first) as mark
              from (select f.rank, f.seq as first, null::bigint as mark from unnest(v_ranks, v_seqs) f(rank, seq)
                    union all
                    select m.rank, null, m.seq from unnest(v_mark.ranks, v_mark.seqs) m(rank, seq)
                    union all
                    select coalesce((select -n.priority from rhythm.names n where n.id = v_name), 0)::smallint, null, null) k
              group by k.rank order by min(k.first) is null, min(k.mark) is null, k.rank limit 16) t;
    end if;
    v_next.doubtful := array(
      select u.id from unnest(v_mark.doubtful || case when v_taken then v_mark.writers end) u(id) where u.id = any(v_writers)
      union
      select u.id from unnest(v_writers) u(id) where u.id like '-1/%');  -- prepared just now, and known by another id before
    if v_taken or not v_known then
      v_next.candidate := v_candidate;
      v_next.candidate_at := v_now;
      v_next.writers := v_writers;
    end if;
    if v_known then
      delete from rhythm.marks m where m.queue_id = p_queue and m.name_id = v_name and m.number = v_mark.number;
    end if;
    if not v_known or not v_whole or v_walked > v_few then
      insert into rhythm.marks (queue_id, name_id, noted_at, tested_at, walked, server_started_at, ranks, seqs, candidate,
          candidate_at, writers, doubtful)
        values (p_queue, v_name, v_now, v_next.tested_at, v_next.walked, v_server, v_next.ranks, v_next.seqs,
          v_next.candidate, v_next.candidate_at, v_next.writers, v_next.doubtful);
    end if;
  end loop;
end $$;
