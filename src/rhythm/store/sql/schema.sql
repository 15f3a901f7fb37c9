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
