-- Worker incarnations that have ended or died, until nothing that they claimed is left and none of their exchanges can commit
-- a claim any more: what maintenance takes over is found by these, and not by looking through all claims.
create table rhythm.departed (
  incarnation uuid primary key,
  since timestamptz not null
);
insert into rhythm.departed (incarnation, since)
  select distinct c.incarnation, clock_timestamp() from rhythm.claims c
    where not exists (select from rhythm.workers w where w.incarnation = c.incarnation);
drop function if exists rhythm.bury_workers(timestamptz);  -- it returned the dead
