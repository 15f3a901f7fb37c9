-- The progress of running tasks, as they tell it themselves: for people who look at them, nothing depends on it.

-- Notes how far executions are that an incarnation holds. Parallel arrays; those that it does not hold are passed over.
-- Returns nothing. Raises nothing.
create or replace function rhythm.note_progress(p_incarnation uuid, p_ids uuid[], p_values bytea[]) returns void
language plpgsql as $$
begin
  insert into rhythm.progress as g (id, noted_at, value)
    select distinct on (u.id) u.id, rhythm.now(), u.value
      from rhythm.claims c, unnest(c.ids) m(id), unnest(p_ids, p_values) u(id, value)
      where c.incarnation = p_incarnation and u.id = m.id
      order by u.id
    on conflict (id) do update set noted_at = excluded.noted_at, value = excluded.value;
end $$;
