-- Limits of queues: what waits at a gate, what holds a place, what has passed lately. See functions/gates.sql.
--
--   gated      waits at the gate of its queue, which has limits        status pending
--
-- Locks: gates (queue id) come after names and before timers, later and ready; rows of gated are like those of ready.

alter table rhythm.queues add column limited boolean not null default false;  -- it has a row in gates
create index queues_limited on rhythm.queues (id) where limited;

alter table rhythm.executions add column limit_key text check (length(limit_key) between 1 and 200);
-- A member may hold a place: it is given back when the member is let go.
alter table rhythm.claims add column gated boolean not null default false;

-- The limits of a queue (null: none), and whose turn it is. The row's lock is the gate.
create table rhythm.gates (
  queue_id integer primary key references rhythm.queues,
  set_at timestamptz not null,                    -- when the limits were last changed
  concurrency integer check (concurrency between 1 and 1000000),
  rate integer check (rate between 1 and 1000000),                        -- passes in any rate_seconds
  rate_seconds double precision check (rate_seconds between 0.001 and 2678400),
  key_concurrency integer check (key_concurrency between 1 and 1000000),  -- the same for each limit key
  key_rate integer check (key_rate between 1 and 1000000),
  key_rate_seconds double precision check (key_rate_seconds between 0.001 and 2678400),
  turn text collate "C" not null default '',      -- the limit key that passed last: the next one is the first after it
  check ((rate is null) = (rate_seconds is null)),
  check ((key_rate is null) = (key_rate_seconds is null)),
  check (coalesce(concurrency, rate, key_concurrency, key_rate) is not null)
) with (fillfactor = 50);

create table rhythm.gated (
  queue_id integer not null,
  name_id integer not null,                       -- as in ready
  limit_key text collate "C" not null,            -- '': none
  priority_rank smallint not null,
  seq bigint not null,
  lost smallint not null,
  attempts integer not null,
  size integer not null,
  id uuid not null,
  primary key (queue_id, name_id, limit_key, priority_rank, seq)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
create index gated_suspects on rhythm.gated (queue_id, name_id, priority_rank, seq) where lost > 0;

-- Executions of limited queues that have begun and not finished; a suspended workflow is one of them.
create table rhythm.places (
  id uuid primary key,
  queue_id integer not null,
  limit_key text collate "C" not null,
  since timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
create index places_queue on rhythm.places (queue_id, limit_key);

-- What has passed gates with a rate, within its period: numbered without gaps, for the queue (limit_key '') and for
-- each limit key.
create table rhythm.passes (
  queue_id integer not null,
  limit_key text collate "C" not null,
  number bigint not null,
  at timestamptz not null,
  primary key (queue_id, limit_key, number)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
create index passes_at on rhythm.passes (queue_id, at);

-- These have other arguments or answers from here on.
drop function if exists rhythm.exchange;
drop function if exists rhythm.report;
drop function if exists rhythm.end_claims;
drop function if exists rhythm.split_claim;
drop function if exists rhythm.add_claim;
drop function if exists rhythm.commit_workflows;
drop function if exists rhythm.start_children;
drop function if exists rhythm.insert_executions;
drop function if exists rhythm.insert_rows;
drop function if exists rhythm.start_many;
drop function if exists rhythm.start;
drop function if exists rhythm.list_queues;
