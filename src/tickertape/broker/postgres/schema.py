"""The tables and functions in PostgreSQL: each atomic step is one call.

An append is one function call in its own transaction, which begins and ends on the server: the row
with the newest offset is locked while the server works, never while it waits for a client. So the order
of offsets is the order of commits, and a client that stalls or dies does not delay others.

Text is kept as bytes in UTF-8 (``convert_from(data, 'UTF8')`` shows it), so any event is kept as it was
published, whatever the encoding of the database, U+0000 included.

- ``meta``, one row: the schema's version; ``epoch`` and the ``life`` of the server that it is bound to;
  the oldest and the newest offset, and the bytes between them;
- ``log``: the records, with their idempotency keys, which are unique among the records that are kept;
- ``outbox``: events published inside transactions, until they are moved into the log.

``life`` names one history of a database: the system identifier, which changes with a restored dump, and the
timeline, which changes with a promoted standby and a restored backup. If a server reports neither, it is
``unknown``, and a loss is noticed only by a process that has seen the lost records.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 1
"""The version of the tables and functions. Another one is refused."""

OUTBOX_WAKE: Final = "outbox"
"""The payload of a notification after a publication inside a transaction."""

_SCHEMA: Final = """
CREATE SCHEMA IF NOT EXISTS "$schema";

CREATE TABLE "$schema".meta (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  version integer NOT NULL,
  epoch text,
  life text,
  oldest bigint NOT NULL DEFAULT 1,
  newest bigint NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

CREATE TABLE "$schema".log (
  "offset" bigint PRIMARY KEY,
  topic bytea NOT NULL,
  event bytea,
  data bytea NOT NULL,
  key bytea,
  size integer NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX log_key ON "$schema".log (key) WHERE key IS NOT NULL;

CREATE TABLE "$schema".outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic bytea NOT NULL,
  event bytea,
  data bytea NOT NULL,
  key bytea NOT NULL
);

-- Wakes all hubs; they read the records from the tables.
CREATE FUNCTION "$schema".wake(what text) RETURNS void LANGUAGE sql AS $body$
  SELECT pg_notify('$channel', what);
$body$;

CREATE FUNCTION "$schema".life() RETURNS text LANGUAGE plpgsql AS $body$
BEGIN
  RETURN (SELECT system_identifier FROM pg_control_system())
    || '/' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8);
EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN
  RETURN 'unknown';
END $body$;

-- Removes the oldest records that the retention does not keep, as many as the budget allows.
CREATE FUNCTION "$schema".trim(m "$schema".meta, budget bigint, max_events bigint, max_bytes bigint, max_age interval)
RETURNS "$schema".meta LANGUAGE plpgsql AS $body$
DECLARE
  cut bigint;
BEGIN
  IF NOT (coalesce(m.newest - m.oldest + 1 > max_events, false) OR coalesce(m.bytes > max_bytes, false)
      OR (max_age IS NOT NULL AND m.oldest <= m.newest)) THEN
    RETURN m;
  END IF;
  IF max_age IS NULL AND (max_bytes IS NULL OR m.bytes <= max_bytes) THEN
    cut := least(m.newest - max_events, m.oldest + budget - 1);  -- no record needs to be looked at
  ELSE
    SELECT max(page."offset") INTO cut FROM (
      SELECT l."offset", l.at, sum(l.size) OVER (ORDER BY l."offset") - l.size AS freed
      FROM (SELECT * FROM "$schema".log WHERE "offset" >= m.oldest ORDER BY "offset" LIMIT budget) l
    ) page
    WHERE page."offset" <= m.newest - max_events OR m.bytes - page.freed > max_bytes
      OR page.at < clock_timestamp() - max_age;
  END IF;
  IF cut IS NOT NULL THEN
    WITH gone AS (DELETE FROM "$schema".log WHERE "offset" BETWEEN m.oldest AND cut RETURNING size)
    SELECT m.bytes - coalesce(sum(size), 0) INTO m.bytes FROM gone;
    m.oldest := cut + 1;
  END IF;
  RETURN m;
END $body$;

-- Returns the epoch, the oldest and the newest offset; begins a new epoch if this server may have lost records.
-- If nothing has changed, it locks and writes nothing: hubs call it often.
CREATE FUNCTION "$schema".bind(
  fresh text, seen_epoch text, seen bigint, lossless boolean,
  budget bigint, max_events bigint, max_bytes bigint, max_age interval
) RETURNS text[] LANGUAGE plpgsql AS $body$
DECLARE
  m "$schema".meta;
  here text := "$schema".life();
BEGIN
  SELECT * INTO STRICT m FROM "$schema".meta;
  IF m.epoch IS NULL OR m.life <> here OR (m.epoch = seen_epoch AND m.newest < seen)
      OR (m.oldest <= m.newest AND max_age IS NOT NULL AND NOT EXISTS (
        SELECT FROM "$schema".log WHERE "offset" = m.oldest AND at >= clock_timestamp() - max_age)) THEN
    SELECT * INTO STRICT m FROM "$schema".meta FOR UPDATE;
    IF m.epoch IS NULL OR (m.life <> here AND NOT lossless) OR (m.epoch = seen_epoch AND m.newest < seen) THEN
      m.epoch := fresh;
      PERFORM "$schema".wake('epoch');
    END IF;
    m.life := here;
    m := "$schema".trim(m, budget, max_events, max_bytes, max_age);
    UPDATE "$schema".meta SET epoch = m.epoch, life = m.life, oldest = m.oldest, bytes = m.bytes;
  END IF;
  RETURN ARRAY[m.epoch, m.oldest::text, m.newest::text];
END $body$;

-- Appends drafts and returns their offsets; returns NULL, and appends nothing, if the epoch or its server is
-- another one. Without keys all rows are inserted at once, which takes a quarter of the time of one after the other.
CREATE FUNCTION "$schema".append(
  expected text, max_events bigint, max_bytes bigint, max_age interval,
  topics bytea[], events bytea[], bodies bytea[], keys bytea[]
) RETURNS bigint[] LANGUAGE plpgsql AS $body$
DECLARE
  m "$schema".meta;
  d record;
  known bigint;
  length integer;
  offsets bigint[] := '{}';
BEGIN
  SELECT * INTO m FROM "$schema".meta FOR UPDATE;
  IF m.epoch IS DISTINCT FROM expected OR m.life IS DISTINCT FROM "$schema".life() THEN
    RETURN NULL;
  END IF;
  IF keys = '{}' THEN
    WITH stored AS (
      INSERT INTO "$schema".log ("offset", topic, event, data, size)
      SELECT m.newest + n, topic, event, data,
        octet_length(topic) + coalesce(octet_length(event), 0) + octet_length(data)
      FROM unnest(topics, events, bodies) WITH ORDINALITY AS u(topic, event, data, n) ORDER BY n
      RETURNING "offset", size
    )
    SELECT array_agg("offset" ORDER BY "offset"), m.newest + count(*), m.bytes + sum(size)
    INTO offsets, m.newest, m.bytes FROM stored;
  ELSE
    FOR d IN
      SELECT * FROM unnest(topics, events, bodies, keys) WITH ORDINALITY AS u(topic, event, data, key, n) ORDER BY n
    LOOP
      IF d.key IS NOT NULL THEN
        SELECT l."offset" INTO known FROM "$schema".log l WHERE l.key = d.key;
        IF FOUND THEN
          offsets := offsets || known;
          CONTINUE;
        END IF;
      END IF;
      length := octet_length(d.topic) + coalesce(octet_length(d.event), 0) + octet_length(d.data);
      m.newest := m.newest + 1;
      m.bytes := m.bytes + length;
      INSERT INTO "$schema".log ("offset", topic, event, data, key, size)
      VALUES (m.newest, d.topic, d.event, d.data, d.key, length);
      offsets := offsets || m.newest;
    END LOOP;
  END IF;
  -- Twice as many as were appended: a log over its limits shrinks, and no single append pays for all.
  m := "$schema".trim(m, 2 * cardinality(topics) + 20, max_events, max_bytes, max_age);
  UPDATE "$schema".meta SET oldest = m.oldest, newest = m.newest, bytes = m.bytes;
  PERFORM "$schema".wake('log');
  RETURN offsets;
END $body$;

-- Publishes inside a transaction, without a lock: only committed rows are moved into the log.
CREATE FUNCTION "$schema".publish(topics bytea[], events bytea[], bodies bytea[], keys bytea[])
RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
  INSERT INTO "$schema".outbox (topic, event, data, key)
  SELECT topic, event, data, key
  FROM unnest(topics, events, bodies, keys) WITH ORDINALITY AS u(topic, event, data, key, n) ORDER BY n;
  PERFORM "$schema".wake('$outbox');
END $body$;

-- Moves rows of the outbox into the log, and returns how many; 0 if another hub is moving them, or if the
-- epoch is another one.
CREATE FUNCTION "$schema".relay(
  expected text, max_events bigint, max_bytes bigint, max_age interval, most integer
) RETURNS integer LANGUAGE plpgsql AS $body$
DECLARE
  moved record;
BEGIN
  IF NOT EXISTS (SELECT FROM "$schema".outbox)
      OR NOT pg_try_advisory_xact_lock($lock, hashtext('$schema')) THEN
    RETURN 0;
  END IF;
  PERFORM FROM "$schema".meta WHERE epoch = expected AND life = "$schema".life() FOR UPDATE;
  IF NOT FOUND THEN
    RETURN 0;
  END IF;
  WITH gone AS (
    DELETE FROM "$schema".outbox WHERE id IN (SELECT id FROM "$schema".outbox ORDER BY id LIMIT most) RETURNING *
  )
  SELECT count(*) AS rows, array_agg(topic ORDER BY id) AS topics, array_agg(event ORDER BY id) AS events,
    array_agg(data ORDER BY id) AS bodies, array_agg(key ORDER BY id) AS keys INTO moved FROM gone;
  IF moved.rows > 0 THEN
    PERFORM "$schema".append(
      expected, max_events, max_bytes, max_age, moved.topics, moved.events, moved.bodies, moved.keys);
  END IF;
  RETURN moved.rows;
END $body$;

INSERT INTO "$schema".meta (version) VALUES ($version);
"""


def schema_script(schema: str, channel: str, lock: int) -> str:
    """Return the statements that create the schema.

    Arguments:
        schema: its name, which must be checked: it becomes a part of the statements as it is.
        channel: the channel on which hubs listen, checked as well.
        lock: the class of the advisory lock for moving the outbox.
    """
    names = {"schema": schema, "channel": channel, "lock": str(lock), "outbox": OUTBOX_WAKE, "version": str(VERSION)}
    script = _SCHEMA
    for name, value in names.items():
        script = script.replace(f"${name}", value)
    return script
