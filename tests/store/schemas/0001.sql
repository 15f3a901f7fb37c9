-- 1: initial

-- The tables of Rhythm, all in schema rhythm.
--
-- An execution is one row in rhythm.executions, inserted once, and one place where it stands now:
--
--   ready      may be claimed                                                    status pending
--   later      its time has not come, or its name is not known yet               status pending
--   a claim    a worker incarnation runs it (member of rhythm.claims.ids)        status running
--   waits      a workflow at an await (suspended is true)                        status suspended
--   outcomes   it has finished                                                   completed, failed, cancelled
--
-- Every status change moves the row from one place to the next inside one function; nobody else writes here.
-- rhythm.find_breaches() checks that each execution stands in exactly one place.
--
-- What is scanned or deleted to claim work (ready, later, claims) holds ids and small columns only.
-- Payloads are bytea: one codec byte (1: ASCII JSON) and the data. Codes that reach the disk:
--
--   kind       0 not known yet   1 task   2 workflow
--   status     1 completed   2 failed   3 cancelled
--   reason     1 delayed   2 retry   3 unknown name             (later.reason)
--   delivery   1 completed   2 failed   3 timer   4 signal   5 cancel
--   wake mode  1 on_rejection   2 on_fulfilment   3 last        (no group: any)
--
-- Locks are taken in this order, and of each kind in the order given in brackets, so that no two functions wait for
-- each other: an incarnation's exchanges (advisory, to the end of the transaction); worker row; keys (name, key); claims (id); waits (id); outcomes (a parent's first); names (id); timers, later, ready; idle.
-- Rows of timers, later and ready that somebody else has locked are skipped, or waited for as the very last thing.

create schema rhythm;

-- The clock of everything: rhythm.now(). Only the owner of the schema may write here; tests freeze or move it.
create table rhythm.clock (
  one boolean primary key default true check (one),
  frozen_at timestamptz,                          -- the time it shows, when it stands still
  moved_by interval not null default '0'          -- added to the server's clock otherwise
);
insert into rhythm.clock default values;

create table rhythm.migrations (
  version integer primary key,
  name text not null,
  digest text not null,                           -- of the text that was applied
  applied_at timestamptz not null default clock_timestamp()
);

create table rhythm.queues (
  id integer generated always as identity primary key,
  name text not null unique check (length(name) between 1 and 200),
  paused boolean not null default false           -- nothing is claimed from it
);
insert into rhythm.queues (name) values ('default');

-- Names of tasks and workflows. A row of kind 0 stands for a name that was started before anybody said what it is;
-- resolved_id then names the row it turned out to be.
create table rhythm.names (
  id integer generated always as identity primary key,
  kind smallint not null check (kind in (0, 1, 2)),
  name text not null check (length(name) between 1 and 200),
  resolved_id integer references rhythm.names,
  registered_at timestamptz,                      -- tasks: last registration; null: nobody ever did
  seen_at timestamptz,                            -- tasks: when a live worker last knew it
  registered_by uuid,                             -- incarnation
  queue_id integer not null default 1 references rhythm.queues,
  retries integer not null default 0,
  retry jsonb,
  timeout_ms bigint not null default 0,           -- 0: none
  priority smallint not null default 0,
  input_schema jsonb,
  definition_id bigint,                           -- workflows: what new executions run
  unique (kind, name)
);

create table rhythm.definitions (
  id bigint generated always as identity primary key,
  name_id integer not null references rhythm.names,
  hash text not null,                             -- of the IR
  ir bytea not null,
  source text not null,
  source_hash text not null,
  published_at timestamptz not null,
  unique (name_id, hash)
);
alter table rhythm.names add foreign key (definition_id) references rhythm.definitions;

-- Inserted once. Columns from queue_id to timeout_ms are null only while the name is unknown: they are then filled in,
-- once, from its first registration.
create table rhythm.executions (
  id uuid primary key,
  seq bigint generated always as identity,        -- age: the order of claiming within a priority
  created_at timestamptz not null,
  name_id integer not null,
  queue_id integer,
  retries integer,
  timeout_ms bigint,                              -- of one attempt; 0: none
  operation integer,                              -- which operation of the parent it is
  priority smallint,
  parent_id uuid,
  root_id uuid,                                   -- null: itself
  definition_id bigint,                           -- workflows
  available_at timestamptz,                       -- when it was to be delayed at its start
  key text,
  retry jsonb,                                    -- null: the default policy
  tags jsonb,
  forgiven integer,                               -- reported failures before its last retry by hand: they count no more
  retry_id uuid,                                  -- of that retry, so that a repeated one does nothing
  inputs bytea not null
);
alter table rhythm.executions alter column inputs set storage external;
create index executions_parent on rhythm.executions (parent_id, operation) where parent_id is not null;
create index executions_tags on rhythm.executions using gin (tags jsonb_path_ops) where tags is not null;

-- name_id is 0 for every workflow: whoever runs workflows runs all of them, in every version. For tasks it is in the
-- key so that a claim never touches what its worker cannot run.
create table rhythm.ready (
  queue_id integer not null,
  name_id integer not null,
  priority_rank smallint not null,                -- minus the priority: smaller is claimed first
  lost smallint not null,                         -- claims that ended without a report
  seq bigint not null,
  attempts integer not null,                      -- claims so far
  size integer not null,                          -- bytes that a claim will carry, roughly
  id uuid not null,
  primary key (queue_id, name_id, priority_rank, seq)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
create index ready_suspects on rhythm.ready (queue_id, name_id, priority_rank, seq) where lost > 0;

create table rhythm.later (
  id uuid primary key,
  available_at timestamptz not null,              -- infinity while the name is unknown
  queue_id integer,
  name_id integer not null,                       -- as in ready, but of kind 0 for a name that is not known
  seq bigint not null,
  attempts integer not null,
  size integer not null,
  priority_rank smallint,
  lost smallint not null,
  reason smallint not null
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);
create index later_due on rhythm.later (available_at, id) where reason <> 3;
create index later_unknown on rhythm.later (name_id, seq) where reason = 3;

-- A claim is a batch (up to 500 members, split at most once) or a single execution. A member's token is
-- claim id * 512 + its position from 0; the position of a single's only member is 511.
create table rhythm.claims (
  id bigint generated always as identity primary key,
  incarnation uuid not null,
  started_at timestamptz not null,
  expires_at timestamptz,                         -- when maintenance looks for attempts past their timeout
  single boolean not null,
  ids uuid[] not null,                            -- null in place of a member whose attempt was expired
  attempts integer[] not null,                    -- this one included
  lost smallint[],                                -- null: all 0
  family boolean not null                         -- whether a member has a parent
);
alter table rhythm.claims alter column ids set storage external;
create index claims_incarnation on rhythm.claims (incarnation);
create index claims_expiry on rhythm.claims (expires_at) where expires_at is not null;

-- One row per unfinished workflow, from its start: the lock that deliveries and commits take, and what a wake-up needs.
create table rhythm.waits (
  id uuid primary key,
  version integer not null,                       -- commits so far; fences them
  next_number bigint not null,                    -- of the next delivery
  seen_through bigint not null,                   -- of the deliveries, the last one taken in; those above are unread
  outstanding integer not null,                   -- operations the snapshot waits for
  unread_signals integer not null,                -- signals not yet read by the program, snapshot included
  queue_id integer,                               -- this, priority and definition are null while the name is unknown
  size integer not null,                          -- of the snapshot, or the inputs
  seq bigint not null,
  definition_id bigint,
  priority_rank smallint,
  suspended boolean not null,
  started_at timestamptz,                         -- when its first activation was claimed; null: none has been committed
  -- combinators: parallel arrays
  wake_modes smallint[],
  wake_members int4multirange[],
  wake_remaining integer[]                        -- outcomes of the group that have not come yet
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- The last snapshot of each workflow, and beside it what people ask about.
create table rhythm.snapshots (
  id uuid primary key,
  version integer not null,
  line integer,
  taken_at timestamptz not null,
  kept_timers jsonb,                              -- after an uncatchable end, for a retry: operation to due_at
  function text,
  awaiting bytea not null,                        -- JSON list, codec byte in front
  snapshot bytea not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, toast_tuple_target = 4080);
alter table rhythm.snapshots alter column snapshot set storage external;
alter table rhythm.snapshots alter column awaiting set storage main;

create table rhythm.deliveries (
  id uuid not null,                               -- the workflow
  number bigint not null,
  kind smallint not null,
  operation integer,
  child_id uuid,                                  -- its outcome is the payload, unless one stands here
  name text,                                      -- of signals
  payload bytea,
  primary key (id, number)
) with (autovacuum_vacuum_scale_factor = 0.05);
alter table rhythm.deliveries alter column payload set storage external;

create table rhythm.timers (
  id uuid not null,                               -- the workflow
  operation integer not null,
  due_at timestamptz not null,
  primary key (id, operation)
) with (autovacuum_vacuum_scale_factor = 0.05);
create index timers_due on rhythm.timers (due_at);

-- Sends of signals, so that a repeated one does nothing.
create table rhythm.signals (
  execution_id uuid not null,
  send_id uuid not null,
  primary key (execution_id, send_id)
);
create index signals_send on rhythm.signals (send_id);

-- Cancel requests for what runs; gone with the execution's outcome.
create table rhythm.cancels (
  id uuid primary key,
  requested_at timestamptz not null,
  incarnation uuid                                -- which held it when it was ended by force
);
create index cancels_incarnation on rhythm.cancels (incarnation) where incarnation is not null;

-- First outcome wins: nothing overwrites one. Only a retry by hand takes a failed one away (functions/retry.sql).
create table rhythm.outcomes (
  id uuid primary key,
  started_at timestamptz,                         -- of the last attempt
  finished_at timestamptz not null,
  attempts integer not null,
  lost smallint not null,
  status smallint not null,
  unread_signals integer,                         -- workflows: signals that nobody read
  resume_version integer,                         -- workflows that ended uncatchably: where a retry resumes
  payload bytea not null
);
alter table rhythm.outcomes alter column payload set storage external;
create index outcomes_other on rhythm.outcomes (id) where status <> 1;
create index outcomes_finished on rhythm.outcomes using brin (finished_at);

-- The last failure of an execution that was, or will be, tried again: what people ask while it waits.
create table rhythm.failures (
  id uuid primary key,
  attempt integer not null,
  failed_at timestamptz not null,
  payload bytea not null
);

create table rhythm.keys (
  name_id integer not null,
  key text not null check (length(key) between 1 and 500),
  execution_id uuid not null,
  inputs_digest bytea not null,
  created_at timestamptz not null,
  primary key (name_id, key)
);

-- Live worker incarnations; a dead one has no row.
create table rhythm.workers (
  incarnation uuid primary key,
  seen_at timestamptz not null,
  started_at timestamptz not null,
  heartbeat_timeout_ms integer not null,
  pid integer not null,
  workflows boolean not null,
  host text not null,
  version text not null,
  queue_ids integer[] not null,
  name_ids integer[] not null,
  name_digests bigint[] not null default '{}',    -- of what it has registered for each name
  epoch integer not null default 0                -- exchanges of an earlier one were given up by the worker
) with (fillfactor = 50);

-- Incarnations that sleep until they are notified or their poll interval is over.
create table rhythm.idle (
  queue_id integer not null,
  incarnation uuid not null,
  primary key (queue_id, incarnation)
);
create index idle_incarnation on rhythm.idle (incarnation);

-- The one row whose lock elects who does the rarer maintenance.
create table rhythm.maintenance (
  one boolean primary key default true check (one),
  last_at timestamptz not null default '-infinity',
  retained_at timestamptz not null default '-infinity',  -- retention has last looked, and found nothing more
  pruned_at timestamptz not null default '-infinity'     -- keys whose time is over have last been looked for
);
insert into rhythm.maintenance default values;

-- Clock, ids, payloads, backoff.

-- The time by which everything is decided. Volatile; a function calls it once and keeps it. Raises nothing.
create or replace function rhythm.now() returns timestamptz
language sql volatile as $$
  select coalesce(c.frozen_at, clock_timestamp() + c.moved_by) from rhythm.clock c
$$;

-- A UUID of version 7 by the server's clock (PostgreSQL has its own from version 18 on). Raises nothing.
create or replace function rhythm.new_id() returns uuid
language sql volatile as $$
  select encode(
    set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
      substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1),
    'hex')::uuid
$$;

-- What a payload says, for people; null when it is stored in a form that SQL cannot read. Type json, not jsonb:
-- key order, U+0000 and lone surrogates stay as they are. Raises nothing.
create or replace function rhythm.as_json(p_payload bytea) returns json
language sql immutable as $$
  select case when get_byte(p_payload, 0) = 1 then convert_from(substring(p_payload from 2), 'UTF8')::json end
$$;

-- The payload of a JSON text: escaped to ASCII, codec byte in front. Raises nothing of its own.
create or replace function rhythm.as_payload(p_json text) returns bytea
language sql immutable as $$
  select '\x01'::bytea || convert_to(
    case when p_json !~ '[^\x01-\x7f]' then p_json else (
      select string_agg(
        case when ascii(c.letter) < 128 then c.letter
             when ascii(c.letter) < 65536 then '\u' || lpad(to_hex(ascii(c.letter)), 4, '0')
             else '\u' || to_hex(55296 + ((ascii(c.letter) - 65536) >> 10))
               || '\u' || to_hex(56320 + ((ascii(c.letter) - 65536) & 1023)) end, '' order by c.position)
      from regexp_split_to_table(p_json, '') with ordinality c(letter, position)) end, 'UTF8')
$$;

-- The retry policy of an execution: what it was given itself, the rest from its name's registration. Raises nothing.
create or replace function rhythm.merge_retry(p_registered jsonb, p_given jsonb) returns jsonb
language sql immutable as $$
  select case when p_given is null then p_registered when p_registered is null then p_given else p_registered || p_given end
$$;

-- Whether a retry policy (null: the default one) allows another attempt after one that ran into its timeout: errors are
-- named as in the worker, by their class and those it derives from. Raises nothing.
create or replace function rhythm.retries_timeouts(p_retry jsonb) returns boolean
language sql immutable as $$
  select case when p_retry is null then true
    when p_retry -> 'no_retry_on' ?| n.names then false
    when jsonb_array_length(p_retry -> 'retry_on') > 0 then p_retry -> 'retry_on' ?| n.names
    else true end
  from (select array['TaskTimeout', 'RhythmError', 'TimeoutError', 'OSError', 'Exception', 'BaseException'] as names) n
$$;

-- Seconds to wait before the next attempt after p_failures reported failures (from 1), by the policy p_retry
-- (null: first 1 s, doubled, at most 5 minutes, a fifth of it random). Raises nothing for policies that were checked.
create or replace function rhythm.backoff(p_retry jsonb, p_failures integer) returns double precision
language plpgsql volatile as $$
declare
  v_initial double precision := coalesce((p_retry ->> 'initial')::double precision, 1);
  v_factor double precision := coalesce((p_retry ->> 'factor')::double precision, 2);
  v_max double precision := coalesce((p_retry ->> 'max')::double precision, 300);
  v_jitter double precision := coalesce((p_retry ->> 'jitter')::double precision, 0.2);
  v_delay double precision := v_max;
begin
  -- compared as logarithms: the power itself may be out of range
  if v_initial <= 0 then
    v_delay := 0;
  elsif v_max > 0 and ln(v_initial) + (p_failures - 1) * ln(greatest(v_factor, 1)) < ln(v_max) then
    v_delay := v_initial * power(greatest(v_factor, 1), p_failures - 1);
  end if;
  return greatest(v_delay * (1 + v_jitter * (2 * random() - 1)), 0);
end $$;

-- p_from plus seconds (null: null), as far as dates reach: a sleep of a million years does not end, and is no error.
-- Raises nothing.
create or replace function rhythm.time_after(p_from timestamptz, p_seconds double precision) returns timestamptz
language sql immutable as $$
  select p_from + make_interval(secs => case when p_seconds < -1e9 then -1e9 when p_seconds > 1e11 then 1e11 else p_seconds end)
$$;

-- Names of tasks and workflows, queues.

-- The ids of queues by name, in order; unknown ones are made. Raises 23514 for a name that cannot be one.
create or replace function rhythm.resolve_queues(p_names text[]) returns integer[]
language plpgsql as $$
declare
  v_ids integer[];
begin
  for v_turn in 1 .. 2 loop
    select array_agg(q.id order by u.position) into v_ids
      from unnest(p_names) with ordinality u(name, position) left join rhythm.queues q on q.name = u.name;
    exit when array_position(v_ids, null) is null;
    insert into rhythm.queues (name) select distinct u.name from unnest(p_names) u(name) order by u.name
      on conflict do nothing;
  end loop;
  return v_ids;
end $$;

-- The ids of names, in order. Kind 0 means "whichever it is": the workflow of that name if one was published, else the
-- task if one was registered, else a row that stands for the name until then. Rows of names that nobody has published
-- or registered are locked against that until the transaction ends, so that what is parked under them is found.
-- Raises 23514 for a name that cannot be one.
create or replace function rhythm.resolve_names(p_kinds smallint[], p_names text[]) returns integer[]
language plpgsql as $$
declare
  v_ids integer[];
  v_unknown integer;
begin
  for v_turn in 1 .. 3 loop
    select array_agg(coalesce(r.id, n.id) order by u.position),
           count(*) filter (where coalesce(r.registered_at, n.registered_at) is null
                              and coalesce(r.definition_id, n.definition_id) is null)
      into v_ids, v_unknown
      from unnest(p_kinds, p_names) with ordinality u(kind, name, position)
      left join rhythm.names n on n.kind = u.kind and n.name = u.name
      left join rhythm.names r on r.id = n.resolved_id;
    exit when v_unknown = 0;
    if array_position(v_ids, null) is not null then
      insert into rhythm.names (kind, name)
        select distinct u.kind, u.name from unnest(p_kinds, p_names) u(kind, name) order by 1, 2 on conflict do nothing;
    else
      exit when v_turn = 3;
      perform 1 from rhythm.names n where n.id = any(v_ids) and n.registered_at is null and n.definition_id is null
        order by n.id for share;
    end if;
  end loop;
  return v_ids;
end $$;

-- Starting executions.

-- Inserts executions and puts each where it belongs: ready, later (delayed, or its name is unknown), and waits beside
-- that for workflows. All arrays are parallel to p_ids; null instead of an array means null for every row. Names and
-- queues are given as positions (from 1) in p_names and p_queues, which hold ids. Ids that exist already are left alone.
-- What may turn out to be a workflow has its row in waits from the start, so that signals can reach it.
-- Returns the ids inserted, and the queues in which something became claimable. Internal. Raises nothing of its own.
create or replace function rhythm.insert_executions(
  p_now timestamptz, p_ids uuid[], p_inputs bytea[], p_name integer[], p_names integer[],
  p_queue integer[], p_queues integer[], p_priorities integer[], p_available timestamptz[], p_delays double precision[],
  p_keys text[], p_retries integer[], p_retry text[], p_timeouts bigint[], p_tags text[], p_definitions bigint[],
  p_parents uuid[], p_operations integer[], p_roots uuid[],
  out o_inserted uuid[], out o_queues integer[])
language plpgsql as $$
declare
  v_rows integer[];
begin
  -- `on conflict do nothing` costs a sixth of a start, so it is not used: an id that exists is rare, and then the rows
  -- are inserted again without it. Another one may appear in between, hence the loop.
  for v_turn in 1 .. 100 loop
    begin
      select i.o_inserted, i.o_queues into o_inserted, o_queues
        from rhythm.insert_rows(p_now, v_rows, p_ids, p_inputs, p_name, p_names, p_queue, p_queues, p_priorities, p_available,
          p_delays, p_keys, p_retries, p_retry, p_timeouts, p_tags, p_definitions, p_parents, p_operations, p_roots) i;
      return;
    exception when unique_violation then
      v_rows := array(
        select min(u.row)::integer from unnest(p_ids) with ordinality u(id, row)
          where not exists (select from rhythm.executions e where e.id = u.id) group by u.id order by 1);
    end;
  end loop;
  raise exception 'rows of executions that do not exist' using errcode = 'XX000';
end $$;

-- The rows of insert_executions at the given positions (null: all), none of which exists. Internal. Raises 23505 if one
-- does.
create or replace function rhythm.insert_rows(
  p_now timestamptz, p_rows integer[], p_ids uuid[], p_inputs bytea[], p_name integer[], p_names integer[],
  p_queue integer[], p_queues integer[], p_priorities integer[], p_available timestamptz[], p_delays double precision[],
  p_keys text[], p_retries integer[], p_retry text[], p_timeouts bigint[], p_tags text[], p_definitions bigint[],
  p_parents uuid[], p_operations integer[], p_roots uuid[],
  out o_inserted uuid[], out o_queues integer[])
language plpgsql as $$
declare
  v_queue_ids integer[];
  v_retries integer[];
  v_retry jsonb[];
  v_timeouts bigint[];
  v_priorities smallint[];
  v_definitions bigint[];
  v_known boolean[];
  v_unknown integer[];
  v_workflows integer[];
begin
  select array_agg(n.queue_id order by u.position), array_agg(n.retries order by u.position),
         array_agg(n.retry order by u.position), array_agg(n.timeout_ms order by u.position),
         array_agg(n.priority order by u.position), array_agg(n.definition_id order by u.position),
         array_agg(n.registered_at is not null or n.definition_id is not null order by u.position),
         coalesce(array_agg(n.id) filter (where n.registered_at is null and n.definition_id is null), '{}'),
         coalesce(array_agg(n.id) filter (where n.kind <> 1), '{}')
    into v_queue_ids, v_retries, v_retry, v_timeouts, v_priorities, v_definitions, v_known, v_unknown, v_workflows
    from unnest(p_names) with ordinality u(id, position) join rhythm.names n on n.id = u.id;

  with fresh as (
    insert into rhythm.executions as e (id, created_at, name_id, queue_id, retries, timeout_ms, operation, priority,
      parent_id, root_id, definition_id, available_at, key, retry, tags, inputs)
    select u.id, p_now, p_names[u.name],
      coalesce(p_queues[u.queue], case when v_known[u.name] then v_queue_ids[u.name] end),
      coalesce(u.retries, case when v_known[u.name] then v_retries[u.name] end),
      coalesce(u.timeout_ms, case when v_known[u.name] then v_timeouts[u.name] end),
      u.operation,
      coalesce(u.priority::smallint, case when v_known[u.name] then v_priorities[u.name] end),
      u.parent_id, u.root_id,
      coalesce(u.definition_id, v_definitions[u.name]),
      case when u.delay > 0 then rhythm.time_after(p_now, u.delay) when u.available_at > p_now then u.available_at end,
      u.key, rhythm.merge_retry(v_retry[u.name], u.retry::jsonb), u.tags::jsonb, u.inputs
    from unnest(p_ids, p_inputs, p_name, p_queue, p_priorities, p_available, p_delays, p_keys, p_retries, p_retry,
                p_timeouts, p_tags, p_definitions, p_parents, p_operations, p_roots) with ordinality
      u(id, inputs, name, queue, priority, available_at, delay, key, retries, retry,
        timeout_ms, tags, definition_id, parent_id, operation, root_id, row)
    where p_rows is null or u.row = any(p_rows)
    returning e.id, e.seq, e.name_id, e.queue_id, e.priority, e.available_at, e.definition_id,
      octet_length(e.inputs) as size,
      e.name_id = any(v_unknown) as unknown, e.name_id = any(v_workflows) as workflow),
  now_ready as (
    insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, attempts, size, id)
    select f.queue_id, case when f.workflow then 0 else f.name_id end, -f.priority, 0, f.seq, 0, f.size, f.id
      from fresh f where f.available_at is null and not f.unknown),
  not_yet as (
    insert into rhythm.later (id, available_at, queue_id, name_id, seq, attempts, size, priority_rank, lost, reason)
    select f.id, case when f.unknown then 'infinity' else f.available_at end, f.queue_id,
           case when f.workflow and not f.unknown then 0 else f.name_id end, f.seq, 0, f.size, -f.priority, 0,
           case when f.unknown then 3 else 1 end
      from fresh f where f.available_at is not null or f.unknown),
  lock_rows as (
    insert into rhythm.waits (id, version, next_number, seen_through, outstanding, unread_signals, queue_id, size, seq,
      definition_id, priority_rank, suspended)
    select f.id, 0, 1, 0, 0, 0, f.queue_id, f.size, f.seq, f.definition_id, -f.priority, false
      from fresh f where f.workflow)
  select array_agg(f.id), array_agg(distinct f.queue_id) filter (where f.available_at is null and not f.unknown)
    into o_inserted, o_queues from fresh f;
end $$;

-- Starts executions. Rows are parallel arrays as in insert_executions; names come as distinct (kind, name) pairs (kind
-- 0: whichever is known by that name), queues as distinct names, and each row points into them from 1.
-- Key policies: 1 return, 2 reject, 3 replace, 4 after_failure.
-- Returns, row by row, the id of the execution that stands for it and what became of it: 1 started, 2 existing (same id
-- or key), 3 started in place of a pending one, 4 refused: key in use with other inputs, 5 refused: key in use.
-- A name that nobody knows is accepted; the execution waits until somebody does.
-- A row with a send id brings a signal for the execution that stands for it, in the same transaction; with a key (whose
-- policy must be 1) that is the one that runs under it, or a new one when that has finished.
-- Raises RH001 for a definition that is not there, 23514 for names and keys that cannot be one, and what signal raises.
create or replace function rhythm.start_many(
  p_ids uuid[], p_inputs bytea[], p_name integer[], p_kinds smallint[], p_names text[],
  p_queue integer[] default null, p_queues text[] default null, p_priorities integer[] default null,
  p_available timestamptz[] default null, p_delays double precision[] default null, p_keys text[] default null,
  p_policies smallint[] default null, p_retries integer[] default null, p_retry text[] default null,
  p_timeouts bigint[] default null, p_tags text[] default null, p_hashes text[] default null,
  p_signals text[] default null, p_signal_payloads bytea[] default null, p_sends uuid[] default null,
  out o_ids uuid[], out o_statuses smallint[])
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_names integer[] := rhythm.resolve_names(p_kinds, p_names);
  v_queues integer[];
  v_definitions bigint[];
  v_inserted uuid[];
  v_ready integer[];
  v_signal record;
begin
  if p_queues is not null then
    v_queues := rhythm.resolve_queues(p_queues);
  end if;
  if p_hashes is not null then
    select array_agg(d.id order by u.position) into v_definitions
      from unnest(p_name, p_hashes) with ordinality u(name, hash, position)
      left join rhythm.definitions d on d.name_id = v_names[u.name] and d.hash = u.hash;
    if exists (select from unnest(p_hashes, v_definitions) u(hash, id) where u.hash is not null and u.id is null) then
      raise exception 'no such definition of this workflow' using errcode = 'RH001', detail = 'unknown_definition';
    end if;
  end if;
  o_ids := p_ids;
  o_statuses := array_fill(1::smallint, array[cardinality(p_ids)]);
  if p_keys is not null then
    select k.o_ids, k.o_statuses into o_ids, o_statuses
      from rhythm.take_keys(v_now, p_ids, p_inputs, p_name, v_names, p_keys, p_policies, p_sends) k;
  end if;

  if p_keys is null or not exists (select from unnest(o_statuses) u(status) where u.status not in (1, 3)) then
    select i.o_inserted, i.o_queues into v_inserted, v_ready
      from rhythm.insert_executions(v_now, p_ids, p_inputs, p_name, v_names, p_queue, v_queues, p_priorities, p_available,
        p_delays, p_keys, p_retries, p_retry, p_timeouts, p_tags, v_definitions, null, null, null) i;
  else
    select i.o_inserted, i.o_queues into v_inserted, v_ready
      from (select array_agg(u.id) as ids, array_agg(u.inputs) as inputs, array_agg(u.name) as name,
              array_agg(u.queue) as queue, array_agg(u.priority) as priorities, array_agg(u.available) as available,
              array_agg(u.delay) as delays, array_agg(u.key) as keys, array_agg(u.retries) as retries,
              array_agg(u.retry) as retry, array_agg(u.timeout) as timeouts, array_agg(u.tags) as tags,
              array_agg(u.definition) as definitions
            from unnest(p_ids, p_inputs, p_name, p_queue, p_priorities, p_available, p_delays, p_keys, p_retries, p_retry,
                        p_timeouts, p_tags, v_definitions, o_statuses)
              u(id, inputs, name, queue, priority, available, delay, key, retries, retry,
                timeout, tags, definition, status)
            where u.status in (1, 3)) t,
        lateral rhythm.insert_executions(v_now, t.ids, t.inputs, t.name, v_names, t.queue, v_queues, t.priorities,
          t.available, t.delays, t.keys, t.retries, t.retry, t.timeouts, t.tags, t.definitions, null, null, null) i
      where t.ids is not null;
  end if;
  if coalesce(cardinality(v_inserted), 0) < cardinality(p_ids) then
    select array_agg(case when u.status in (1, 3) and u.id <> all(coalesce(v_inserted, '{}')) then 2 else u.status end
                     order by u.position)
      into o_statuses from unnest(o_ids, o_statuses) with ordinality u(id, status, position);
  end if;
  perform rhythm.notify_idle(v_ready);
  if p_sends is not null then
    for v_signal in
      select u.id, u.name, u.payload, u.send from unnest(o_ids, o_statuses, p_signals, p_signal_payloads, p_sends)
        with ordinality u(id, status, name, payload, send, position)
        where u.send is not null and u.status <= 3 order by u.id, u.position
    loop
      perform rhythm.signal(v_signal.id, v_signal.name, v_signal.payload, v_signal.send);
    end loop;
  end if;
end $$;

-- Claims idempotency keys for rows about to be inserted, and applies their policies. Rows without a key pass through.
-- Keys are taken in the order of (name, key); who comes second waits for the first one's transaction and then sees it.
-- A row that brings a signal is for whoever runs under the key now: what has finished does not hold its key against it,
-- unless this very send was for that.
-- Returns ids and statuses as start_many does; rows of status 1 and 3 are to be inserted. Internal.
create or replace function rhythm.take_keys(
  p_now timestamptz, p_ids uuid[], p_inputs bytea[], p_name integer[], p_names integer[], p_keys text[],
  p_policies smallint[], p_sends uuid[], out o_ids uuid[], out o_statuses smallint[])
language plpgsql as $$
declare
  v_won uuid[];
  v_holders uuid[] := '{}';
  v_holder uuid;
  v_status smallint;
  v_row record;
begin
  o_ids := p_ids;
  o_statuses := array_fill(1::smallint, array[cardinality(p_ids)]);
  with taken as (
    insert into rhythm.keys (name_id, key, execution_id, inputs_digest, created_at)
    select p_names[u.name], u.key, u.id, sha256(u.inputs), p_now
      from unnest(p_ids, p_inputs, p_name, p_keys) u(id, inputs, name, key)
      where u.key is not null order by p_names[u.name], u.key
    on conflict do nothing returning execution_id)
  select coalesce(array_agg(t.execution_id), '{}') into v_won from taken t;
  if cardinality(v_won) = (select count(*) from unnest(p_keys) u(key) where u.key is not null) then
    return;
  end if;

  for v_row in
    select u.id, u.inputs, u.key, p_names[u.name] as name_id, u.policy, u.send
      from unnest(p_ids, p_inputs, p_name, p_keys, p_policies, p_sends) with ordinality
        u(id, inputs, name, key, policy, send, position)
      where u.key is not null and u.id <> all(v_won) order by p_names[u.name], u.key, u.position
  loop
    for v_turn in 1 .. 100 loop  -- the key may have been let go meanwhile
      select k.execution_id into v_holder from rhythm.keys k
        where k.name_id = v_row.name_id and k.key = v_row.key for update;
      exit when found;
      insert into rhythm.keys (name_id, key, execution_id, inputs_digest, created_at)
        values (v_row.name_id, v_row.key, v_row.id, sha256(v_row.inputs), p_now) on conflict do nothing;
      if found then
        v_won := v_won || v_row.id;
        exit;
      end if;
    end loop;
    if v_row.policy = 3 or v_row.send is not null then
      v_holders := v_holders || v_holder;
    end if;
  end loop;
  perform rhythm.lock_workflows(v_holders);

  for v_row in
    select u.position, u.id, u.key, p_names[u.name] as name_id, sha256(u.inputs) as digest, coalesce(u.policy, 1) as policy,
           u.send
      from unnest(p_ids, p_inputs, p_name, p_keys, p_policies, p_sends) with ordinality
        u(id, inputs, name, key, policy, send, position)
      where u.key is not null and u.id <> all(v_won) order by p_names[u.name], u.key, u.position
  loop
    select k.o_id, k.o_status into v_holder, v_status
      from rhythm.decide_key(p_now, p_ids, v_row.id, v_row.name_id, v_row.key, v_row.digest, v_row.policy, v_row.send) k;
    o_ids[v_row.position::integer] := v_holder;
    o_statuses[v_row.position::integer] := v_status;
  end loop;
end $$;

-- Decides one start whose key was taken already, by its policy, and moves the key if that says so. The caller has locked
-- the key, and the row in waits of its holder; p_batch are the ids of this call, which are not inserted yet.
-- Returns what take_keys does. Internal. Raises nothing.
create or replace function rhythm.decide_key(
  p_now timestamptz, p_batch uuid[], p_id uuid, p_name integer, p_key text, p_digest bytea, p_policy integer, p_send uuid,
  out o_id uuid, out o_status smallint)
language plpgsql as $$
declare
  v_held rhythm.keys;
  v_outcome smallint;
begin
  o_id := p_id;
  select k.* into v_held from rhythm.keys k where k.name_id = p_name and k.key = p_key;
  -- the second: repeated after the key has gone to another one; it happened then, and must not happen again
  if v_held.execution_id = p_id or exists (select from rhythm.executions e where e.id = p_id) then
    o_status := 2;
    return;
  end if;
  if p_send is not null then
    select s.execution_id into o_id from rhythm.signals s where s.send_id = p_send limit 1;
    if found then
      o_status := 2;
      return;
    end if;
    o_id := p_id;
  end if;
  select o.status into v_outcome from rhythm.outcomes o where o.id = v_held.execution_id;
  o_status := case
    when p_send is not null and v_held.execution_id <> all(p_batch) and (v_outcome is not null
      or not exists (select from rhythm.executions e where e.id = v_held.execution_id)) then 1
    when p_policy = 3 and rhythm.replace_pending(p_now, v_held.execution_id) then 3
    when v_held.inputs_digest <> p_digest then 4
    when p_policy = 2 then 5
    when p_policy = 4 and v_outcome <> 1 then 1
    else 2 end;
  if o_status in (1, 3) then
    update rhythm.keys k set execution_id = p_id, inputs_digest = p_digest, created_at = p_now
      where k.name_id = p_name and k.key = p_key;
  else
    o_id := v_held.execution_id;
  end if;
end $$;

-- Ends as cancelled a pending execution that another one takes the place of. Returns whether it was pending. Internal;
-- the caller has locked its row in waits. Raises nothing.
create or replace function rhythm.replace_pending(p_now timestamptz, p_id uuid) returns boolean
language plpgsql as $$
declare
  v_ids uuid[];
  v_attempts integer[];
  v_lost integer[];
begin
  select r.o_ids, r.o_attempts, r.o_lost into v_ids, v_attempts, v_lost from rhythm.remove_pending(array[p_id]) r;
  if v_ids is null then
    return false;
  end if;
  perform rhythm.end_cancelled(p_now, v_ids, v_attempts, v_lost, null, 'replaced by a later start');
  return true;
end $$;

-- Starts one execution from plain SQL, within the caller's transaction, and returns its id. Inputs are a JSON object.
-- With p_signal it also sends that: to the execution that runs under the key, or else to the one it starts.
-- Raises RH001 when the key is in use with other inputs, and what start_many raises.
create or replace function rhythm.start(
  p_name text, p_inputs json default '{}', p_key text default null, p_queue text default null,
  p_priority integer default null, p_delay interval default null, p_id uuid default null,
  p_signal text default null, p_signal_payload json default 'null', p_send_id uuid default rhythm.new_id())
returns uuid language plpgsql as $$
declare
  v_ids uuid[];
  v_statuses smallint[];
begin
  if json_typeof(p_inputs) <> 'object' then
    raise exception 'inputs must be a JSON object' using errcode = 'RH001', detail = 'invalid_inputs';
  end if;
  if p_priority not between -100 and 100 then
    raise exception 'priority must be from -100 to 100' using errcode = 'RH001', detail = 'invalid_priority';
  end if;
  if p_signal is not null then
    perform rhythm.check_signal(p_signal, p_signal_payload, p_send_id);
  end if;
  select s.o_ids, s.o_statuses into v_ids, v_statuses from rhythm.start_many(
    array[coalesce(p_id, rhythm.new_id())], array[rhythm.as_payload(p_inputs::text)], array[1], array[0::smallint],
    array[p_name],
    case when p_queue is not null then array[1] end, case when p_queue is not null then array[p_queue] end,
    case when p_priority is not null then array[p_priority] end, null,
    case when p_delay is not null then array[extract(epoch from p_delay)::double precision] end,
    case when p_key is not null then array[p_key] end,
    p_signals => case when p_signal is not null then array[p_signal] end,
    p_signal_payloads => case when p_signal is not null then array[rhythm.as_payload(p_signal_payload::text)] end,
    p_sends => case when p_signal is not null then array[p_send_id] end) s;
  if v_statuses[1] > 3 then
    raise exception 'the key is in use with other inputs' using errcode = 'RH001', detail = 'key_conflict';
  end if;
  return v_ids[1];
end $$;

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
    insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, attempts, size, id)
    select b.queue_id, 0, b.priority_rank, 0, b.seq, 0, b.claim_size, b.id from before b where b.woken)
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
-- a note of their timers stay for a retry. Internal; the caller has locked their rows. Raises nothing.
create or replace function rhythm.forget_workflows(p_ids uuid[], p_keep uuid[] default '{}') returns void
language plpgsql as $$
begin
  if p_keep <> '{}' then
    perform rhythm.keep_timers(p_keep);
  end if;
  delete from rhythm.timers t where t.id = any(p_ids);
  delete from rhythm.deliveries d where d.id = any(p_ids) and d.id <> all(p_keep);
  delete from rhythm.snapshots s where s.id = any(p_ids) and s.id <> all(p_keep);
  delete from rhythm.waits w where w.id = any(p_ids);
end $$;

-- Tells sleeping workers that something became claimable in these queues: at most two more of them than queues, picked
-- at random, so that one dead sleeper does not swallow the hint and not everybody comes running. A hint only.
-- Returns nothing. Internal. Raises nothing.
create or replace function rhythm.notify_idle(p_queues integer[]) returns void
language plpgsql as $$
declare
  v_targets text;
begin
  if p_queues is null or not exists (select from rhythm.idle) then
    return;
  end if;
  select string_agg(distinct s.incarnation::text, ',') into v_targets
    from (select i.incarnation from rhythm.idle i where i.queue_id = any(p_queues)
          order by random() limit 1 + cardinality(p_queues)) s;
  if v_targets is not null then
    perform pg_notify('rhythm', v_targets);
  end if;
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

-- How attempts end.

-- Makes executions claimable, with the given counts of claims and losses. Internal: the caller has taken them from where
-- they were. Returns the queues concerned. Raises nothing.
create or replace function rhythm.make_ready(p_ids uuid[], p_attempts integer[], p_lost integer[]) returns integer[]
language plpgsql as $$
declare
  v_queues integer[];
begin
  with moved as (
    insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, attempts, size, id)
    select e.queue_id, case when e.definition_id is null then e.name_id else 0 end, -e.priority, coalesce(u.lost, 0), e.seq,
           u.attempts, coalesce(w.size, octet_length(e.inputs)), e.id
      from unnest(p_ids, p_attempts, p_lost) u(id, attempts, lost)
      cross join lateral (select * from rhythm.executions e where e.id = u.id offset 0) e
      left join lateral (select w.size from rhythm.waits w where w.id = u.id offset 0) w on true
    returning queue_id)
  select array_agg(distinct m.queue_id) into v_queues from moved m;
  return v_queues;
end $$;

-- Makes executions claimable again whose attempts have come to nothing, but ends those as cancelled that somebody has asked
-- to cancel (p_why as in end_cancelled). The caller has deleted their claims, and locked their rows in waits and those of
-- their parents. Returns the queues in which something became claimable. Internal. Raises nothing.
create or replace function rhythm.take_back(
  p_now timestamptz, p_ids uuid[], p_attempts integer[], p_lost integer[], p_why text) returns integer[]
language plpgsql as $$
declare
  v_ends boolean[];
  v_queues integer[];
begin
  if not exists (select from rhythm.cancels) then
    return rhythm.make_ready(p_ids, p_attempts, p_lost);
  end if;
  v_ends := array(select rhythm.ends_when_cancelled(u.id) from unnest(p_ids) with ordinality u(id, position) order by u.position);
  v_queues := rhythm.make_ready(
    array(select u.id from unnest(p_ids, v_ends) u(id, ends) where not u.ends),
    array(select u.attempts from unnest(p_attempts, v_ends) u(attempts, ends) where not u.ends),
    array(select u.lost from unnest(p_lost, v_ends) u(lost, ends) where not u.ends));
  if true = any(v_ends) then
    v_queues := v_queues || rhythm.end_cancelled(p_now,
      array(select u.id from unnest(p_ids, v_ends) u(id, ends) where u.ends),
      array(select u.attempts from unnest(p_attempts, v_ends) u(attempts, ends) where u.ends),
      array(select u.lost from unnest(p_lost, v_ends) u(lost, ends) where u.ends), null, p_why);
  end if;
  return v_queues;
end $$;

-- Settles ended attempts of tasks whose claims the caller has deleted, and whose parents it has locked.
-- Parallel arrays. p_actions: 1 completed, 2 failed (may be retried), 3 cancelled, 4 failed for good.
-- A failure is followed by another attempt while the reported failures (attempts minus lost, since the last retry by hand)
-- do not exceed its retries and nobody has asked to cancel it. Outcomes of children are delivered to their parents, except to p_continued.
-- Returns the queues in which something became claimable. Internal. Raises nothing.
create or replace function rhythm.settle(
  p_now timestamptz, p_ids uuid[], p_actions smallint[], p_payloads bytea[], p_attempts integer[], p_lost integer[],
  p_started timestamptz[], p_parents uuid[], p_operations integer[], p_retry_after double precision[],
  p_continued uuid[] default '{}') returns integer[]
language plpgsql as $$
declare
  v_retried uuid[] := '{}';
  v_again uuid[];
  v_again_attempts integer[];
  v_again_lost integer[];
  v_queues integer[];
  v_ids uuid[];
  v_kinds smallint[];
  v_operations integer[];
  v_children uuid[];
  v_sizes integer[];
begin
  if 2 = any(p_actions) then
    with wanted as materialized (
      select u.id, u.attempts, u.lost, e.queue_id, e.name_id, e.seq, e.priority, octet_length(e.inputs) as size, u.payload,
             rhythm.time_after(p_now, greatest(coalesce(u.after,
               rhythm.backoff(e.retry, u.attempts - u.lost - coalesce(e.forgiven, 0))), 0)) as at
        from unnest(p_ids, p_actions, p_payloads, p_attempts, p_lost, p_retry_after)
          u(id, action, payload, attempts, lost, after)
        cross join lateral (select * from rhythm.executions e where e.id = u.id offset 0) e
        where u.action = 2 and u.attempts - u.lost - coalesce(e.forgiven, 0) <= e.retries
          and not exists (select from rhythm.cancels c where c.id = u.id)),
    delayed as (
      insert into rhythm.later (id, available_at, queue_id, name_id, seq, attempts, size, priority_rank, lost, reason)
      select w.id, w.at, w.queue_id, w.name_id, w.seq, w.attempts, w.size, -w.priority, w.lost, 2
        from wanted w where w.at > p_now),
    noted as (
      insert into rhythm.failures (id, attempt, failed_at, payload)
      select w.id, w.attempts, p_now, w.payload from wanted w
      on conflict (id) do update set attempt = excluded.attempt, failed_at = excluded.failed_at, payload = excluded.payload)
    select coalesce(array_agg(w.id), '{}'), array_agg(w.id) filter (where w.at <= p_now),
           array_agg(w.attempts) filter (where w.at <= p_now), array_agg(w.lost) filter (where w.at <= p_now)
      into v_retried, v_again, v_again_attempts, v_again_lost from wanted w;
    if v_again is not null then
      v_queues := rhythm.make_ready(v_again, v_again_attempts, v_again_lost);
    end if;
  end if;

  insert into rhythm.outcomes (id, started_at, finished_at, attempts, lost, status, payload)
    select u.id, u.started_at, p_now, u.attempts, u.lost, least(u.action, 2) + (u.action = 3)::integer, u.payload
      from unnest(p_ids, p_actions, p_payloads, p_attempts, p_lost, p_started)
        u(id, action, payload, attempts, lost, started_at)
      where u.id <> all(v_retried)
    on conflict (id) do nothing;

  select array_agg(u.parent order by u.position), array_agg(case when u.action = 1 then 1 else 2 end::smallint order by u.position),
         array_agg(u.operation order by u.position), array_agg(u.id order by u.position),
         array_agg(octet_length(u.payload) order by u.position)
    into v_ids, v_kinds, v_operations, v_children, v_sizes
    from unnest(p_ids, p_actions, p_payloads, p_parents, p_operations) with ordinality
      u(id, action, payload, parent, operation, position)
    where u.parent is not null and u.id <> all(v_retried) and u.id <> all(p_continued);
  if v_ids is not null then
    v_queues := v_queues || rhythm.deliver(v_ids, v_kinds, v_operations, v_children, null, null, v_sizes);
  end if;
  return v_queues;
end $$;

-- Completes a task inside the transaction that its own writes were made in, so that all of it is committed or nothing. To
-- be called last: from here on the transaction holds locks that others wait for, and PostgreSQL ends it when it then lies
-- idle for 10 s. The claim must be a single one, and the transaction the one in which rhythm.execution was set to the
-- task's id (set_config, local): what the task has committed by itself could not be undone.
-- Returns nothing. Raises RH002 when the claim is not held any more, 25000 for another transaction.
create or replace function rhythm.complete(p_incarnation uuid, p_claim bigint, p_id uuid, p_payload bytea) returns void
language plpgsql as $$
declare
  v_claim rhythm.claims;
  v_parent uuid;
  v_operation integer;
begin
  if current_setting('rhythm.execution', true) is distinct from p_id::text then
    raise exception 'the transaction of task % was ended by the task itself', p_id using errcode = '25000';
  end if;
  delete from rhythm.claims c
    where c.id = p_claim and c.single and c.incarnation = p_incarnation and c.ids[1] = p_id returning * into v_claim;
  if not found then
    raise exception 'claim % is not held any more', p_claim using errcode = 'RH002';
  end if;
  select e.parent_id, e.operation into v_parent, v_operation from rhythm.executions e where e.id = p_id;
  perform rhythm.lock_workflows(array[v_parent]);
  perform rhythm.notify_idle(rhythm.settle(rhythm.now(), array[p_id], array[1::smallint], array[p_payload],
    v_claim.attempts, array[coalesce(v_claim.lost[1], 0)::integer], array[v_claim.started_at], array[v_parent],
    array[v_operation], null));
  perform set_config('idle_in_transaction_session_timeout', '10s', true);
end $$;

-- Commits of workflow activations.

-- Applies the results of activations: what each starts, arms, drops and cancels, its snapshot or outcome, all or nothing
-- per workflow. The caller has verified the claims and locked the workflows, their parents and what they cancel.
-- Parallel arrays per commit; the arrays of children, timers, drops and cancels point into them from 1. The groups of
-- commit i stand from p_group_first[i] to before p_group_first[i + 1] (null: there are none).
-- p_statuses is null for a workflow that goes on (then the snapshot is set), else how it ended.
-- A commit that p_take does not admit, or whose version is not the workflow's, is refused. Afterwards a workflow with unread deliveries that its wake
-- groups say must wake is claimable again; otherwise it is suspended.
-- Returns which commits were taken, and the queues in which something became claimable. Internal. Raises nothing of its
-- own.
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
  p_group_first integer[], p_group_modes smallint[], p_group_members text[], p_group_counts integer[],
  p_cancel_commit integer[], p_cancel_ids uuid[],
  out o_taken boolean[], out o_queues integer[])
language plpgsql as $$
declare
  v_parents uuid[];
  v_operations integer[];
  v_roots uuid[];
  v_ended uuid[];
  v_kept uuid[];
  v_woken uuid[];
  v_more integer[];
begin
  select array_agg(w.id is not null order by u.position), array_agg(e.parent_id order by u.position),
         array_agg(e.operation order by u.position), array_agg(coalesce(e.root_id, e.id) order by u.position)
    into o_taken, v_parents, v_operations, v_roots
    from unnest(p_ids, p_versions, p_take) with ordinality u(id, version, take, position)
    left join lateral (
      select w.id from rhythm.waits w where w.id = u.id and w.version = u.version offset 0) w on u.take
    left join lateral (
      select e.id, e.parent_id, e.operation, e.root_id from rhythm.executions e where e.id = u.id offset 0) e on true;

  if p_timer_commit is not null then
    insert into rhythm.timers (id, operation, due_at)
      select p_ids[u.commit], u.operation,
             coalesce(rhythm.time_after(p_now, u.delay), rhythm.time_after('epoch', u.due))
        from unnest(p_timer_commit, p_timer_operations, p_timer_delays, p_timer_due) u(commit, operation, delay, due)
        where o_taken[u.commit] and p_statuses[u.commit] is null
      on conflict (id, operation) do update set due_at = excluded.due_at;
  end if;
  if p_drop_commit is not null then
    delete from rhythm.timers t where t.ctid = any(array(
      select d.row from unnest(p_drop_commit, p_drop_operations) u(commit, operation)
        cross join lateral (select t.ctid as row from rhythm.timers t
          where t.id = p_ids[u.commit] and t.operation = u.operation offset 0) d
        where o_taken[u.commit]));
  end if;

  select array_agg(u.id), coalesce(array_agg(u.id) filter (where u.keep), '{}') into v_ended, v_kept
    from unnest(p_ids, p_statuses, p_keep, o_taken) u(id, status, keep, taken) where u.taken and u.status is not null;
  if v_ended is not null then
    o_queues := o_queues || rhythm.end_workflows(p_now, p_ids, p_statuses, p_payloads, p_seen, p_unread_signals, p_started,
      p_attempts, p_lost, v_parents, v_operations, o_taken, p_keep, p_versions);
    perform rhythm.forget_workflows(v_ended, v_kept);
  end if;

  if cardinality(v_ended) is distinct from cardinality(p_ids) then
    perform rhythm.suspend_workflows(p_now, p_ids, p_versions, p_seen, p_snapshots, p_lines, p_functions, p_awaiting,
      p_outstanding, p_unread_signals, p_group_first, p_group_modes, p_group_members, p_group_counts,
      array(select u.taken and u.status is null from unnest(o_taken, p_statuses) u(taken, status)), p_started);
  end if;

  if p_child_commit is not null then
    o_queues := o_queues || rhythm.start_children(p_now, p_ids, v_roots, o_taken, p_child_commit, p_child_ids,
      p_child_inputs, p_child_name, p_child_kinds, p_child_names, p_child_operations, p_child_queue, p_child_queues,
      p_child_priorities, p_child_delays, p_child_keys, p_child_retries, p_child_retry, p_child_timeouts);
  end if;
  if p_cancel_commit is not null then
    o_queues := o_queues || rhythm.cancel_many(p_now, array(
      select u.id from unnest(p_cancel_commit, p_cancel_ids) u(commit, id)
        cross join lateral (select e.parent_id from rhythm.executions e where e.id = u.id offset 0) e
        where o_taken[u.commit] and e.parent_id = p_ids[u.commit]));
  end if;

  -- A later statement than the ones that locked and wrote: everything delivered so far is seen here.
  select array_agg(u.id) into v_woken
    from unnest(p_ids, o_taken) u(id, taken)
    cross join lateral (
      select w.suspended, w.next_number, w.seen_through from rhythm.waits w where w.id = u.id offset 0) w
    where u.taken and w.suspended and w.next_number - 1 > w.seen_through;
  if v_woken is not null then
    v_more := rhythm.wake_unread(v_woken);
    o_queues := o_queues || v_more;
  end if;
end $$;

-- Records the outcomes of ended workflows (those with a status that were taken) and delivers them to their parents. Of
-- those with p_keep nothing that the last activation did counts, so its signals are unread again.
-- Returns the queues in which something became claimable. Internal. Raises nothing.
create or replace function rhythm.end_workflows(
  p_now timestamptz, p_ids uuid[], p_statuses smallint[], p_payloads bytea[], p_seen bigint[], p_unread_signals integer[],
  p_started timestamptz[], p_attempts integer[], p_lost integer[], p_parents uuid[], p_operations integer[],
  p_taken boolean[], p_keep boolean[], p_versions integer[]) returns integer[]
language plpgsql as $$
declare
  v_ids uuid[];
  v_kinds smallint[];
  v_operations integer[];
  v_children uuid[];
  v_sizes integer[];
begin
  insert into rhythm.outcomes (id, started_at, finished_at, attempts, lost, status, unread_signals, resume_version, payload)
    select u.id,
           coalesce((select w.started_at from rhythm.waits w where w.id = u.id offset 0), u.started_at), p_now, u.attempts,
           u.lost, u.status,
           case when u.keep then (select w.unread_signals from rhythm.waits w where w.id = u.id offset 0)
                else u.unread_signals + (select count(*) from rhythm.deliveries d
                                         where d.id = u.id and d.number > u.seen and d.kind = 4) end,
           case when u.keep then u.version end, u.payload
      from unnest(p_ids, p_statuses, p_payloads, p_seen, p_unread_signals, p_started, p_attempts, p_lost, p_taken, p_keep,
                  p_versions)
        u(id, status, payload, seen, unread_signals, started_at, attempts, lost, taken, keep, version)
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
  p_group_first integer[], p_group_modes smallint[], p_group_members text[], p_group_counts integer[],
  p_taken boolean[], p_started timestamptz[]) returns void
language plpgsql as $$
begin
  -- Updates are written as inserts that meet a conflict: they cannot be planned as joins that read a whole table.
  insert into rhythm.snapshots (id, version, line, taken_at, function, awaiting, snapshot)
    select u.id, u.version + 1, u.line, p_now, u.function, u.awaiting, u.snapshot
      from unnest(p_ids, p_versions, p_snapshots, p_lines, p_functions, p_awaiting, p_taken)
        u(id, version, snapshot, line, function, awaiting, taken)
      where u.taken
    on conflict (id) do update set version = excluded.version, line = excluded.line, taken_at = excluded.taken_at,
      function = excluded.function, awaiting = excluded.awaiting, snapshot = excluded.snapshot;
  delete from rhythm.deliveries d where d.ctid = any(array(
    select d.row from unnest(p_ids, p_seen, p_taken) u(id, seen, taken)
      cross join lateral (
        select d.ctid as row from rhythm.deliveries d where d.id = u.id and d.number <= u.seen offset 0) d
      where u.taken and u.seen > 0));
  insert into rhythm.waits as w (id, version, next_number, seen_through, outstanding, unread_signals, queue_id, size, seq,
      definition_id, priority_rank, suspended, started_at, wake_modes, wake_members, wake_remaining)
    select u.id, u.version + 1, w.next_number, u.seen, u.outstanding,
           u.unread_signals + case when w.next_number - 1 > u.seen and w.unread_signals > 0 then (
             select count(*) from rhythm.deliveries d where d.id = u.id and d.number > u.seen and d.kind = 4) else 0 end,
           w.queue_id, octet_length(u.snapshot), w.seq, w.definition_id, w.priority_rank, true, coalesce(w.started_at, u.started_at),
           g.modes, g.members, g.counts
      from unnest(p_ids, p_versions, p_seen, p_snapshots, p_outstanding, p_unread_signals, p_taken, p_started) with ordinality
        u(id, version, seen, snapshot, outstanding, unread_signals, taken, started_at, position)
      cross join lateral (select * from rhythm.waits w where w.id = u.id offset 0) w
      left join lateral (
        select array_agg(p_group_modes[i]) as modes, array_agg(p_group_members[i]::int4multirange) as members,
               array_agg(p_group_counts[i]) as counts
          from generate_series(p_group_first[u.position], p_group_first[u.position + 1] - 1) i
      ) g on p_group_first is not null
      where u.taken
    on conflict (id) do update set version = excluded.version, seen_through = excluded.seen_through,
      outstanding = excluded.outstanding, unread_signals = excluded.unread_signals, size = excluded.size, suspended = true,
      started_at = excluded.started_at,
      wake_modes = excluded.wake_modes, wake_members = excluded.wake_members, wake_remaining = excluded.wake_remaining;
end $$;

-- Looks at what suspended workflows have not read and makes claimable those that must wake: all that have more to read
-- than one activation is sure to take, so that a wide fan-out is not looked at again and again.
-- Returns the queues concerned. Internal; the caller has locked them in an earlier statement. Raises nothing.
create or replace function rhythm.wake_unread(p_ids uuid[]) returns integer[]
language plpgsql as $$
declare
  v_queues integer[];
begin
  with unread as materialized (
    select w.*, coalesce(g.o_wake, true) as woken, g.o_remaining as remaining
      from rhythm.waits w
      left join lateral (
        select array_agg(d.operation order by d.number) as operations,
               array_agg(case d.kind when 1 then true when 2 then false end order by d.number) as fulfilled
          from rhythm.deliveries d
          where d.id = w.id and d.number > w.seen_through and w.next_number - w.seen_through <= 1000) n
        on w.wake_modes is not null
      left join lateral rhythm.apply_groups(w.wake_modes, w.wake_members, w.wake_remaining, n.operations, n.fulfilled) g
        on w.wake_modes is not null
      where w.id = any(p_ids)),
  changed as (
    insert into rhythm.waits as w (id, version, next_number, seen_through, outstanding, unread_signals, queue_id, size, seq,
      definition_id, priority_rank, suspended, wake_remaining)
    select u.id, u.version, u.next_number, u.seen_through, u.outstanding, u.unread_signals, u.queue_id, u.size, u.seq,
           u.definition_id, u.priority_rank, not u.woken, coalesce(u.remaining, u.wake_remaining)
      from unread u
    on conflict (id) do update set suspended = excluded.suspended, wake_remaining = excluded.wake_remaining),
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
    left join lateral (
      select e.id, e.parent_id, e.operation from rhythm.executions e where e.id = u.id offset 0) e
      on e.parent_id = p_ids[u.commit] and e.operation = u.operation,
      (select rhythm.as_payload(json_build_object('name', 'StartRefused', 'message', 'the id is in use',
        'type', 'failed', 'retryable', false)::text)) f(payload)
    where p_taken[u.commit] and e.id is null;
  if v_ids is not null then
    v_queues := v_queues || rhythm.deliver(v_ids, v_kinds, v_operations, null, null, v_payloads, v_sizes);
  end if;
  return v_queues;
end $$;

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
-- 10 s after its timeout; in a batch, 60 s more, since its members take turns until it is split.
-- Returns the claim's id. Internal. Raises nothing.
create or replace function rhythm.add_claim(
  p_now timestamptz, p_incarnation uuid, p_ids uuid[], p_attempts integer[], p_lost smallint[], p_family boolean,
  p_timeouts bigint[]) returns bigint
language sql as $$
  insert into rhythm.claims (incarnation, started_at, expires_at, single, ids, attempts, lost, family)
    select p_incarnation, p_now,
      p_now + make_interval(secs => nullif(t.least, 0) / 1000.0 + case when cardinality(p_ids) = 1 then 10 else 70 end),
      cardinality(p_ids) = 1, p_ids, p_attempts, p_lost, p_family
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
begin
  if exists (select from rhythm.queues q where q.id = p_queue and q.paused) then
    return;
  end if;
  if cardinality(p_names) = 1 then
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
-- 5,000 each and p_bytes in all (at least one each), in the order of their numbers. d_index points (from 1) to the
-- workflow. Internal. Raises nothing.
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
            sum(coalesce(octet_length(coalesce(d.payload, o.payload)), 0)) over (order by u.position, d.number) as bytes
          from unnest(p_ids) with ordinality u(id, position)
          cross join lateral (select w.seen_through from rhythm.waits w where w.id = u.id offset 0) w
          cross join lateral (
            select d.*, row_number() over (order by d.number) as rank from rhythm.deliveries d
              where d.id = u.id and d.number > w.seen_through order by d.number limit 5000) d
          left join lateral (select o.payload from rhythm.outcomes o where o.id = d.child_id offset 0) o on true
          order by u.position, d.number) t
    where t.rank = 1 or t.bytes <= p_bytes;
end $$;

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
  out o_refused uuid[], out o_continued uuid[], out o_new_ids uuid[], out o_new_claims bigint[],
  out o_suspects boolean, out o_check_again boolean,
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
        p_cancel_commit, p_cancel_ids) r;
    v_known := coalesce(p_commit_ids, '{}');
  end if;

  o_suspects := false;
  if p_task_counts <> '{}' or p_workflow_limit > 0 then
    if p_alone then
      select s.o_row, s.o_name into v_suspect, v_suspect_name from rhythm.find_suspect(p_queues,
        p_names || case when p_workflow_limit > 0 then array[0] end) s;
    end if;
    if v_suspect is null then
      v_task_rows := rhythm.find_ready_in(p_queues, p_names, p_task_counts, p_task_limits, 4194304);
      v_workflow_rows := rhythm.find_ready_in(p_queues, array[0], array[1], array[p_workflow_limit], 4194304);
    elsif v_suspect_name = 0 then
      v_workflow_rows := array[v_suspect];
    else
      v_task_rows := array[v_suspect];
    end if;
  end if;

  if cardinality(v_task_rows) > 0 then
    select t.o_ids, t.o_attempts, t.o_lost, cardinality(t.o_ids) - t.o_singles into t_ids, t_attempts, t_lost, v_batched
      from rhythm.take_ready(v_task_rows, p_singles) t;
    select t.o_names, t.o_queues, t.o_inputs, t.o_timeouts, t.o_created, t.o_extra, t.x_parents, t.x_operations,
           t.x_keys, t.x_tags, t.x_retries, t.x_retry
      into t_names, t_queues, t_inputs, t_timeouts, t_created, t_extra, x_parents, x_operations,
           x_keys, x_tags, x_retries, x_retry
      from rhythm.describe_tasks(t_ids) t;
    if v_batched > 0 then
      t_claim := rhythm.add_claim(v_now, p_incarnation, t_ids[:v_batched], t_attempts[:v_batched], t_lost[:v_batched],
        x_operations is not null, t_timeouts[:v_batched]);
    end if;
    if v_batched < cardinality(t_ids) then
      select o_new_ids || s.o_ids, o_new_claims || s.o_claims into o_new_ids, o_new_claims
        from rhythm.split_claim(v_now, p_incarnation, t_ids, t_attempts, t_lost, x_operations is not null,
          array(select generate_series(0, v_batched - 1)::smallint)) s;
    end if;
    if p_parents and x_parents is not null then
      select p.o_index, p.o_names, p.o_definitions, p.o_versions, p.o_numbers, p.o_snapshots, p.o_tags
        into c_index, c_names, c_definitions, c_versions, c_numbers, c_snapshots, c_tags
        from rhythm.describe_parents(x_parents, v_known) p;
    end if;
  end if;
  if cardinality(v_workflow_rows) > 0 then
    select t.o_ids, t.o_attempts, t.o_lost into w_ids, w_attempts, w_lost from rhythm.take_ready(v_workflow_rows, '{}') t;
    select w.o_names, w.o_queues, w.o_inputs, w.o_created, w.o_definitions, w.o_versions, w.o_snapshots, w.o_parents,
           w.o_operations, w.o_keys, w.o_tags, w.d_index, w.d_numbers, w.d_kinds, w.d_operations, w.d_names, w.d_payloads
      into w_names, w_queues, w_inputs, w_created, w_definitions, w_versions, w_snapshots, w_parents,
           w_operations, w_keys, w_tags, d_index, d_numbers, d_kinds, d_operations, d_names, d_payloads
      from rhythm.describe_workflows(w_ids, 16777216) w;
    w_claim := rhythm.add_claim(v_now, p_incarnation, w_ids, w_attempts, w_lost, true, null);
  end if;

  if v_suspect is null and exists (select from rhythm.ready r where r.lost > 0) then
    o_suspects := exists (
      select from rhythm.ready r where r.lost > 0 and r.queue_id = any(p_queues) and r.name_id = any(p_names || 0));
  end if;
  o_check_again := rhythm.set_idle(p_incarnation, p_queues, p_idle and t_ids is null and w_ids is null);
  if v_queues is not null and exists (select from rhythm.ready r where r.queue_id = any(v_queues)) then
    perform rhythm.notify_idle(v_queues);
    o_check_again := o_check_again or exists (
      select from rhythm.ready r
        where r.queue_id = any(v_queues) and r.queue_id = any(p_queues) and r.name_id = any(p_names || 0));
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
  p_cancel_commit integer[], p_cancel_ids uuid[],
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
  select e.o_rows, e.o_attempts, e.o_lost, e.o_started, e.o_refused, e.o_new_ids, e.o_new_claims
    into v_rows, v_attempts, v_lost, v_started, o_refused, o_new_ids, o_new_claims
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

  select s.queues into o_queues
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
        p_group_counts, p_cancel_commit, p_cancel_ids) c;
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
-- Returns also the ids refused and the new single claims. Internal. Raises 22023 as report does.
create or replace function rhythm.end_claims(
  p_now timestamptz, p_incarnation uuid, p_claims bigint[], p_positions smallint[], p_ids uuid[], p_actions smallint[],
  p_payloads bytea[], p_batches bigint[], p_batch_counts integer[],
  out o_rows integer[], out o_attempts integer[], out o_lost integer[], out o_started timestamptz[],
  out o_refused uuid[], out o_new_ids uuid[], out o_new_claims bigint[])
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
begin
  o_rows := '{}';
  o_refused := '{}';
  for b in 1 .. coalesce(cardinality(p_batches), 0) loop
    v_first := v_last + 1;
    v_last := v_last + p_batch_counts[b];
    delete from rhythm.claims c where c.id = p_batches[b] and c.incarnation = p_incarnation and not c.single
      returning c.ids, c.attempts, c.lost, c.started_at, c.family into v_ids, v_attempts, v_lost, v_started, v_family;
    if not found then
      o_refused := o_refused || p_ids[v_first:v_last];
      continue;
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
        from rhythm.split_claim(p_now, p_incarnation, v_ids, v_attempts, v_lost, v_family, p_positions[v_first:v_last]) s;
      o_new_ids := o_new_ids || v_more_ids;
      o_new_claims := o_new_claims || v_more_claims;
    end if;
  end loop;

  v_first := v_last + 1;
  if v_first > cardinality(p_claims) then
    return;
  end if;
  if v_first = cardinality(p_claims) and p_ids[v_first] is not null then
    delete from rhythm.claims c where c.id = p_claims[v_first] and c.single and c.ids[1] = p_ids[v_first]
      returning c.attempts, c.lost, c.started_at, c.family into v_attempts, v_lost, v_started, v_family;
    if not found then
      perform rhythm.refuse(p_claims[v_first], p_ids[v_first]);
      o_refused := o_refused || p_ids[v_first];
    elsif v_family or p_actions[v_first] <> 1 then
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
         array_agg(c.started_at), bool_or(c.family)
    into v_found, v_found_ids, v_attempts, v_lost, v_found_started, v_family
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
  p_done smallint[], out o_ids uuid[], out o_claims bigint[])
language plpgsql as $$
begin
  with singles as (
    insert into rhythm.claims (incarnation, started_at, expires_at, single, ids, attempts, lost, family)
    select p_incarnation, p_now, p_now + make_interval(secs => nullif(e.timeout_ms, 0) / 1000.0 + 10), true,
           array[u.id], array[u.attempts], array[u.lost], p_family
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
      null, null, null, null, null, null, null, null, null) r;
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

-- The sequential step: what an exchange does when one workflow waits for one task at a time and nothing else is there.

-- One task's final outcome, the next step of its parent in place, and the task which that starts, claimed at once: the same
-- as exchange with one report and one continuation with one child, at a fifth of its cost. Options of the child as in
-- start_many, null where not given.
-- It applies only if nothing in the given queues is claimable, so that nothing is overtaken; if this worker runs the
-- child's name and queue, which nobody has paused; and if report and continuation both count. Otherwise o_claim is null
-- and nothing was done: call exchange.
-- Returns the claim of the child, a single, what its registration adds, and what the parent is. Raises RH002 and RH007 as exchange does, and 23505
-- when the child's id is in use (call exchange).
create or replace function rhythm.step(
  p_incarnation uuid, p_epoch integer, p_claim bigint, p_id uuid, p_action smallint, p_payload bytea,
  p_parent uuid, p_version integer, p_number bigint, p_snapshot bytea, p_line integer, p_function text, p_awaiting bytea,
  p_outstanding integer, p_unread_signals integer,
  p_child uuid, p_inputs bytea, p_name text, p_operation integer, p_queue text, p_priority integer, p_key text,
  p_retries integer, p_retry text, p_timeout_ms bigint, p_queues integer[], p_names integer[],
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
    select q.id into o_queue from rhythm.queues q where q.id = v_name.queue_id and not q.paused;
  else
    select q.id into o_queue from rhythm.queues q where q.name = p_queue and not q.paused;
  end if;
  if o_queue is null or o_queue <> all(p_queues)
      or exists (select from rhythm.ready r where r.queue_id = any(p_queues) and r.name_id = any(p_names || 0)) then
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
             'type', 'cancelled', 'attempts', u.attempts)::text)
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

-- Takes those of the given executions out of ready and later that can end where they are: tasks, and workflows that have
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
  for v_turn in 1 .. 2 loop    -- twice: one may be on its way from later to ready
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

-- Retrying by hand what has failed.
--
-- An outcome is final for everybody but these two functions. retry takes it away and makes the execution claimable in one
-- transaction; there is no claim left of the attempts before, so nothing that they report can count. What the outcome has
-- already led to cannot be taken back: so a child is retried only while nobody has taken its outcome in.
--
-- A workflow resumes where it stood when it ended uncatchably (a limit, UnsupportedError, the activation budget, lost): its
-- last snapshot, what it had not read, and its timers are kept for that (outcomes.resume_version). Whatever its children
-- came to meanwhile is delivered then.

-- Takes the outcome of a failed child back from its parent. Internal. Raises RH008 when the parent has taken it in, may be
-- doing so now, or is gone.
create or replace function rhythm.take_outcome_back(p_parent uuid, p_operation integer, p_child uuid) returns void
language plpgsql as $$
declare
  v_wait rhythm.waits;
  v_number bigint;
  v_parent_finished timestamptz;
begin
  for v_turn in 1 .. 100 loop  -- the parent may be retried meanwhile
    perform rhythm.lock_workflows(array[p_parent]);
    select w.* into v_wait from rhythm.waits w where w.id = p_parent;
    exit when found;
    select o.finished_at into v_parent_finished from rhythm.outcomes o where o.id = p_parent for update;
    exit when found or not exists (select from rhythm.executions e where e.id = p_parent);
  end loop;
  if v_wait.id is null then
    delete from rhythm.deliveries d where d.id = p_parent and d.child_id = p_child;
    if not found and (select o.finished_at from rhythm.outcomes o where o.id = p_child) > v_parent_finished is not true then
      raise exception 'execution % cannot be retried: its parent % has finished with its outcome', p_child, p_parent
        using errcode = 'RH008', detail = 'consumed';
    end if;
    return;
  end if;

  select d.number into v_number from rhythm.deliveries d
    where d.id = p_parent and d.number > v_wait.seen_through and d.child_id = p_child;
  if not found then
    raise exception 'execution % cannot be retried: its parent % has taken its outcome in', p_child, p_parent
      using errcode = 'RH008', detail = 'consumed';
  end if;
  if not v_wait.suspended then
    perform 1 from rhythm.ready r
      where r.queue_id = v_wait.queue_id and r.name_id = 0 and r.priority_rank = v_wait.priority_rank and r.seq = v_wait.seq
      for update skip locked;
    if not found then
      raise exception 'execution % cannot be retried: its parent % is taking its outcome in', p_child, p_parent
        using errcode = 'RH008', detail = 'consumed';
    end if;
  end if;
  -- Deliveries are numbered without gaps: what stays in its place is the outcome of operation 0, which nobody waits for.
  update rhythm.deliveries d set operation = 0, child_id = null, payload = null where d.id = p_parent and d.number = v_number;
  update rhythm.waits w
    set wake_remaining = array(select u.remaining + (u.members @> p_operation)::integer
                               from unnest(w.wake_remaining, w.wake_members) with ordinality u(remaining, members, position)
                               order by u.position)
    where w.id = p_parent and w.suspended and w.wake_modes is not null;
end $$;

-- Puts back what a workflow needs that ended uncatchably: its row in waits, its timers, and what it has not read, followed
-- by the outcomes that its children have had since. Internal. Raises nothing.
create or replace function rhythm.restore_workflow(p_id uuid, p_outcome rhythm.outcomes) returns void
language plpgsql as $$
declare
  v_seen bigint;
  v_count bigint;
begin
  select coalesce(min(d.number) - 1, 0) into v_seen from rhythm.deliveries d where d.id = p_id;
  with gone as (
    delete from rhythm.deliveries d where d.id = p_id returning d.*),
  missed as (
    -- An hour is more than clocks of servers differ. Outcomes taken in before are ignored: nobody waits for them.
    select e.operation, o.id, o.finished_at, case o.status when 1 then 1 else 2 end::smallint as kind
      from rhythm.executions e join rhythm.outcomes o on o.id = e.id
      where e.parent_id = p_id
        and o.finished_at >= (select s.taken_at - interval '1 h' from rhythm.snapshots s where s.id = p_id)),
  everything as (
    select g.number, null::timestamptz as at, g.kind, g.operation, g.child_id, g.name, g.payload from gone g
    union all
    select null, m.finished_at, m.kind, m.operation, m.id, null, null from missed m
      where m.id not in (select g.child_id from gone g where g.child_id is not null)),
  put as (
    insert into rhythm.deliveries (id, number, kind, operation, child_id, name, payload)
      select p_id, v_seen + row_number() over (order by a.number nulls last, a.at, a.operation), a.kind, a.operation,
             a.child_id, a.name, a.payload
        from everything a
      returning 1)
  select count(*) into v_count from put;
  insert into rhythm.waits (id, version, next_number, seen_through, outstanding, unread_signals, queue_id, size, seq,
      definition_id, priority_rank, suspended, started_at)
    select p_id, p_outcome.resume_version, v_seen + v_count + 1, v_seen, 0, p_outcome.unread_signals, e.queue_id,
           coalesce(octet_length(s.snapshot), octet_length(e.inputs)), e.seq, e.definition_id, -e.priority, false,
           case when p_outcome.resume_version > 0 then p_outcome.started_at end
      from rhythm.executions e left join rhythm.snapshots s on s.id = e.id where e.id = p_id;
  insert into rhythm.timers (id, operation, due_at)
    select p_id, t.key::integer, t.value::timestamptz
      from rhythm.snapshots s, jsonb_each_text(s.kept_timers) t where s.id = p_id
    on conflict do nothing;
  update rhythm.snapshots s set kept_timers = null where s.id = p_id and s.kept_timers is not null;
end $$;

-- The outcome of an execution, locked, if it can be retried at all. Internal. Raises RH003 when there is no such execution,
-- RH008 when it has not failed, or its key belongs to another execution by now.
create or replace function rhythm.lock_failed(p_id uuid) returns rhythm.outcomes
language plpgsql as $$
declare
  v_execution rhythm.executions;
  v_outcome rhythm.outcomes;
  v_holder uuid;
begin
  select e.* into v_execution from rhythm.executions e where e.id = p_id;
  if not found then
    raise exception 'no execution has the id %', p_id using errcode = 'RH003';
  end if;
  if v_execution.parent_id is null and v_execution.key is not null then
    select k.execution_id into v_holder from rhythm.keys k
      where k.name_id = v_execution.name_id and k.key = v_execution.key for update;
    if v_holder <> p_id then
      raise exception 'execution % cannot be retried: its key belongs to execution % by now', p_id, v_holder
        using errcode = 'RH008', detail = 'key_taken';
    end if;
  end if;
  if v_execution.parent_id is not null then
    perform rhythm.lock_workflows(array[v_execution.parent_id]);
  end if;
  select o.* into v_outcome from rhythm.outcomes o where o.id = p_id for update;
  if not found then
    if not exists (select from rhythm.executions e where e.id = p_id) then
      raise exception 'no execution has the id %', p_id using errcode = 'RH003';
    end if;
    raise exception 'execution % cannot be retried: it has not finished', p_id using errcode = 'RH008', detail = 'not_finished';
  elsif v_outcome.status = 1 then
    raise exception 'execution % cannot be retried: it has completed', p_id using errcode = 'RH008', detail = 'completed';
  end if;
  return v_outcome;
end $$;

-- Gives a failed or cancelled task another attempt, its retries renewed; resumes a workflow that ended uncatchably.
-- p_retry_id makes repeating the same retry harmless. Returns nothing.
-- Raises RH003 when there is no such execution, RH008 when it cannot be retried; the detail is a code: not_finished, completed,
-- consumed, key_taken, nothing_kept, name_unknown.
create or replace function rhythm.retry(p_id uuid, p_retry_id uuid default null) returns void
language plpgsql as $$
declare
  v_execution rhythm.executions;
  v_outcome rhythm.outcomes;
  v_lost smallint;
begin
  select e.* into v_execution from rhythm.executions e where e.id = p_id;
  if v_execution.retry_id = p_retry_id then
    return;
  end if;
  if v_execution.parent_id is not null and exists (select from rhythm.outcomes o where o.id = p_id and o.status <> 1) then
    perform rhythm.take_outcome_back(v_execution.parent_id, v_execution.operation, p_id);
  end if;
  v_outcome := rhythm.lock_failed(p_id);
  if exists (select from rhythm.names n where n.id = v_execution.name_id and n.kind = 0) then
    raise exception 'execution % cannot be retried: nobody knew its name; start it anew (from_start)', p_id
      using errcode = 'RH008', detail = 'name_unknown';
  elsif v_execution.definition_id is not null and v_outcome.resume_version is null then
    raise exception 'execution % cannot be resumed: a workflow that % leaves nothing to resume; start it anew (from_start)',
      p_id, case v_outcome.status when 3 then 'was cancelled' else 'failed by an error of its own code' end
      using errcode = 'RH008', detail = 'nothing_kept';
  end if;

  v_lost := least(v_outcome.lost, 1);  -- claimed alone still, if it was
  update rhythm.executions e set forgiven = v_outcome.attempts - v_lost, retry_id = coalesce(p_retry_id, rhythm.new_id())
    where e.id = p_id;
  delete from rhythm.outcomes o where o.id = p_id;
  insert into rhythm.failures (id, attempt, failed_at, payload)
    values (p_id, v_outcome.attempts, v_outcome.finished_at, v_outcome.payload)
    on conflict (id) do update set attempt = excluded.attempt, failed_at = excluded.failed_at, payload = excluded.payload;
  if v_execution.definition_id is null then
    delete from rhythm.cancels c where c.id = p_id;
  else
    perform rhythm.restore_workflow(p_id, v_outcome);
  end if;
  perform rhythm.notify_idle(rhythm.make_ready(array[p_id], array[v_outcome.attempts], array[v_lost::integer]));
end $$;

-- Starts a new execution, p_new_id, of what a failed or cancelled one was to do: same name, inputs and options, no parent;
-- a workflow on its current definition. An idempotency key passes to it. Repeating it does nothing. Returns nothing.
-- Raises RH003 and RH008 as retry does.
create or replace function rhythm.start_again(p_id uuid, p_new_id uuid) returns void
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_execution rhythm.executions;
  v_name integer;
  v_queues integer[];
begin
  if exists (select from rhythm.executions e where e.id = p_new_id) then
    return;
  end if;
  perform rhythm.lock_failed(p_id);
  select e.* into v_execution from rhythm.executions e where e.id = p_id;
  select coalesce(n.resolved_id, n.id) into v_name from rhythm.names n where n.id = v_execution.name_id;
  if v_execution.parent_id is not null then
    v_execution.key := null;
  elsif v_execution.key is not null then
    insert into rhythm.keys as k (name_id, key, execution_id, inputs_digest, created_at)
      values (v_name, v_execution.key, p_new_id, sha256(v_execution.inputs), v_now)
      on conflict (name_id, key) do update set execution_id = excluded.execution_id, created_at = excluded.created_at;
  end if;
  select i.o_queues into v_queues
    from rhythm.insert_executions(v_now, array[p_new_id], array[v_execution.inputs], array[1], array[v_name],
      array[1], array[v_execution.queue_id], array[v_execution.priority::integer], null, null, array[v_execution.key],
      array[v_execution.retries], array[v_execution.retry::text], array[v_execution.timeout_ms],
      array[v_execution.tags::text], null, null, null, null) i;
  perform rhythm.notify_idle(v_queues);
end $$;

-- Definitions of workflows.

-- Stores compiled workflows and makes each the current one of its name; executions of that name that waited for it become
-- claimable. A definition that is there already (same name and hash) is only made current. Parallel arrays.
-- Returns their ids in order. Raises 23514 for a name that cannot be one.
create or replace function rhythm.publish(
  p_names text[], p_hashes text[], p_irs bytea[], p_sources text[], p_source_hashes text[]) returns bigint[]
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_ids bigint[];
begin
  insert into rhythm.names (kind, name)
    select k.kind, n.name from (values (0), (2)) k(kind), (select distinct u.name from unnest(p_names) u(name)) n
      order by 1, 2 on conflict do nothing;
  perform 1 from rhythm.names n where n.kind in (0, 2) and n.name = any(p_names) order by n.id for update;
  insert into rhythm.definitions (name_id, hash, ir, source, source_hash, published_at)
    select n.id, u.hash, u.ir, u.source, u.source_hash, v_now
      from unnest(p_names, p_hashes, p_irs, p_sources, p_source_hashes) u(name, hash, ir, source, source_hash)
      join rhythm.names n on n.kind = 2 and n.name = u.name
    on conflict do nothing;
  select array_agg(d.id order by u.position) into v_ids
    from unnest(p_names, p_hashes) with ordinality u(name, hash, position)
    join rhythm.names n on n.kind = 2 and n.name = u.name
    join rhythm.definitions d on d.name_id = n.id and d.hash = u.hash;
  update rhythm.names n set definition_id = d.id from rhythm.definitions d
    where d.id = any(v_ids) and n.id = d.name_id and n.definition_id is distinct from d.id;
  perform rhythm.resolve_unknown(array(
    select n.id from rhythm.names n where n.kind = 2 and n.name = any(p_names)));
  perform rhythm.return_parked(v_now, array(
    select n.id from rhythm.names n where n.kind in (0, 2) and n.name = any(p_names)), 10000);
  return v_ids;
end $$;

-- A definition by id, or by hash, or the current one of a name: give one. Returns no row when there is none.
-- Raises nothing.
create or replace function rhythm.definition(p_id bigint, p_hash text, p_name text)
returns table (id bigint, name text, hash text, ir bytea, source text, source_hash text, published_at timestamptz,
  current boolean)
language sql stable as $$
  select d.id, n.name, d.hash, d.ir, d.source, d.source_hash, d.published_at, n.definition_id = d.id
    from rhythm.definitions d join rhythm.names n on n.id = d.name_id
    where case when p_id is not null then d.id = p_id
               when p_hash is not null then d.hash = p_hash
               else n.kind = 2 and n.name = p_name and n.definition_id = d.id end
    order by d.id desc limit 1
$$;

-- The JSON Schemas of the inputs of those of these tasks that a worker has registered with one. Raises nothing.
create or replace function rhythm.task_schemas(p_names text[]) returns table (name text, input_schema jsonb)
language sql stable as $$
  select n.name, n.input_schema from rhythm.names n
    where n.kind = 1 and n.name = any(p_names) and n.registered_at is not null and n.input_schema is not null
$$;

-- How many unfinished executions of a workflow run another definition than the one with this hash. Raises nothing.
create or replace function rhythm.count_staying(p_name text, p_hash text) returns bigint
language sql stable as $$
  select count(*) from rhythm.definitions d join rhythm.names n on n.id = d.name_id
    join rhythm.waits w on w.definition_id = d.id
    where n.kind = 2 and n.name = p_name and d.hash <> p_hash
$$;

-- Worker incarnations.

-- Registers a worker incarnation and the tasks it can run (parallel arrays; timeouts in milliseconds, 0 none), which other
-- starts take their options from; executions parked because nobody knew their names become claimable. The newest
-- registration of a task wins. Registering again updates.
-- Returns the ids of the queues and of the names, both in order, how many executions came back, and the tasks that
-- another live worker has registered differently. Raises 23514 for a name that cannot be one.
create or replace function rhythm.register_worker(
  p_incarnation uuid, p_host text, p_pid integer, p_version text, p_heartbeat_timeout_ms integer, p_workflows boolean,
  p_queues text[], p_names text[], p_name_queues text[], p_retries integer[], p_retry text[], p_timeouts bigint[],
  p_priorities integer[], p_schemas text[],
  out o_queues integer[], out o_names integer[], out o_returned integer, out o_conflicts text[])
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_name_queues integer[];
  v_digests bigint[];
begin
  o_queues := coalesce(rhythm.resolve_queues(p_queues), '{}');
  v_name_queues := rhythm.resolve_queues(p_name_queues);
  insert into rhythm.names (kind, name)
    select k.kind, u.name from (values (0), (1)) k(kind), unnest(p_names) u(name) order by 1, 2 on conflict do nothing;
  select coalesce(array_agg(n.id order by u.position), '{}'),
      coalesce(array_agg(hashtextextended(jsonb_build_array(
        v_name_queues[u.position], u.retries, u.retry::jsonb, u.timeout_ms, u.priority, u.input_schema::jsonb)::text, 0)
        order by u.position), '{}')
    into o_names, v_digests
    from unnest(p_names, p_retries, p_retry, p_timeouts, p_priorities, p_schemas) with ordinality
      u(name, retries, retry, timeout_ms, priority, input_schema, position)
    join rhythm.names n on n.kind = 1 and n.name = u.name;

  insert into rhythm.workers as w (incarnation, seen_at, started_at, heartbeat_timeout_ms, pid, workflows, host, version,
      queue_ids, name_ids, name_digests)
    values (p_incarnation, v_now, v_now, p_heartbeat_timeout_ms, p_pid, p_workflows, p_host, p_version, o_queues, o_names,
      v_digests)
    on conflict (incarnation) do update set seen_at = excluded.seen_at, workflows = excluded.workflows,
      heartbeat_timeout_ms = excluded.heartbeat_timeout_ms, queue_ids = excluded.queue_ids, name_ids = excluded.name_ids,
      name_digests = excluded.name_digests;

  perform 1 from rhythm.names n where n.kind in (0, 1) and n.name = any(p_names) order by n.id for update;
  with given as materialized (
    select n.id, v_name_queues[u.position] as queue_id, u.retries, u.retry::jsonb as retry, u.timeout_ms,
           u.priority::smallint as priority, u.input_schema::jsonb as input_schema
      from unnest(p_names, p_retries, p_retry, p_timeouts, p_priorities, p_schemas) with ordinality
        u(name, retries, retry, timeout_ms, priority, input_schema, position)
      join rhythm.names n on n.kind = 1 and n.name = u.name),
  other as (
    select n.name from given g join rhythm.names n on n.id = g.id
      join rhythm.workers w on w.incarnation = n.registered_by and w.incarnation <> p_incarnation
      where w.seen_at + make_interval(secs => w.heartbeat_timeout_ms / 1000.0) > v_now and n.registered_at is not null
        and (n.queue_id, n.retries, n.timeout_ms, n.priority, n.retry, n.input_schema) is distinct from
            (g.queue_id, g.retries, g.timeout_ms, g.priority, g.retry, g.input_schema)),
  written as (
    update rhythm.names n
      set registered_at = v_now, seen_at = v_now, registered_by = p_incarnation, queue_id = g.queue_id, retries = g.retries,
          retry = g.retry, timeout_ms = g.timeout_ms, priority = g.priority, input_schema = g.input_schema
      from given g where n.id = g.id)
  select coalesce(array_agg(o.name order by o.name), '{}') into o_conflicts from other o;

  perform rhythm.resolve_unknown(o_names);
  o_returned := rhythm.return_parked(v_now, array(
    select n.id from rhythm.names n where n.kind in (0, 1) and n.name = any(p_names)), 10000);
end $$;

-- Says what names started before they were known turned out to be: rows of kind 0 point to the task or workflow now known
-- (the workflow, if both are), and take their idempotency keys along. p_names are ids of kind 1 or 2. Internal.
create or replace function rhythm.resolve_unknown(p_names integer[]) returns void
language plpgsql as $$
begin
  update rhythm.names z set resolved_id = n.id from rhythm.names n
    where n.id = any(p_names) and z.kind = 0 and z.name = n.name and z.resolved_id is distinct from n.id
      and (z.resolved_id is null or n.kind = 2);
  update rhythm.keys k set name_id = z.resolved_id from rhythm.names z
    where z.kind = 0 and z.resolved_id = any(p_names) and k.name_id = z.id
      and not exists (select from rhythm.keys o where o.name_id = z.resolved_id and o.key = k.key);
end $$;

-- Makes executions claimable, or delayed, that were parked under the given names and can be run now; the oldest p_limit of
-- them. Options that their starts left open are taken from the registration. Returns how many. Internal.
create or replace function rhythm.return_parked(p_now timestamptz, p_names integer[], p_limit integer) returns integer
language plpgsql as $$
declare
  v_ids uuid[];
  v_tasks uuid[];
  v_queues integer[];
begin
  select array_agg(p.id), array_agg(p.id) filter (where p.kind = 1 and p.was = 0) into v_ids, v_tasks
    from (select l.id, n.kind, z.kind as was from rhythm.later l
            join rhythm.names z on z.id = l.name_id
            join rhythm.names n on n.id = coalesce(z.resolved_id, z.id)
          where l.reason = 3 and l.name_id = any(p_names)
            and (n.registered_at is not null or n.definition_id is not null)
          order by l.name_id, l.seq limit p_limit for update of l skip locked) p;
  if v_ids is null then
    return 0;
  end if;
  update rhythm.executions e
    set name_id = n.id, queue_id = coalesce(e.queue_id, n.queue_id), retries = coalesce(e.retries, n.retries),
        timeout_ms = coalesce(e.timeout_ms, n.timeout_ms), priority = coalesce(e.priority, n.priority),
        retry = rhythm.merge_retry(n.retry, e.retry), definition_id = coalesce(e.definition_id, n.definition_id)
    from rhythm.names z, rhythm.names n
    where e.id = any(v_ids) and z.id = e.name_id and n.id = coalesce(z.resolved_id, z.id)
      and (e.queue_id is null or e.retries is null or e.timeout_ms is null or e.priority is null or z.id <> n.id);
  perform rhythm.forget_workflows(v_tasks);
  insert into rhythm.waits as w (id, version, next_number, seen_through, outstanding, unread_signals, queue_id, size, seq,
      definition_id, priority_rank, suspended)
    select w.id, w.version, w.next_number, w.seen_through, w.outstanding, w.unread_signals, e.queue_id, w.size, w.seq,
           e.definition_id, -e.priority, w.suspended
      from rhythm.waits w cross join lateral (select * from rhythm.executions e where e.id = w.id offset 0) e
      where w.id = any(v_ids)
    on conflict (id) do update set queue_id = excluded.queue_id, definition_id = excluded.definition_id,
      priority_rank = excluded.priority_rank;

  with gone as (
    delete from rhythm.later l where l.id = any(v_ids) returning l.id, l.attempts, l.lost),
  back as materialized (
    select g.*, e.queue_id, case when e.definition_id is null then e.name_id else 0 end as name_id, e.seq, e.priority,
           e.available_at, octet_length(e.inputs) as size
      from gone g cross join lateral (select * from rhythm.executions e where e.id = g.id offset 0) e),
  delayed as (
    insert into rhythm.later (id, available_at, queue_id, name_id, seq, attempts, size, priority_rank, lost, reason)
    select b.id, b.available_at, b.queue_id, b.name_id, b.seq, b.attempts, b.size, -b.priority, b.lost, 1
      from back b where b.available_at > p_now),
  at_once as (
    insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, attempts, size, id)
    select b.queue_id, b.name_id, -b.priority, b.lost, b.seq, b.attempts, b.size, b.id
      from back b where b.available_at is null or b.available_at <= p_now)
  select array_agg(distinct b.queue_id) into v_queues from back b;
  perform rhythm.notify_idle(v_queues);
  return cardinality(v_ids);
end $$;

-- Keeps a worker incarnation alive. Returns the tasks it holds that somebody wants cancelled (workflows are told by a
-- delivery), and what it held that was ended by force within the last minute.
-- Raises RH002 when it is not registered or has been declared dead.
create or replace function rhythm.heartbeat(p_incarnation uuid) returns uuid[]
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
begin
  update rhythm.workers w set seen_at = v_now where w.incarnation = p_incarnation;
  if not found then
    raise exception 'incarnation % is dead', p_incarnation using errcode = 'RH002';
  end if;
  if not exists (select from rhythm.cancels) then
    return '{}';
  end if;
  return array(
    select x.id from rhythm.cancels x
      where x.incarnation = p_incarnation and x.requested_at > v_now - interval '1 min'
    union all
    select u.id from rhythm.claims c, unnest(c.ids) u(id) join rhythm.cancels x on x.id = u.id
      where c.incarnation = p_incarnation and not exists (select from rhythm.waits w where w.id = u.id));
end $$;

-- Ends a worker incarnation that has drained. What it still holds is taken over as if it had died.
-- Returns nothing. Raises nothing: an incarnation that is not registered is no error.
create or replace function rhythm.unregister_worker(p_incarnation uuid) returns void
language plpgsql as $$
begin
  delete from rhythm.workers w where w.incarnation = p_incarnation;
  perform rhythm.reclaim(rhythm.now(), array[p_incarnation], 100000);
  delete from rhythm.idle i where i.incarnation = p_incarnation;
end $$;

-- Maintenance: what has to happen by itself. Any worker may do it at any time.

-- Fires due timers and moves due executions to ready, up to 2,000 each; rows that others are working on are skipped. Every
-- two seconds one caller, elected by a row lock, also looks for dead incarnations, claims without an incarnation,
-- attempts past their timeout, names that nobody knows (any more, or yet), and, once a minute, what retention lets go:
-- executions that finished more than p_retention_seconds ago (null: none).
-- Returns the seconds until the next due time (null: nothing is waiting), what was moved, what was reclaimed, and whether
-- a limit was reached, so that there is more to do at once. Raises nothing.
create or replace function rhythm.maintain(
  p_retention_seconds double precision default null,
  out o_next_due double precision, out o_moved integer, out o_reclaimed integer, out o_more boolean)
language plpgsql as $$
declare
  v_now timestamptz := rhythm.now();
  v_limit constant integer := 2000;
  v_count integer;
begin
  o_reclaimed := 0;
  o_moved := 0;
  o_more := false;
  perform 1 from rhythm.maintenance m
    where not (m.last_at > v_now - interval '2 s' and m.last_at <= v_now) for update skip locked;
  if found then
    update rhythm.maintenance m set last_at = v_now;
    o_reclaimed := rhythm.reclaim(v_now, rhythm.bury_workers(v_now), 100);
    v_count := rhythm.expire_attempts(v_now, v_limit);
    o_moved := o_moved + v_count;
    o_more := o_more or v_count >= v_limit;
    v_count := rhythm.park_unknown(v_now, v_limit);
    o_moved := o_moved + v_count;
    o_more := o_more or v_count >= v_limit;
    if p_retention_seconds is not null and exists (select from rhythm.maintenance m
        where not (m.retained_at > v_now - interval '1 min' and m.retained_at <= v_now)) then
      v_count := rhythm.prune(rhythm.time_after(v_now, -p_retention_seconds), v_limit);
      o_more := o_more or v_count >= v_limit;
      if v_count < v_limit then
        update rhythm.maintenance m set retained_at = v_now;
      end if;
    end if;
    if o_more then -- whoever comes next goes on at once
      update rhythm.maintenance m set last_at = '-infinity';
    end if;
  end if;
  v_count := rhythm.fire_timers(v_now, v_limit);
  o_moved := o_moved + v_count;
  o_more := o_more or v_count >= v_limit;
  v_count := rhythm.move_due(v_now, v_limit);
  o_moved := o_moved + v_count;
  o_more := o_more or v_count >= v_limit;

  select extract(epoch from least(
      (select l.available_at from rhythm.later l where l.reason <> 3 order by l.available_at limit 1),
      (select t.due_at from rhythm.timers t order by t.due_at limit 1)) - v_now)::double precision
    into o_next_due;
  if o_next_due < 0 then
    o_next_due := 0;
  end if;
end $$;

-- Delivers due timers to their workflows, those of up to p_limit due timers. Returns how many were delivered. Internal.
create or replace function rhythm.fire_timers(p_now timestamptz, p_limit integer) returns integer
language plpgsql as $$
declare
  v_ids uuid[];
  v_locked uuid[];
  v_operations integer[];
begin
  select array_agg(distinct d.id) into v_ids
    from (select t.id from rhythm.timers t where t.due_at <= p_now order by t.due_at limit p_limit) d;
  if v_ids is null then
    return 0;
  end if;
  select coalesce(array_agg(l.id), '{}') into v_locked
    from (select w.id from rhythm.waits w where w.id = any(v_ids) order by w.id for update skip locked) l;
  -- none may stay at the head of the list for ever
  delete from rhythm.timers t where t.id = any(v_ids) and not exists (select from rhythm.waits w where w.id = t.id);
  with fired as (
    delete from rhythm.timers t where t.id = any(v_locked) and t.due_at <= p_now returning t.id, t.operation, t.due_at)
  select array_agg(f.id order by f.due_at, f.operation), array_agg(f.operation order by f.due_at, f.operation)
    into v_ids, v_operations from fired f;
  if v_ids is null then
    return 0;
  end if;
  perform rhythm.notify_idle(rhythm.deliver(v_ids, array_fill(3::smallint, array[cardinality(v_ids)]), v_operations,
    array_fill(null::uuid, array[cardinality(v_ids)]), null, null, array_fill(0, array[cardinality(v_ids)])));
  return cardinality(v_ids);
end $$;

-- Moves executions whose time has come from later to ready, up to p_limit. Returns how many. Internal.
create or replace function rhythm.move_due(p_now timestamptz, p_limit integer) returns integer
language plpgsql as $$
declare
  v_count integer;
  v_queues integer[];
begin
  with due as (
    delete from rhythm.later l where l.ctid = any(array(
      select d.ctid from rhythm.later d where d.reason <> 3 and d.available_at <= p_now
        order by d.available_at, d.id limit p_limit for update skip locked))
    returning l.queue_id, l.name_id, l.priority_rank, l.lost, l.seq, l.attempts, l.size, l.id),
  moved as (
    insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, attempts, size, id)
    select d.queue_id, d.name_id, d.priority_rank, d.lost, d.seq, d.attempts, d.size, d.id from due d)
  select count(*), array_agg(distinct d.queue_id) into v_count, v_queues from due d;
  perform rhythm.notify_idle(v_queues);
  return v_count;
end $$;

-- Declares dead the incarnations that have not been heard of for their heartbeat timeout. Returns them. Internal.
create or replace function rhythm.bury_workers(p_now timestamptz) returns uuid[]
language plpgsql as $$
declare
  v_dead uuid[];
begin
  select array_agg(d.incarnation) into v_dead
    from (select w.incarnation from rhythm.workers w
          where w.seen_at + make_interval(secs => w.heartbeat_timeout_ms / 1000.0) <= p_now
          order by w.incarnation for update skip locked) d;
  delete from rhythm.workers w where w.incarnation = any(v_dead);
  return v_dead;
end $$;

-- Takes over what dead incarnations hold, and what claims hold whose incarnation has no row any more: up to p_limit claims.
-- Each member counts one loss more. What somebody has asked to cancel ends as cancelled. At three losses the others fail
-- for good, with type "lost"; otherwise they are claimable again.
-- Returns how many executions were taken over. Internal.
create or replace function rhythm.reclaim(p_now timestamptz, p_dead uuid[], p_limit integer) returns integer
language plpgsql as $$
declare
  v_lost_max constant integer := 3;
  v_claims bigint[];
  v_ids uuid[];
  v_attempts integer[];
  v_lost integer[];
  v_started timestamptz[];
  v_final boolean[];
begin
  delete from rhythm.idle i where i.incarnation = any(p_dead);
  select array_agg(c.id) into v_claims
    from (select c.id from rhythm.claims c
          where not exists (select from rhythm.workers w where w.incarnation = c.incarnation)
          order by c.id limit p_limit for update skip locked) c;
  if v_claims is null then
    return 0;
  end if;
  with gone as (
    delete from rhythm.claims c where c.id = any(v_claims) returning c.ids, c.attempts, c.lost, c.started_at)
  select array_agg(u.id), array_agg(u.attempts), array_agg(coalesce(u.lost, 0) + 1), array_agg(g.started_at)
    into v_ids, v_attempts, v_lost, v_started
    from gone g, unnest(g.ids, g.attempts, g.lost) u(id, attempts, lost) where u.id is not null;
  if v_ids is null then
    return 0;
  end if;
  perform rhythm.lock_workflows(v_ids || array(
    select e.parent_id from unnest(v_ids) u(id)
      cross join lateral (select e.parent_id from rhythm.executions e where e.id = u.id offset 0) e
      where e.parent_id is not null));
  v_final := array(select u.lost >= v_lost_max and not rhythm.ends_when_cancelled(u.id)
                   from unnest(v_ids, v_lost) with ordinality u(id, lost, position) order by u.position);
  if true = any(v_final) then
    perform rhythm.fail_lost(p_now,
      array(select u.id from unnest(v_ids, v_final) u(id, final) where u.final),
      array(select u.attempts from unnest(v_attempts, v_final) u(attempts, final) where u.final),
      array(select u.lost from unnest(v_lost, v_final) u(lost, final) where u.final),
      array(select u.started_at from unnest(v_started, v_final) u(started_at, final) where u.final));
  end if;
  perform rhythm.notify_idle(rhythm.take_back(p_now,
    array(select u.id from unnest(v_ids, v_final) u(id, final) where not u.final),
    array(select u.attempts from unnest(v_attempts, v_final) u(attempts, final) where not u.final),
    array(select u.lost from unnest(v_lost, v_final) u(lost, final) where not u.final),
    'its worker was lost after it had been asked to stop'));
  return cardinality(v_ids);
end $$;

-- Ends executions that have lost their workers too often. A workflow keeps its snapshot and what it has not read. The
-- caller has locked their rows in waits and those of their parents. Returns nothing. Internal.
create or replace function rhythm.fail_lost(
  p_now timestamptz, p_ids uuid[], p_attempts integer[], p_lost integer[], p_started timestamptz[]) returns void
language plpgsql as $$
declare
  v_parents uuid[];
  v_operations integer[];
  v_workflow boolean[];
  v_payloads bytea[];
  v_queues integer[];
  v_more integer[];
begin
  select array_agg(e.parent_id order by u.position), array_agg(e.operation order by u.position),
         array_agg(e.definition_id is not null order by u.position),
         array_agg(rhythm.as_payload(json_build_object('name', 'LostError',
           'message', 'its worker was lost ' || u.lost || ' times while it ran', 'type', 'lost',
           'attempts', u.attempts, 'retryable', false)::text) order by u.position)
    into v_parents, v_operations, v_workflow, v_payloads
    from unnest(p_ids, p_attempts, p_lost) with ordinality u(id, attempts, lost, position)
    cross join lateral (select * from rhythm.executions e where e.id = u.id offset 0) e;
  select rhythm.settle(p_now, t.ids, t.actions, t.payloads, t.attempts, t.lost, t.started, t.parents, t.operations, null)
    into v_queues
    from (select array_agg(u.id) as ids, array_agg(4::smallint) as actions, array_agg(u.payload) as payloads,
            array_agg(u.attempts) as attempts, array_agg(u.lost) as lost, array_agg(u.started) as started,
            array_agg(u.parent) as parents, array_agg(u.operation) as operations
          from unnest(p_ids, v_payloads, p_attempts, p_lost, p_started, v_parents, v_operations, v_workflow)
            u(id, payload, attempts, lost, started, parent, operation, workflow)
          where not u.workflow) t
    where t.ids is not null;
  if true = any(v_workflow) then
    v_more := rhythm.end_workflows(p_now, p_ids, array_fill(2::smallint, array[cardinality(p_ids)]), v_payloads,
      null, null, p_started, p_attempts, p_lost, v_parents, v_operations, v_workflow, v_workflow,
      array(select w.version from unnest(p_ids) with ordinality u(id, position)
            left join rhythm.waits w on w.id = u.id order by u.position));
    perform rhythm.forget_workflows(p_ids, p_ids);
  end if;
  perform rhythm.notify_idle(v_queues || v_more);
end $$;

-- Ends attempts that are past their timeout by more than their claim allows, whatever their worker's heartbeat says: up to
-- p_limit claims. They fail with type "timeout"; those that somebody has asked to cancel are cancelled. Their worker's
-- reports of them will be refused.
-- Returns how many attempts were ended. Internal.
create or replace function rhythm.expire_attempts(p_now timestamptz, p_limit integer) returns integer
language plpgsql as $$
declare
  v_claims bigint[];
  v_ids uuid[];
  v_actions smallint[];
  v_payloads bytea[];
  v_attempts integer[];
  v_lost integer[];
  v_started timestamptz[];
  v_parents uuid[];
  v_operations integer[];
begin
  select array_agg(c.id) into v_claims
    from (select c.id from rhythm.claims c where c.expires_at <= p_now order by c.id limit p_limit for update skip locked) c;
  if v_claims is null then
    return 0;
  end if;
  select coalesce(array_agg(u.id), '{}'), array_agg(u.attempts), array_agg(coalesce(u.lost, 0)), array_agg(c.started_at),
         array_agg(e.parent_id), array_agg(e.operation),
         array_agg(rhythm.as_payload(json_build_object('name', 'TimeoutError',
           'message', 'the attempt did not end within its timeout of ' || e.timeout_ms / 1000.0 || ' s', 'type', 'timeout',
           'attempts', u.attempts, 'retryable', true)::text))
    into v_ids, v_attempts, v_lost, v_started, v_parents, v_operations, v_payloads
    from rhythm.claims c, unnest(c.ids, c.attempts, c.lost) u(id, attempts, lost),
      lateral (select * from rhythm.executions e where e.id = u.id offset 0) e
    where c.id = any(v_claims) and e.timeout_ms > 0
      and c.started_at + make_interval(secs => e.timeout_ms / 1000.0 + case when c.single then 10 else 70 end) <= p_now;
  delete from rhythm.claims c where c.id = any(v_claims) and not exists (
    select from unnest(c.ids) u(id) where u.id is not null and u.id <> all(v_ids));
  update rhythm.claims c
    set ids = array(select case when u.id <> all(v_ids) then u.id end
                    from unnest(c.ids) with ordinality u(id, position) order by u.position),
        expires_at = (select c.started_at + make_interval(secs => min(e.timeout_ms) / 1000.0 + 70)
                      from rhythm.executions e
                      where e.id = any(c.ids) and e.id <> all(v_ids) and e.timeout_ms > 0)
    where c.id = any(v_claims);
  if v_ids = '{}' then
    return 0;
  end if;
  perform rhythm.lock_workflows(v_parents);
  select array_agg(case when c.id is not null then 3
                        when rhythm.retries_timeouts(e.retry) then 2 else 4 end::smallint order by u.position),
         array_agg(case when c.id is null then u.payload else rhythm.as_payload(json_build_object('name', 'CancelledError',
           'message', 'it did not stop within its timeout when it was asked to', 'type', 'cancelled',
           'attempts', u.attempts)::text) end order by u.position)
    into v_actions, v_payloads
    from unnest(v_ids, v_payloads, v_attempts) with ordinality u(id, payload, attempts, position)
    cross join lateral (select e.retry from rhythm.executions e where e.id = u.id offset 0) e
    left join lateral (select c.id from rhythm.cancels c where c.id = u.id offset 0) c on true;
  perform rhythm.notify_idle(rhythm.settle(p_now, v_ids, v_actions, v_payloads, v_attempts, v_lost, v_started, v_parents,
    v_operations, null));
  return cardinality(v_ids);
end $$;

-- Parks tasks that no live worker has known for a minute, so that people see why they wait, and returns those parked whose
-- names are known now. Returns how many were moved. Internal.
create or replace function rhythm.park_unknown(p_now timestamptz, p_limit integer) returns integer
language plpgsql as $$
declare
  v_names integer[];
  v_moved integer := 0;
  v_known integer[] := array(select distinct u.id from rhythm.workers w, unnest(w.name_ids) u(id));
begin
  update rhythm.names n set seen_at = p_now where n.id in (
    select n.id from rhythm.names n where n.id = any(v_known) and n.seen_at < p_now - interval '20 s'
      order by n.id for update skip locked);
  with recursive present as (
    (select r.queue_id, r.name_id from rhythm.ready r order by r.queue_id, r.name_id limit 1)
    union all
    select n.queue_id, n.name_id from present p cross join lateral (
      select r.queue_id, r.name_id from rhythm.ready r
        where (r.queue_id, r.name_id) > (p.queue_id, p.name_id) order by r.queue_id, r.name_id limit 1) n)
  select array_agg(distinct p.name_id) into v_names
    from present p join rhythm.names n on n.id = p.name_id
    where n.kind = 1 and n.id <> all(v_known) and n.seen_at < p_now - interval '60 s';
  if v_names is not null then
    with gone as (
      delete from rhythm.ready r where r.ctid = any(array(
        select r.ctid from unnest(v_names) n(id) cross join rhythm.queues q
          cross join lateral (select r.ctid from rhythm.ready r where r.queue_id = q.id and r.name_id = n.id
            order by r.priority_rank, r.seq limit p_limit for update skip locked) r limit p_limit))
      returning r.*)
    insert into rhythm.later (id, available_at, queue_id, name_id, seq, attempts, size, priority_rank, lost, reason)
      select g.id, 'infinity', g.queue_id, g.name_id, g.seq, g.attempts, g.size, g.priority_rank, g.lost, 3 from gone g;
    get diagnostics v_moved = row_count;
  end if;

  with recursive parked as (
    (select l.name_id from rhythm.later l where l.reason = 3 order by l.name_id limit 1)
    union all
    select n.name_id from parked p cross join lateral (
      select l.name_id from rhythm.later l where l.reason = 3 and l.name_id > p.name_id order by l.name_id limit 1) n)
  select array_agg(z.id) into v_names
    from parked p join rhythm.names z on z.id = p.name_id
    join rhythm.names n on n.id = coalesce(z.resolved_id, z.id)
    where (n.kind = 1 and n.id = any(v_known)) or (n.kind = 2 and n.definition_id is not null);
  if v_names is not null then
    v_moved := v_moved + rhythm.return_parked(p_now, v_names, p_limit);
  end if;
  return v_moved;
end $$;

-- Deletes executions that finished before p_before, up to p_limit; a child only when its
-- parent needs it no more. Their keys stay until they are 30 days old. Returns how many were deleted. Internal.
create or replace function rhythm.prune(p_before timestamptz, p_limit integer) returns integer
language plpgsql as $$
declare
  v_ids uuid[];
begin
  select array_agg(f.id) into v_ids
    from (select o.id from rhythm.outcomes o join rhythm.executions e on e.id = o.id
          where o.finished_at < p_before
            and not exists (select from rhythm.waits w where w.id = e.parent_id)
            and not exists (select from rhythm.snapshots s where s.id = e.parent_id)
          limit p_limit for update of o skip locked) f;
  delete from rhythm.keys k using rhythm.executions e
    where e.id = any(v_ids) and k.name_id = e.name_id and k.key = e.key and k.execution_id = e.id
      and k.created_at < rhythm.now() - interval '30 days';
  perform rhythm.forget_workflows(v_ids);
  delete from rhythm.signals s where s.execution_id = any(v_ids);
  delete from rhythm.cancels c where c.id = any(v_ids);
  delete from rhythm.failures f where f.id = any(v_ids);
  delete from rhythm.outcomes o where o.id = any(v_ids);
  delete from rhythm.executions e where e.id = any(v_ids);
  update rhythm.maintenance m set pruned_at = rhythm.now() where m.pruned_at not between rhythm.now() - interval '1 h' and rhythm.now();
  if found then
    delete from rhythm.keys k where k.created_at < rhythm.now() - interval '30 days'
      and not exists (select from rhythm.executions e where e.id = k.execution_id);
  end if;
  return coalesce(cardinality(v_ids), 0);
end $$;

-- What people ask.

-- Every execution with its status, why it is pending, and its payloads decoded (null when SQL cannot read them).
create or replace view rhythm.executions_view as
  select e.id,
    case coalesce(n.kind, 0) when 2 then 'workflow' else 'task' end as kind,
    n.name,
    case when o.id is not null then (array['completed', 'failed', 'cancelled'])[o.status]
         when r.id is not null or l.id is not null then 'pending'
         when w.suspended then 'suspended'
         else 'running' end as status,
    case when o.id is not null then null
         when r.id is not null then 'ready'
         when l.id is not null then (array['later', 'retry', 'unknown task'])[l.reason] end as reason,
    coalesce(q.name, 'default') as queue,
    coalesce(e.priority, 0::smallint) as priority,
    e.key, e.tags,
    greatest(coalesce(o.attempts, r.attempts, l.attempts, c.attempts), case when w.version > 0 then 1 else 0 end) as attempts,
    coalesce(o.lost, r.lost, l.lost, c.lost, 0::smallint)::integer as lost,
    e.parent_id, e.operation, coalesce(e.root_id, e.id) as root_id,
    d.hash as definition_hash, coalesce(w.definition_id, e.definition_id) as definition_id,
    e.created_at,
    case when l.id is not null and l.reason <> 3 then l.available_at end as available_at,
    coalesce(o.started_at, w.started_at, c.started_at) as started_at,
    o.finished_at, o.unread_signals,
    s.line, s.function, rhythm.as_json(s.awaiting) as awaiting, s.taken_at as suspended_at,
    rhythm.as_json(e.inputs) as inputs,
    case when o.status = 1 then rhythm.as_json(o.payload) end as output,
    case when o.status <> 1 then rhythm.as_json(o.payload) end as error,
    rhythm.as_json(f.payload) as last_failure, f.failed_at as last_failure_at,
    e.inputs as inputs_payload, o.payload as outcome_payload, f.payload as failure_payload
  from rhythm.executions e
  join rhythm.names z on z.id = e.name_id
  join rhythm.names n on n.id = coalesce(z.resolved_id, z.id)
  left join rhythm.queues q on q.id = coalesce(e.queue_id, case when n.registered_at is not null then n.queue_id end)
  left join rhythm.outcomes o on o.id = e.id
  left join rhythm.ready r on r.queue_id = e.queue_id and r.priority_rank = -e.priority and r.seq = e.seq
    and r.name_id = case when e.definition_id is null then e.name_id else 0 end
  left join rhythm.later l on l.id = e.id
  left join rhythm.waits w on w.id = e.id
  left join rhythm.definitions d on d.id = e.definition_id
  left join rhythm.snapshots s on s.id = e.id
  left join rhythm.failures f on f.id = e.id
  left join lateral (
    select u.attempts, u.lost, c.started_at
      from rhythm.claims c, unnest(c.ids, c.attempts, c.lost) u(id, attempts, lost)
      where u.id = e.id and o.id is null and r.id is null and l.id is null and not coalesce(w.suspended, false)
      limit 1) c on o.id is null and r.id is null and l.id is null and not coalesce(w.suspended, false);

-- Executions, newest first (by id), that fit everything given: up to p_limit, those before the id p_before.
-- Returns rows of executions_view. Raises nothing.
create or replace function rhythm.list_executions(
  p_id uuid default null, p_statuses text[] default null, p_name text default null, p_kind text default null,
  p_queue text default null, p_parent uuid default null, p_tags text default null, p_before uuid default null,
  p_limit integer default 100, p_key text default null)
returns setof rhythm.executions_view
language plpgsql stable as $$
begin
  if p_id is not null then
    return query select v.* from rhythm.executions_view v where v.id = p_id;
  elsif p_parent is not null then
    return query select v.* from rhythm.executions_view v
      where v.parent_id = p_parent and (p_statuses is null or v.status = any(p_statuses)) and (p_name is null or v.name = p_name)
        and (p_kind is null or v.kind = p_kind) and (p_queue is null or v.queue = p_queue)
        and (p_tags is null or v.tags @> p_tags::jsonb) and (p_key is null or v.key = p_key) and (p_before is null or v.id < p_before)
      order by v.id desc limit p_limit;
  elsif not 'completed' = any(p_statuses) then
    return query select v.* from (
        select r.id from rhythm.ready r where 'pending' = any(p_statuses)
        union all select l.id from rhythm.later l where 'pending' = any(p_statuses)
        union all select u.id from rhythm.claims c, unnest(c.ids) u(id) where 'running' = any(p_statuses)
        union all select w.id from rhythm.waits w where 'suspended' = any(p_statuses) and w.suspended
        union all select o.id from rhythm.outcomes o where p_statuses && array['failed', 'cancelled'] and o.status <> 1) c
      join rhythm.executions_view v on v.id = c.id
      where v.status = any(p_statuses) and (p_name is null or v.name = p_name)
        and (p_kind is null or v.kind = p_kind) and (p_queue is null or v.queue = p_queue)
        and (p_tags is null or v.tags @> p_tags::jsonb) and (p_key is null or v.key = p_key) and (p_before is null or v.id < p_before)
      order by v.id desc limit p_limit;
  else
    return query select v.* from rhythm.executions_view v
      where (p_statuses is null or v.status = any(p_statuses)) and (p_name is null or v.name = p_name)
        and (p_kind is null or v.kind = p_kind) and (p_queue is null or v.queue = p_queue)
        and (p_tags is null or v.tags @> p_tags::jsonb) and (p_key is null or v.key = p_key) and (p_before is null or v.id < p_before)
      order by v.id desc limit p_limit;
  end if;
end $$;

-- The children of a workflow that stand for the given operations. Returns rows of executions_view. Raises nothing.
create or replace function rhythm.children_of(p_parent uuid, p_operations integer[])
returns setof rhythm.executions_view
language plpgsql stable as $$
begin
  return query select v.* from unnest(p_operations) u(operation)
    cross join lateral (
      select e.id from rhythm.executions e where e.parent_id = p_parent and e.operation = u.operation offset 0) e
    cross join lateral (select v.* from rhythm.executions_view v where v.id = e.id offset 0) v;
end $$;

-- The outcomes of those of the given executions that have finished, and which of the others exist.
-- Returns one row per execution that exists; status is null while it has not finished. Raises nothing.
create or replace function rhythm.outcomes_of(p_ids uuid[])
returns table (id uuid, status text, payload bytea, attempts integer, lost smallint, finished_at timestamptz)
language sql stable as $$
  select e.id, (array['completed', 'failed', 'cancelled'])[o.status], o.payload, o.attempts, o.lost, o.finished_at
    from unnest(p_ids) u(id) join rhythm.executions e on e.id = u.id left join rhythm.outcomes o on o.id = u.id
$$;

-- A workflow's last snapshot and where it stands. Returns no row when there is none. Raises nothing.
create or replace function rhythm.snapshot_of(p_id uuid)
returns table (id uuid, version integer, definition_id bigint, snapshot bytea, line integer, function text, awaiting bytea,
  taken_at timestamptz)
language sql stable as $$
  select s.id, s.version, e.definition_id, s.snapshot, s.line, s.function, s.awaiting, s.taken_at
    from rhythm.snapshots s join rhythm.executions e on e.id = s.id where s.id = p_id
$$;

-- Each queue's figures. Parked executions count as pending. Counts every row that is not finished, and what has finished
-- within the last minute. Raises nothing.
create or replace function rhythm.list_queues()
returns table (queue text, pending bigint, running bigint, suspended bigint, oldest_pending_seconds double precision,
  paused boolean, finished_per_minute bigint)
language sql stable as $$
  with p as (
    select s.queue_id, count(*) as pending, min(s.oldest) as oldest from (
      select r.queue_id, r.seq as oldest from rhythm.ready r
      union all select coalesce(l.queue_id, 1), l.seq from rhythm.later l) s group by s.queue_id),
  c as (
    select e.queue_id, count(*) as running from rhythm.claims c, unnest(c.ids) u(id)
      join rhythm.executions e on e.id = u.id group by e.queue_id),
  w as (select w.queue_id, count(*) as suspended from rhythm.waits w where w.suspended group by w.queue_id),
  f as (
    select e.queue_id, count(*) as finished from rhythm.outcomes o join rhythm.executions e on e.id = o.id
      where o.finished_at > (select rhythm.now() - interval '1 min') group by e.queue_id)
  select q.name, coalesce(p.pending, 0), coalesce(c.running, 0), coalesce(w.suspended, 0),
    (select case when o.age < 0 then 0 else o.age end
     from (select extract(epoch from rhythm.now() - min(e.created_at))::double precision as age from (
        (select r.id from rhythm.ready r where r.queue_id = q.id order by r.name_id, r.priority_rank, r.seq limit 1)
        union all select r.id from rhythm.ready r where r.queue_id = q.id and r.seq = p.oldest
        union all select l.id from rhythm.later l where l.queue_id = q.id and l.seq = p.oldest) o
        join rhythm.executions e on e.id = o.id) o), q.paused, coalesce(f.finished, 0)
    from rhythm.queues q left join p on p.queue_id = q.id left join c on c.queue_id = q.id left join w on w.queue_id = q.id
      left join f on f.queue_id = q.id
    order by q.name
$$;

-- Live worker incarnations, how many executions each holds, and which of its tasks another of them has registered
-- differently. Raises nothing.
create or replace function rhythm.list_workers()
returns table (incarnation uuid, host text, pid integer, version text, queues text[], tasks text[], workflows boolean,
  running bigint, started_at timestamptz, seen_seconds_ago double precision, heartbeat_timeout_seconds double precision,
  conflicts text[])
language sql stable as $$
  with conflicts as materialized (
    select m.id from rhythm.workers w, unnest(w.name_ids, w.name_digests) m(id, digest)
      group by m.id having min(m.digest) <> max(m.digest))
  select w.incarnation, w.host, w.pid, w.version,
    array(select q.name from rhythm.queues q where q.id = any(w.queue_ids) order by q.name),
    array(select n.name from rhythm.names n where n.id = any(w.name_ids) order by n.name), w.workflows,
    (select count(*) from rhythm.claims c, unnest(c.ids) u(id) where c.incarnation = w.incarnation and u.id is not null),
    w.started_at, extract(epoch from rhythm.now() - w.seen_at)::double precision, w.heartbeat_timeout_ms / 1000.0,
    array(select n.name from conflicts x join rhythm.names n on n.id = x.id where x.id = any(w.name_ids) order by n.name)
    from rhythm.workers w order by w.started_at, w.incarnation
$$;

-- Whether a live worker could run an execution: it claims from its queue and knows its task, or runs workflows.
-- Returns null when there is no such execution, or it has finished. Raises nothing.
create or replace function rhythm.can_run(p_id uuid) returns boolean
language sql stable as $$
  select exists (
      select from rhythm.workers w
        where e.queue_id = any(w.queue_ids) and (e.name_id = any(w.name_ids) or (e.definition_id is not null and w.workflows))
          and w.seen_at + make_interval(secs => w.heartbeat_timeout_ms / 1000.0) > rhythm.now())
    from rhythm.executions e
    where e.id = p_id and not exists (select from rhythm.outcomes o where o.id = e.id)
$$;

-- Stops or resumes claiming from a queue; what runs is not touched. Returns nothing. Raises RH003 for an unknown queue.
create or replace function rhythm.pause_queue(p_queue text, p_paused boolean) returns void
language plpgsql as $$
begin
  update rhythm.queues q set paused = p_paused where q.name = p_queue;
  if not found then
    raise exception 'no queue is named %', p_queue using errcode = 'RH003';
  end if;
end $$;

-- What must hold at every moment, as far as tables can tell.

-- Looks for breaches of the invariants. Reads everything: for tests and for doubts, not for routine.
-- Returns a row per breach: which invariant, the execution concerned (or null), and what is wrong. Raises nothing.
--
-- I1 every execution is finished, or stands somewhere with a reason   I4 nothing is left of what fencing has ended
-- I2 results are applied to parents exactly once                      I5 signals are delivered once, in order
-- I3 each execution stands in exactly one place, attempts add up      I6 no timer is early, or fires twice
create or replace function rhythm.find_breaches()
returns table (invariant text, execution_id uuid, problem text)
language sql stable as $$
  with places as (
    select r.id, 'ready' as place from rhythm.ready r
    union all select l.id, 'later' from rhythm.later l
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
$$;

-- What every function that is called from outside runs under. No session state is needed or changed.
--
-- security definer: callers need nothing but the right to execute (see roles.sql). Therefore the fixed search_path; and
-- everything is written with its schema.
-- The plans of the hot statements must not depend on statistics: tables are empty one moment and huge the next, and a plan
-- made for an empty table would live on. There is one right plan for each, by index; others are switched off. And since
-- a table believed to be empty is cheap to read in any way, hot statements look rows up in lateral subqueries with
-- `offset 0`, which cannot be turned into joins, and never with a condition that a partial index also has.
do $settings$
declare
  v_function regprocedure;
  v_name text;
begin
  for v_function, v_name in
    select p.oid::regprocedure, p.proname from pg_proc p where p.pronamespace = 'rhythm'::regnamespace
      and p.proname in (
        'start_many', 'start', 'publish', 'definition', 'register_worker', 'unregister_worker', 'exchange', 'step',
        'heartbeat', 'maintain', 'held', 'hand_back', 'complete', 'signal', 'send_signal', 'cancel', 'terminate', 'retry',
        'start_again', 'list_executions', 'children_of', 'outcomes_of', 'snapshot_of', 'list_queues',
        'count_staying', 'task_schemas',
        'list_workers', 'can_run', 'pause_queue', 'find_breaches')
  loop
    execute format('alter function %s security definer set search_path = pg_catalog, pg_temp set jit = off', v_function);
    if v_name in ('start_many', 'exchange', 'step', 'heartbeat', 'maintain', 'hand_back', 'complete', 'signal', 'send_signal',
        'cancel', 'terminate', 'retry', 'start_again') then
      execute format('alter function %s set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off '
        'set enable_mergejoin = off set enable_material = off set plan_cache_mode = force_generic_plan', v_function);
    end if;
  end loop;
  -- the index on finished_at is a brin one, which is read by bitmaps only
  alter function rhythm.prune(timestamptz, integer) set enable_bitmapscan = on;
  revoke execute on all functions in schema rhythm from public;
end $settings$;

insert into rhythm.migrations (version, name, digest) values (1, 'initial', '5580f9eb112780f7a3e825fc8e71c51dbb47df66695db6f4b8a81bbdfbcc9bff');
