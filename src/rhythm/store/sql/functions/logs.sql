-- The logs of executions: what workflows say with console, and warnings of the engine. Lines are written in the
-- transaction of the commit that brings them, and only if that counts, so that a step that is repeated says nothing
-- twice. A log keeps its newest 1,000 lines and 1 MiB.

-- Appends lines to the logs of workflows, in the order given, and drops the oldest where a log is full. Parallel arrays;
-- texts are JSON strings with a codec byte in front. The caller has locked the workflows. Returns nothing. Internal.
-- Raises nothing.
create or replace function rhythm.write_logs(p_now timestamptz, p_ids uuid[], p_levels smallint[], p_texts bytea[])
returns void
language plpgsql as $$
begin
  insert into rhythm.logs (id, number, level, logged_at, ends_at, text)
    select u.id, coalesce(l.number, 0) + u.place, u.level, p_now,
           coalesce(l.ends_at, 0) + sum(octet_length(u.text)) over (partition by u.id order by u.place), u.text
      from (select u.*, row_number() over (partition by u.id order by u.position) as place
              from unnest(p_ids, p_levels, p_texts) with ordinality u(id, level, text, position)) u
      left join lateral (
        select l.number, l.ends_at from rhythm.logs l where l.id = u.id order by l.number desc limit 1) l on true;
  delete from rhythm.logs l where l.ctid = any(array(
    select l.ctid
      from (select distinct u.id from unnest(p_ids) u(id)) u
      cross join lateral (
        select l.number, l.ends_at from rhythm.logs l where l.id = u.id order by l.number desc limit 1) newest
      cross join lateral (
        select l.number, l.ends_at - octet_length(l.text) as begins_at from rhythm.logs l
          where l.id = u.id order by l.number limit 1) oldest
      cross join lateral (
        select l.ctid from rhythm.logs l
          where l.id = u.id and (l.number <= newest.number - 1000
                                 or l.ends_at - octet_length(l.text) < newest.ends_at - 1048576) offset 0) l
      where oldest.number <= newest.number - 1000 or oldest.begins_at < newest.ends_at - 1048576));
end $$;

-- The log of an execution, oldest first: lines of at least the level p_level (1 debug … 4 error) with a number above
-- p_after, of these the newest p_newest (null: all). Where lines are missing in front of those that are kept, the first
-- row says how many, as the last of them.
-- Returns a row per line; text is a JSON string with a codec byte in front. Tasks have no lines. Raises RH003 when there
-- is no such execution.
create or replace function rhythm.logs_of(
  p_id uuid, p_after integer default 0, p_level smallint default 1, p_newest integer default null)
returns table (number integer, level smallint, logged_at timestamptz, text bytea)
language plpgsql stable as $$
declare
  v_oldest rhythm.logs;
begin
  if not exists (select from rhythm.executions e where e.id = p_id) then
    raise exception 'no execution has the id %', p_id using errcode = 'RH003';
  end if;
  select l.* into v_oldest from rhythm.logs l where l.id = p_id order by l.number limit 1;
  return query select n.number, n.level, n.logged_at, n.text
    from (select l.number, l.level, l.logged_at, l.text from rhythm.logs l
            where l.id = p_id and l.number > p_after and l.level >= p_level
          union all
          select v_oldest.number - 1, 3::smallint, v_oldest.logged_at, rhythm.as_payload(to_json(format(
              '%s older lines were dropped: a log keeps the newest 1,000 and 1 MiB',
              to_char(v_oldest.number - 1 - p_after, 'FM999,999,999')))::text)
            where v_oldest.number - 1 > p_after and p_level <= 3
          order by 1 desc limit p_newest) n
    order by n.number;
end $$;
