"""The tables and functions in PostgreSQL: each atomic step is one call.

An append is one function call in its own transaction, which begins and ends on the server: the row
with the newest offset is locked while the server works, never while it waits for a client. So the order
of offsets is the order of commits, and a client that stalls or dies does not delay others.

Text is kept as bytes in UTF-8 (``convert_from(data, 'UTF8')`` shows it), so any event is kept as it was
published, whatever the encoding of the database, U+0000 included.

- ``meta``, one row: the schema's version; ``epoch`` and the ``life`` of the server that it is bound to; the newest
  offset; of the records in ``log``, their number, their bytes, the offset from which on there are any, and the newest
  offset that was dropped;
- ``log``: the records, with their idempotency keys, which are unique among the records that are kept;
- ``ruled``: the same for topics with a rule; ``lanes`` has number, bytes and the newest dropped offset of each rule;
- ``discarded``: topics of rules whose records were discarded, and up to which offset;
- ``outbox``: events published inside transactions, until they are moved into the log.

``life`` names one history of a database: the system identifier, which changes with a restored dump, and the
timeline, which changes with a promoted standby and a restored backup. If a server reports neither, it is
``unknown``, and a loss is noticed only by a process that has seen the lost records.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 2
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
  bytes bigint NOT NULL DEFAULT 0,
  kept bigint NOT NULL DEFAULT 0,
  dropped bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

CREATE TABLE "$schema".lanes (
  name bytea PRIMARY KEY,
  kept bigint NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0,
  dropped bigint NOT NULL
) WITH (fillfactor = 10);

CREATE TABLE "$schema".discarded (topic bytea PRIMARY KEY, "offset" bigint NOT NULL);

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

CREATE TABLE "$schema".ruled (
  "offset" bigint PRIMARY KEY,
  topic bytea NOT NULL,
  event bytea,
  data bytea NOT NULL,
  key bytea,
  size integer NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  lane bytea NOT NULL
);
CREATE UNIQUE INDEX ruled_key ON "$schema".ruled (key) WHERE key IS NOT NULL;
CREATE INDEX ruled_lane ON "$schema".ruled (lane, "offset");
CREATE INDEX ruled_topic ON "$schema".ruled (topic, "offset");

-- The limits of a log: those of the rules, and of all other topics.
CREATE TYPE "$schema".limits AS (
  max_events bigint, max_bytes bigint, max_age interval,
  names bytea[], events bigint[], bytes bigint[], ages interval[]
);

CREATE TABLE "$schema".outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic bytea NOT NULL,
  event bytea,
  data bytea NOT NULL,
  key bytea NOT NULL,
  lane bytea NOT NULL
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

-- Returns the limits of a rule; those of the other topics if there is no such rule any more.
CREATE FUNCTION "$schema".limits_of(l "$schema".limits, lane bytea) RETURNS "$schema".limits
LANGUAGE plpgsql IMMUTABLE AS $body$
DECLARE
  place integer := array_position(l.names, lane);
BEGIN
  IF place IS NOT NULL THEN
    l.max_events := l.events[place];
    l.max_bytes := l.bytes[place];
    l.max_age := l.ages[place];
  END IF;
  RETURN l;
END $body$;

-- Removes the oldest records that the retention does not keep, as many as the budget allows.
CREATE FUNCTION "$schema".trim(m "$schema".meta, budget bigint, l "$schema".limits)
RETURNS "$schema".meta LANGUAGE plpgsql AS $body$
DECLARE
  cut bigint;
BEGIN
  IF NOT (coalesce(m.kept > l.max_events, false) OR coalesce(m.bytes > l.max_bytes, false)
      OR (l.max_age IS NOT NULL AND m.kept > 0)) THEN
    RETURN m;
  END IF;
  IF l.max_age IS NULL AND (l.max_bytes IS NULL OR m.bytes <= l.max_bytes) AND m.kept = m.newest - m.oldest + 1 THEN
    cut := least(m.newest - l.max_events, m.oldest + budget - 1);  -- no record needs to be looked at
  ELSE
    SELECT max(page."offset") INTO cut FROM (
      SELECT p."offset", p.at, row_number() OVER (ORDER BY p."offset") - 1 AS count,
        sum(p.size) OVER (ORDER BY p."offset") - p.size AS freed
      FROM (SELECT * FROM "$schema".log WHERE "offset" >= m.oldest ORDER BY "offset" LIMIT budget) p
    ) page
    WHERE m.kept - page.count > l.max_events OR m.bytes - page.freed > l.max_bytes
      OR page.at < clock_timestamp() - l.max_age;
  END IF;
  IF cut IS NOT NULL THEN
    WITH gone AS (DELETE FROM "$schema".log WHERE "offset" BETWEEN m.oldest AND cut RETURNING size)
    SELECT m.bytes - coalesce(sum(size), 0), m.kept - count(*) INTO m.bytes, m.kept FROM gone;
    m.oldest := cut + 1;
    m.dropped := cut;
  END IF;
  RETURN m;
END $body$;

-- The same for the records of all rules, each with the budget.
CREATE FUNCTION "$schema".trim_rules(budget bigint, l "$schema".limits) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
  lane "$schema".lanes;
  own "$schema".limits;
  cut bigint;
BEGIN
  FOR lane IN SELECT * FROM "$schema".lanes WHERE kept > 0 LOOP
    own := "$schema".limits_of(l, lane.name);
    CONTINUE WHEN NOT (coalesce(lane.kept > own.max_events, false) OR coalesce(lane.bytes > own.max_bytes, false)
      OR own.max_age IS NOT NULL);
    SELECT max(page."offset") INTO cut FROM (
      SELECT p."offset", p.at, row_number() OVER (ORDER BY p."offset") - 1 AS count,
        sum(p.size) OVER (ORDER BY p."offset") - p.size AS freed
      FROM (SELECT * FROM "$schema".ruled r WHERE r.lane = lane.name ORDER BY r."offset" LIMIT budget) p
    ) page
    WHERE lane.kept - page.count > own.max_events OR lane.bytes - page.freed > own.max_bytes
      OR page.at < clock_timestamp() - own.max_age;
    IF cut IS NOT NULL THEN
      WITH gone AS (DELETE FROM "$schema".ruled r WHERE r.lane = lane.name AND r."offset" <= cut RETURNING size)
      UPDATE "$schema".lanes SET dropped = greatest(dropped, cut), kept = kept - sums.count, bytes = bytes - sums.size
      FROM (SELECT count(*) AS count, coalesce(sum(size), 0) AS size FROM gone) sums WHERE name = lane.name;
    END IF;
  END LOOP;
END $body$;

-- Removes some records of a topic with a rule up to an offset, and returns their number.
CREATE FUNCTION "$schema".discard(
  which bytea, upto bigint, most integer, marks integer, folded bytea
) RETURNS integer LANGUAGE plpgsql AS $body$
DECLARE
  cut bigint;
  removed integer;
  old "$schema".discarded;
BEGIN
  PERFORM FROM "$schema".meta FOR UPDATE;
  SELECT max("offset"), count(*) INTO cut, removed FROM (
    SELECT "offset" FROM "$schema".ruled WHERE topic = which AND "offset" <= upto ORDER BY "offset" LIMIT most) found;
  IF cut IS NULL THEN
    RETURN 0;
  END IF;
  WITH gone AS (DELETE FROM "$schema".ruled WHERE topic = which AND "offset" <= cut RETURNING lane, size)
  UPDATE "$schema".lanes SET kept = kept - sums.count, bytes = bytes - sums.size
  FROM (SELECT lane, count(*) AS count, sum(size) AS size FROM gone GROUP BY lane) sums WHERE name = sums.lane;
  INSERT INTO "$schema".discarded VALUES (which, cut)
  ON CONFLICT (topic) DO UPDATE SET "offset" = greatest(discarded."offset", excluded."offset");
  -- Beyond their number, the oldest mark becomes that of all rules.
  IF (SELECT count(*) FROM "$schema".discarded) > marks THEN
    DELETE FROM "$schema".discarded WHERE topic = (SELECT topic FROM "$schema".discarded ORDER BY "offset" LIMIT 1)
    RETURNING * INTO old;
    UPDATE "$schema".lanes SET dropped = greatest(dropped, old."offset") WHERE name = folded;
  END IF;
  RETURN removed;
END $body$;

-- Returns the log as a reader sees it at one moment (STABLE: with the snapshot of the caller), without records that are
-- too old, though they may wait for an append to remove them. The first of the marks is that of the other topics.
CREATE FUNCTION "$schema".view(
  l "$schema".limits, OUT epoch text, OUT oldest bigint, OUT newest bigint, OUT marked bytea[], OUT dropped bigint[]
) LANGUAGE plpgsql STABLE AS $body$
DECLARE
  m "$schema".meta;
  lane "$schema".lanes;
  age interval;
  first bigint;
BEGIN
  SELECT * INTO m FROM "$schema".meta;
  epoch := m.epoch;
  newest := m.newest;
  SELECT log."offset" INTO first FROM "$schema".log WHERE log."offset" >= m.oldest
    AND (l.max_age IS NULL OR at >= clock_timestamp() - l.max_age) ORDER BY log."offset" LIMIT 1;
  oldest := coalesce(first, m.newest + 1);
  marked := ARRAY[''::bytea];
  dropped := ARRAY[m.dropped];
  IF l.max_age IS NOT NULL AND m.kept > 0 THEN
    dropped[1] := coalesce((SELECT max(log."offset") FROM "$schema".log WHERE log."offset" < oldest), m.dropped);
  END IF;
  FOR lane IN SELECT * FROM "$schema".lanes LOOP
    IF lane.kept > 0 THEN
      age := ("$schema".limits_of(l, lane.name)).max_age;
      SELECT r."offset" INTO first FROM "$schema".ruled r
        WHERE r.lane = lane.name AND (age IS NULL OR r.at >= clock_timestamp() - age) ORDER BY r."offset" LIMIT 1;
      oldest := least(oldest, first);
      IF age IS NOT NULL THEN
        lane.dropped := greatest(lane.dropped, (SELECT max(r."offset") FROM "$schema".ruled r
          WHERE r.lane = lane.name AND r."offset" < coalesce(first, m.newest + 1)));
      END IF;
    END IF;
    marked := marked || lane.name;
    dropped := dropped || lane.dropped;
  END LOOP;
END $body$;

-- Returns true if some records are too old.
CREATE FUNCTION "$schema".has_old(m "$schema".meta, l "$schema".limits) RETURNS boolean LANGUAGE plpgsql AS $body$
DECLARE
  lane "$schema".lanes;
  age interval;
BEGIN
  IF m.kept > 0 AND (SELECT at FROM "$schema".log WHERE "offset" >= m.oldest ORDER BY "offset" LIMIT 1)
      < clock_timestamp() - l.max_age THEN
    RETURN true;
  END IF;
  FOR lane IN SELECT * FROM "$schema".lanes WHERE kept > 0 LOOP
    age := ("$schema".limits_of(l, lane.name)).max_age;
    IF (SELECT at FROM "$schema".ruled r WHERE r.lane = lane.name ORDER BY r."offset" LIMIT 1)
        < clock_timestamp() - age THEN
      RETURN true;
    END IF;
  END LOOP;
  RETURN false;
END $body$;

-- Begins a new epoch if this server may have lost records.
-- If nothing has changed, it locks and writes nothing: hubs call it often.
CREATE FUNCTION "$schema".bind(
  fresh text, seen_epoch text, seen bigint, lossless boolean, budget bigint, l "$schema".limits
) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
  m "$schema".meta;
  here text := "$schema".life();
BEGIN
  SELECT * INTO STRICT m FROM "$schema".meta;
  IF m.epoch IS NULL OR m.life <> here OR (m.epoch = seen_epoch AND m.newest < seen)
      OR "$schema".has_old(m, l)
      OR EXISTS (SELECT FROM unnest(l.names) n WHERE NOT EXISTS (SELECT FROM "$schema".lanes WHERE name = n)) THEN
    SELECT * INTO STRICT m FROM "$schema".meta FOR UPDATE;
    IF m.epoch IS NULL OR (m.life <> here AND NOT lossless) OR (m.epoch = seen_epoch AND m.newest < seen) THEN
      m.epoch := fresh;
      PERFORM "$schema".wake('epoch');
    END IF;
    m.life := here;
    m := "$schema".trim(m, budget, l);
    UPDATE "$schema".meta SET epoch = m.epoch, life = m.life, oldest = m.oldest, bytes = m.bytes, kept = m.kept,
      dropped = m.dropped;
    PERFORM "$schema".trim_rules(budget, l);
    -- Until now, records of a new rule were dropped with the others: readers must not trust older cursors.
    INSERT INTO "$schema".lanes (name, dropped) SELECT n, m.newest FROM unnest(l.names) n ON CONFLICT DO NOTHING;
  END IF;
END $body$;

-- Appends drafts and returns their offsets; returns NULL, and appends nothing, if the epoch or its server is
-- another one. Without keys all rows are inserted at once, which takes a quarter of the time of one after the other.
CREATE FUNCTION "$schema".append(
  expected text, l "$schema".limits, topics bytea[], events bytea[], bodies bytea[], keys bytea[], rules bytea[]
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
  IF keys = '{}' AND rules = '{}' THEN
    WITH stored AS (
      INSERT INTO "$schema".log ("offset", topic, event, data, size)
      SELECT m.newest + n, topic, event, data,
        octet_length(topic) + coalesce(octet_length(event), 0) + octet_length(data)
      FROM unnest(topics, events, bodies) WITH ORDINALITY AS u(topic, event, data, n) ORDER BY n
      RETURNING "offset", size
    )
    SELECT array_agg("offset" ORDER BY "offset"), m.newest + count(*), m.bytes + sum(size), m.kept + count(*)
    INTO offsets, m.newest, m.bytes, m.kept FROM stored;
  ELSE
    FOR d IN
      SELECT * FROM unnest(topics, events, bodies, keys, rules)
        WITH ORDINALITY AS u(topic, event, data, key, rule, n) ORDER BY n
    LOOP
      IF d.key IS NOT NULL THEN
        SELECT "offset" INTO known FROM "$schema".log WHERE key = d.key
        UNION ALL SELECT "offset" FROM "$schema".ruled WHERE key = d.key;
        IF FOUND THEN
          offsets := offsets || known;
          CONTINUE;
        END IF;
      END IF;
      length := octet_length(d.topic) + coalesce(octet_length(d.event), 0) + octet_length(d.data);
      m.newest := m.newest + 1;
      IF coalesce(d.rule, '') = '' THEN
        m.bytes := m.bytes + length;
        m.kept := m.kept + 1;
        INSERT INTO "$schema".log ("offset", topic, event, data, key, size)
        VALUES (m.newest, d.topic, d.event, d.data, d.key, length);
      ELSE
        UPDATE "$schema".lanes SET kept = kept + 1, bytes = bytes + length WHERE name = d.rule;
        INSERT INTO "$schema".ruled ("offset", topic, event, data, key, size, lane)
        VALUES (m.newest, d.topic, d.event, d.data, d.key, length, d.rule);
      END IF;
      offsets := offsets || m.newest;
    END LOOP;
  END IF;
  -- Twice as many as were appended: a log over its limits shrinks, and no single append pays for all.
  m := "$schema".trim(m, 2 * cardinality(topics) + 20, l);
  UPDATE "$schema".meta SET oldest = m.oldest, newest = m.newest, bytes = m.bytes, kept = m.kept, dropped = m.dropped;
  PERFORM "$schema".trim_rules(2 * cardinality(topics) + 20, l);
  PERFORM "$schema".wake('log');
  RETURN offsets;
END $body$;

-- Publishes inside a transaction, without a lock: only committed rows are moved into the log.
CREATE FUNCTION "$schema".publish(topics bytea[], events bytea[], bodies bytea[], keys bytea[], rules bytea[])
RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
  INSERT INTO "$schema".outbox (topic, event, data, key, lane)
  SELECT topic, event, data, key, coalesce(lane, '')
  FROM unnest(topics, events, bodies, keys, rules) WITH ORDINALITY AS u(topic, event, data, key, lane, n) ORDER BY n;
  PERFORM "$schema".wake('$outbox');
END $body$;

-- Moves rows of the outbox into the log, and returns how many; 0 if another hub is moving them, or if the
-- epoch is another one.
CREATE FUNCTION "$schema".relay(
  expected text, l "$schema".limits, most integer
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
    array_agg(data ORDER BY id) AS bodies, array_agg(key ORDER BY id) AS keys, array_agg(lane ORDER BY id) AS rules
  INTO moved FROM gone;
  IF moved.rows > 0 THEN
    PERFORM "$schema".append(
      expected, l, moved.topics, moved.events, moved.bodies, moved.keys, moved.rules);
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
