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
        'start_again', 'list_executions', 'children_of', 'outcomes_of', 'snapshot_of', 'logs_of', 'note_progress', 'reads_plain_only', 'list_queues',
        'count_staying', 'task_schemas',
        'list_workers', 'can_run', 'pause_queue', 'limit_queue', 'gate_of', 'find_breaches')
  loop
    execute format('alter function %s security definer set search_path = pg_catalog, pg_temp set jit = off', v_function);
    if v_name in ('start_many', 'exchange', 'step', 'heartbeat', 'maintain', 'hand_back', 'complete', 'signal', 'send_signal',
        'cancel', 'terminate', 'retry', 'start_again') then
      execute format('alter function %s set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off '
        'set enable_mergejoin = off set enable_material = off set plan_cache_mode = force_generic_plan', v_function);
    end if;
  end loop;
  -- the index on finished_at is a brin one, which is read by bitmaps only
  alter function rhythm.prune(timestamptz, timestamptz, integer) set enable_bitmapscan = on;
  revoke execute on all functions in schema rhythm from public;
end $settings$;
