-- A role for workers and clients that can do what Rhythm needs and nothing else: no tables, no DDL.
-- Run once by the owner of the schema, with the right to create roles; its text, with functions/grants.sql after it, is
-- also rhythm.store.migrations.roles_sql(). Then: grant rhythm_worker to your_login_role.
--
-- Moving the clock and migrating stay with the owner.
do $roles$
begin
  if not exists (select from pg_roles where rolname = 'rhythm_worker') then
    create role rhythm_worker nologin;
  end if;
  grant usage on schema rhythm to rhythm_worker;
end $roles$;
