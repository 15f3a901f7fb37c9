-- Maintenance is told for how long idempotency keys are kept at least: these get an argument more.
drop function if exists rhythm.maintain;
drop function if exists rhythm.prune;
