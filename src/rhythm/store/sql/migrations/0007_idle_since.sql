-- Who fell asleep last is woken first: it is the likeliest to be alive. See rhythm.notify_idle.
alter table rhythm.idle add column since timestamptz not null default clock_timestamp();
create index idle_since on rhythm.idle (queue_id, since);
