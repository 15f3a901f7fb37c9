-- A role for workers and clients that can do what Rhythm needs and nothing else: no tables, no DDL.
-- Run by the owner of the schema after every migration, with the right to create roles; its text is also
-- rhythm.store.migrations.roles_sql(). Then: grant rhythm_worker to your_login_role.
--
-- Reading through rhythm.executions_view needs nothing more. Moving the clock and migrating stay with the owner.
do $roles$
declare
  v_function regprocedure;
begin
  if not exists (select from pg_roles where rolname = 'rhythm_worker') then
    create role rhythm_worker nologin;
  end if;
  grant usage on schema rhythm to rhythm_worker;
  for v_function in
    select p.oid::regprocedure from pg_proc p where p.pronamespace = 'rhythm'::regnamespace
      and (p.prosecdef or p.proname in ('now', 'new_id', 'as_json', 'as_payload')) and p.proname <> 'find_breaches'
  loop
    execute format('grant execute on function %s to rhythm_worker', v_function);
  end loop;
  grant select on rhythm.executions_view, rhythm.migrations, rhythm.queues, rhythm.names to rhythm_worker;
end $roles$;
