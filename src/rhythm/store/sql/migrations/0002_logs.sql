-- Lines that workflows have logged: rows of an execution are written and dropped by whoever has locked its row in waits,
-- and deleted with the execution. See functions/logs.sql.
create table rhythm.logs (
  id uuid not null,                               -- the workflow
  number integer not null,                        -- from 1, without gaps; the oldest are dropped
  level smallint not null,                        -- 1 debug   2 info   3 warn   4 error
  logged_at timestamptz not null,                 -- of the commit
  ends_at bigint not null,                        -- bytes of all its lines so far, this one included
  text bytea not null,                            -- a JSON string, codec byte in front
  primary key (id, number)
) with (autovacuum_vacuum_scale_factor = 0.05);
alter table rhythm.logs alter column text set storage external;

-- They get arguments more.
drop function if exists rhythm.exchange;
drop function if exists rhythm.step;
