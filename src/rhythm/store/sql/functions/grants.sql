-- What the role of workers and clients may do (see roles.sql), where it has been let into the schema: every function
-- that is called from outside, and reading through rhythm.executions_view. Put in place again with the functions, so
-- that a migration leaves nobody without a right.
do $grants$
declare
  v_function regprocedure;
begin
  if not exists (
      select from pg_roles where rolname = 'rhythm_worker' and has_schema_privilege(oid, 'rhythm', 'usage')) then
    return;
  end if;
  for v_function in
    select p.oid::regprocedure from pg_proc p where p.pronamespace = 'rhythm'::regnamespace
      and (p.prosecdef or p.proname in ('now', 'new_id', 'as_json', 'as_payload', 'protocol'))
      and p.proname <> 'find_breaches'
  loop
    execute format('grant execute on function %s to rhythm_worker', v_function);
  end loop;
  grant select on rhythm.executions_view, rhythm.migrations, rhythm.queues, rhythm.names to rhythm_worker;
end $grants$;
