-- Clock, ids, payloads, backoff.

-- The number of the protocol that these functions are. A worker of another one does not register: raised whenever an
-- older worker would misread an answer or leave something out. 2: snapshots may be compressed. Raises nothing.
create or replace function rhythm.protocol() returns integer
language sql immutable as $$ select 2 $$;

-- The time by which everything is decided. Volatile; a function calls it once and keeps it. Raises nothing.
create or replace function rhythm.now() returns timestamptz
language sql volatile as $$
  select coalesce(c.frozen_at, clock_timestamp() + c.moved_by) from rhythm.clock c
$$;

-- A UUID of version 7 by the server's clock (PostgreSQL has its own from version 18 on). Raises nothing.
create or replace function rhythm.new_id() returns uuid
language sql volatile as $$
  select encode(
    set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
      substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1),
    'hex')::uuid
$$;

-- What a payload says, for people; null when it is stored in a form that SQL cannot read. Type json, not jsonb:
-- key order, U+0000 and lone surrogates stay as they are. Raises nothing.
create or replace function rhythm.as_json(p_payload bytea) returns json
language sql immutable as $$
  select case when get_byte(p_payload, 0) = 1 then convert_from(substring(p_payload from 2), 'UTF8')::json end
$$;

-- The payload of a JSON text: escaped to ASCII, codec byte in front. Raises nothing of its own.
create or replace function rhythm.as_payload(p_json text) returns bytea
language sql immutable as $$
  select '\x01'::bytea || convert_to(
    case when p_json !~ '[^\x01-\x7f]' then p_json else (
      select string_agg(
        case when ascii(c.letter) < 128 then c.letter
             when ascii(c.letter) < 65536 then '\u' || lpad(to_hex(ascii(c.letter)), 4, '0')
             else '\u' || to_hex(55296 + ((ascii(c.letter) - 65536) >> 10))
               || '\u' || to_hex(56320 + ((ascii(c.letter) - 65536) & 1023)) end, '' order by c.position)
      from regexp_split_to_table(p_json, '') with ordinality c(letter, position)) end, 'UTF8')
$$;

-- The retry policy of an execution: what it was given itself, the rest from its name's registration. Raises nothing.
create or replace function rhythm.merge_retry(p_registered jsonb, p_given jsonb) returns jsonb
language sql immutable as $$
  select case when p_given is null then p_registered when p_registered is null then p_given else p_registered || p_given end
$$;

-- Whether a retry policy (null: the default one) allows another attempt after one that ran into its timeout: errors are
-- named as in the worker, by their class and those it derives from. Raises nothing.
create or replace function rhythm.retries_timeouts(p_retry jsonb) returns boolean
language sql immutable as $$
  select case when p_retry is null then true
    when p_retry -> 'no_retry_on' ?| n.names then false
    when jsonb_array_length(p_retry -> 'retry_on') > 0 then p_retry -> 'retry_on' ?| n.names
    else true end
  from (select array['TaskTimeout', 'RhythmError', 'TimeoutError', 'OSError', 'Exception', 'BaseException'] as names) n
$$;

-- Seconds to wait before the next attempt after p_failures reported failures (from 1), by the policy p_retry
-- (null: first 1 s, doubled, at most 5 minutes, a fifth of it random). Raises nothing for policies that were checked.
create or replace function rhythm.backoff(p_retry jsonb, p_failures integer) returns double precision
language plpgsql volatile as $$
declare
  v_initial double precision := coalesce((p_retry ->> 'initial')::double precision, 1);
  v_factor double precision := coalesce((p_retry ->> 'factor')::double precision, 2);
  v_max double precision := coalesce((p_retry ->> 'max')::double precision, 300);
  v_jitter double precision := coalesce((p_retry ->> 'jitter')::double precision, 0.2);
  v_delay double precision := v_max;
begin
  -- compared as logarithms: the power itself may be out of range
  if v_initial <= 0 then
    v_delay := 0;
  elsif v_max > 0 and ln(v_initial) + (p_failures - 1) * ln(greatest(v_factor, 1)) < ln(v_max) then
    v_delay := v_initial * power(greatest(v_factor, 1), p_failures - 1);
  end if;
  return greatest(v_delay * (1 + v_jitter * (2 * random() - 1)), 0);
end $$;

-- p_from plus seconds (null: null), as far as dates reach: a sleep of a million years does not end, and is no error.
-- Raises nothing.
create or replace function rhythm.time_after(p_from timestamptz, p_seconds double precision) returns timestamptz
language sql immutable as $$
  select p_from + make_interval(secs => case when p_seconds < -1e9 then -1e9 when p_seconds > 1e11 then 1e11 else p_seconds end)
$$;
