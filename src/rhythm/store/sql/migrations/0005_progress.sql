-- What running tasks have said of how far they are: written by the worker that holds them, with its heartbeat, and deleted
-- with the execution. See functions/progress.sql.
create table rhythm.progress (
  id uuid primary key,                            -- the execution
  noted_at timestamptz not null,
  value bytea not null                            -- JSON, codec byte in front
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
