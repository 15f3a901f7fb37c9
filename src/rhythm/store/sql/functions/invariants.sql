-- What must hold at every moment, as far as tables can tell.

-- Looks for breaches of the invariants. Reads everything: for tests and for doubts, not for routine.
-- Returns a row per breach: which invariant, the execution concerned (or null), and what is wrong. Raises nothing.
--
-- I1 every execution is finished, or stands somewhere with a reason   I4 nothing is left of what fencing has ended
-- I2 results are applied to parents exactly once                      I5 signals are delivered once, in order
-- I3 each execution stands in exactly one place, attempts add up      I6 no timer is early, or fires twice
-- I8 limits of queues and keys are kept
create or replace function rhythm.find_breaches()
returns table (invariant text, execution_id uuid, problem text)
language sql stable as $$
  with places as (
    select r.id, 'ready' as place from rhythm.ready r
    union all select l.id, 'later' from rhythm.later l
    union all select d.id, 'gated' from rhythm.gated d
    union all select u.id, 'claim ' || c.id from rhythm.claims c, unnest(c.ids) u(id) where u.id is not null
    union all select w.id, 'waits' from rhythm.waits w where w.suspended
    union all select o.id, 'outcomes' from rhythm.outcomes o),
  counted as (
    select p.id, count(*) as count, string_agg(p.place, ', ' order by p.place) as places from places p group by p.id)
  select 'I3', c.id, 'stands in several places: ' || c.places from counted c where c.count > 1
  union all
  select 'I1', e.id, 'stands nowhere' from rhythm.executions e left join counted c on c.id = e.id where c.id is null
  union all
  select 'I3', c.id, 'stands in ' || c.places || ' but was never started'
    from counted c left join rhythm.executions e on e.id = c.id where e.id is null
  union all
  select 'I3', r.id, 'stands in ready with other queue, name, priority or age than it has'
    from rhythm.ready r join rhythm.executions e on e.id = r.id
    where (r.queue_id, r.priority_rank, r.seq) is distinct from (e.queue_id, (-e.priority)::smallint, e.seq)
       or r.name_id <> case when e.definition_id is null then e.name_id else 0 end
  union all
  select 'I1', r.id, 'stands in ready below a mark, where no claim finds it'
    from (select distinct on (m.queue_id, m.name_id) m.* from rhythm.marks m order by m.queue_id, m.name_id, m.number desc) m
    cross join unnest(m.ranks, m.seqs) u(rank, seq)
    join rhythm.ready r on r.queue_id = m.queue_id and r.name_id = m.name_id and r.priority_rank = u.rank and r.seq < u.seq
    where r.returned_seq is null and m.server_started_at = pg_postmaster_start_time() and m.doubtful = '{}'
  union all
  select 'I3', r.id, 'has returned to ready with another age than it has'
    from rhythm.ready r where r.returned_seq <> r.seq
  union all
  select 'I3', d.id, 'stands at a gate with other queue, name, limit key, priority or age than it has'
    from rhythm.gated d join rhythm.executions e on e.id = d.id
    where (d.queue_id, d.limit_key, d.priority_rank, d.seq) is distinct from
          (e.queue_id, coalesce(e.limit_key, ''), (-e.priority)::smallint, e.seq)
       or d.name_id <> case when e.definition_id is null then e.name_id else 0 end
  union all
  select 'I1', w.id, 'is an unfinished workflow that has finished' from rhythm.waits w join rhythm.outcomes o on o.id = w.id
  union all
  select 'I1', e.id, 'is an unfinished workflow without its row in waits'
    from rhythm.executions e left join rhythm.waits w on w.id = e.id left join rhythm.outcomes o on o.id = e.id
    where e.definition_id is not null and w.id is null and o.id is null
  union all
  select 'I1', w.id, 'is suspended but waits for nothing'
    from rhythm.waits w where w.suspended and w.outstanding <= 0
  union all
  select 'I1', w.id, 'is suspended although a delivery should have woken it'
    from rhythm.waits w where w.suspended and w.wake_modes is null and w.next_number - 1 > w.seen_through
  union all
  select 'I1', w.id, 'is suspended although nothing can wake it'
    from rhythm.waits w join rhythm.snapshots s on s.id = w.id
    where w.suspended and w.outstanding > 0 and w.next_number - 1 = w.seen_through
      and not exists (select from rhythm.timers t where t.id = w.id)
      and not exists (select from rhythm.executions e left join rhythm.outcomes o on o.id = e.id
                      where e.parent_id = w.id and o.id is null)
      and position('"signal"'::bytea in s.awaiting) = 0
  union all
  select 'I1', w.id, 'has run ' || w.version || ' times but its snapshot is of ' || coalesce(s.version, 0)
    from rhythm.waits w left join rhythm.snapshots s on s.id = w.id
    where w.version > 0 and s.version is distinct from w.version
  union all
  select 'I2', d.id, 'has the outcome of child ' || d.child_id || ' delivered ' || count(*) || ' times'
    from rhythm.deliveries d where d.child_id is not null group by d.id, d.child_id having count(*) > 1
  union all
  select 'I2', d.id, 'has a delivery of child ' || d.child_id || ' that is not its child, or has no outcome'
    from rhythm.deliveries d left join rhythm.executions e on e.id = d.child_id and e.parent_id = d.id
    left join rhythm.outcomes o on o.id = d.child_id
    where d.child_id is not null and (e.id is null or o.id is null)
  union all
  select 'I2', e.parent_id, 'has several children for operation ' || e.operation
    from rhythm.executions e where e.parent_id is not null group by e.parent_id, e.operation having count(*) > 1
  union all
  select 'I2', w.id, 'counts deliveries up to ' || w.next_number - 1 || ' but holds others'
    from rhythm.waits w
    where (select count(*) from rhythm.deliveries d where d.id = w.id) <> w.next_number - 1 - w.seen_through
       or exists (select from rhythm.deliveries d
                  where d.id = w.id and (d.number <= w.seen_through or d.number >= w.next_number))
  union all
  select 'I3', o.id, 'has finished after ' || o.attempts || ' attempts, ' || o.lost || ' of them lost'
    from rhythm.outcomes o where o.attempts < 0 or o.lost < 0 or o.lost > o.attempts
  union all
  select 'I4', u.id, 'is held under claim ' || c.id || ' by an incarnation that is gone, for more than a minute'
    from rhythm.claims c, unnest(c.ids) u(id)
    where u.id is not null and c.started_at < rhythm.now() - interval '1 min'
      and not exists (select from rhythm.workers w where w.incarnation = c.incarnation)
      and (select m.last_at from rhythm.maintenance m) > c.started_at + interval '1 min'
  union all
  select 'I4', t.id, 'has left ' || t.what || ' behind'
    from (select d.id, 'deliveries' as what from rhythm.deliveries d
          union select s.id, 'a snapshot' from rhythm.snapshots s
          union select t.id, 'timers' from rhythm.timers t) t
    where not exists (select from rhythm.waits w where w.id = t.id)
      and (t.what = 'timers' or not exists (select from rhythm.outcomes o where o.id = t.id and o.status <> 1))
  union all
  select 'I4', l.id, 'has log lines ' || min(l.number) || ' to ' || max(l.number) || ', but ' || count(*)
      || ' of them, or was never started'
    from rhythm.logs l left join rhythm.executions e on e.id = l.id
    group by l.id having bool_or(e.id is null) or count(*) <> max(l.number) - min(l.number) + 1
  union all
  select 'I4', g.id, 'has told its progress, but was never started'
    from rhythm.progress g where not exists (select from rhythm.executions e where e.id = g.id)
  union all
  select 'I5', w.id, 'has ' || w.unread_signals || ' unread signals of ' || s.sent || ' sent'
    from rhythm.waits w
    left join (select s.execution_id, count(*) as sent from rhythm.signals s group by s.execution_id) s
      on s.execution_id = w.id
    where w.unread_signals < 0 or w.unread_signals > coalesce(s.sent, 0)
  union all
  select 'I5', w.id, 'has signals unread that it does not count'
    from rhythm.waits w
    where w.unread_signals < (select count(*) from rhythm.deliveries d
                              where d.id = w.id and d.kind = 4 and d.number > w.seen_through)
  union all
  select 'I6', d.id, 'has timer ' || d.operation || ' armed and fired'
    from rhythm.deliveries d join rhythm.timers t on t.id = d.id and t.operation = d.operation where d.kind = 3
  union all
  select 'I6', d.id, 'has timer ' || d.operation || ' fired twice'
    from rhythm.deliveries d where d.kind = 3 group by d.id, d.operation having count(*) > 1
  union all
  select 'I8', p.id, 'holds a place but stands in ' || coalesce(c.places, 'no place at all')
    from rhythm.places p left join counted c on c.id = p.id left join rhythm.waits w on w.id = p.id
    where c.places is null or not (c.places like 'claim%' or c.places = 'waits' or c.places = 'ready' and w.version > 0)
  union all
  select 'I8', p.id, 'holds a place in another queue, or for another limit key, than it has'
    from rhythm.places p join rhythm.executions e on e.id = p.id
    where (p.queue_id, p.limit_key) is distinct from (e.queue_id, coalesce(e.limit_key, ''))
  union all
  select 'I8', c.id, 'has begun in a queue with limits without a place'
    from counted c join rhythm.executions e on e.id = c.id join rhythm.gates g on g.queue_id = e.queue_id
    where (c.places like 'claim%' or c.places = 'waits') and not exists (select from rhythm.places p where p.id = c.id)
  union all
  select 'I8', c.id, 'stands in ' || c.places || ' for more than a minute after limits were set or removed'
    from counted c join rhythm.executions e on e.id = c.id join rhythm.queues q on q.id = e.queue_id
    where (c.places = 'ready' and q.limited and not exists (select from rhythm.places p where p.id = c.id)
        or c.places = 'gated' and not q.limited)
      and (select m.last_at from rhythm.maintenance m)
        > greatest(e.created_at, e.available_at, (select g.set_at from rhythm.gates g where g.queue_id = q.id)) + interval '1 min'
  union all
  select 'I8', null, 'queue ' || q.name || ' has let ' || p.count || ' pass that have not finished, of ' || g.concurrency
    from rhythm.gates g join rhythm.queues q on q.id = g.queue_id
    cross join lateral (
      select count(*) as count from rhythm.places p where p.queue_id = g.queue_id and p.since > g.set_at) p
    where p.count > g.concurrency
  union all
  select 'I8', null, 'queue ' || q.name || ' has let ' || p.count || ' of key ' || p.limit_key || ' pass that have not finished, of '
      || g.key_concurrency
    from rhythm.gates g join rhythm.queues q on q.id = g.queue_id
    cross join lateral (
      select p.limit_key, count(*) as count from rhythm.places p
        where p.queue_id = g.queue_id and p.since > g.set_at and p.limit_key <> '' group by p.limit_key) p
    where p.count > g.key_concurrency
  union all
  select 'I8', null, 'queue ' || q.name || ' has let more than ' || l.rate || ' pass within ' || l.seconds || ' s up to ' || p.at
    from rhythm.gates g join rhythm.queues q on q.id = g.queue_id
    join rhythm.passes p on p.queue_id = g.queue_id
    cross join lateral (
      select case p.limit_key when '' then g.rate else g.key_rate end as rate,
             case p.limit_key when '' then g.rate_seconds else g.key_rate_seconds end as seconds) l
    join rhythm.passes b on b.queue_id = p.queue_id and b.limit_key = p.limit_key and b.number = p.number - l.rate
    where b.at > p.at - make_interval(secs => l.seconds) and p.at > g.set_at and b.at > g.set_at
$$;
