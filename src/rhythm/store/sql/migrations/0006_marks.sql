-- Low-water marks of the queues: below which seq nothing stands in ready any more, so that claims need not walk over what
-- others have deleted while some session's snapshot keeps it from being cleaned up. See functions/marks.sql.

-- What comes back to ready (woken, delayed, tried again) comes with the seq it has always had, below any mark: it is found by
-- an index of its own. Null: it stands in ready for the first time, since the transaction that drew its seq.
alter table rhythm.ready add column returned_seq bigint;  -- seq, of what has come back
create index ready_returned on rhythm.ready (queue_id, name_id, priority_rank, returned_seq) where returned_seq is not null;

-- Of each queue and name (as in ready) the row with the highest number counts. A new one is inserted and the last one deleted by its
-- key, never updated, so that reading the newest does not walk over what was. Marks are hints that can be found again: a crash may lose them.
create unlogged table rhythm.marks (
  queue_id integer not null,
  name_id integer not null,
  number bigint generated always as identity,
  noted_at timestamptz not null,
  tested_at timestamptz not null,                 -- when the whole index was last walked
  walked bigint not null,                         -- index entries read then
  server_started_at timestamptz not null,         -- transactions are told apart until the server's next start only
  ranks smallint[] not null,                      -- priority ranks that have a mark
  seqs bigint[] not null,                         -- the marks
  candidate bigint not null,                      -- a seq that counts as a bound when all of writers have ended,
  candidate_at timestamptz not null,
  writers text[] not null,                        -- which may yet commit rows up to it: virtual transaction ids
  doubtful text[] not null,                       -- those that were not waited for: when one ends, the marks are found anew
  primary key (queue_id, name_id, number)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
