-- One partition of a hub, schema version 1. docs/storage.md describes every table and view.
--
-- Tables hold times as integer microseconds since the epoch (UTC) and JSON as text. The views with
-- plural names are for people: ISO times, keys instead of ids. Everything is written through the
-- view `checkpoint`: one INSERT into it is one checkpoint, and its trigger unpacks the JSON arrays.

CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  schema_version INTEGER NOT NULL,
  hub TEXT NOT NULL,
  partition INTEGER NOT NULL,
  partitions INTEGER NOT NULL,
  created INTEGER NOT NULL,
  software TEXT NOT NULL,
  sequence INTEGER NOT NULL DEFAULT 0,
  epoch INTEGER NOT NULL DEFAULT 0,
  next_id INTEGER NOT NULL DEFAULT 1,
  next_row INTEGER NOT NULL DEFAULT 1
);

CREATE TABLE instance_row (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL,
  name TEXT NOT NULL,
  version TEXT,
  execution INTEGER NOT NULL,
  created INTEGER NOT NULL,
  parent TEXT,
  parent_task INTEGER NOT NULL,
  parent_execution INTEGER NOT NULL,
  start_at INTEGER,
  status TEXT NOT NULL,
  updated INTEGER NOT NULL,
  completed INTEGER,
  pending INTEGER NOT NULL,
  events INTEGER NOT NULL,
  failure_type TEXT,
  tags TEXT,
  parked TEXT,
  custom_status TEXT,
  failure TEXT,
  output TEXT
);

-- Within equal `created`, SQLite sorts by key; so the indexes need not repeat the long keys.
CREATE UNIQUE INDEX instance_key ON instance_row (key);
CREATE INDEX instance_created ON instance_row (created);
CREATE INDEX instance_status ON instance_row (status, created);
CREATE INDEX instance_name ON instance_row (name, created);
CREATE INDEX instance_updated ON instance_row (updated);
CREATE INDEX instance_completed ON instance_row (completed) WHERE completed IS NOT NULL;
CREATE INDEX instance_parent ON instance_row (parent, created) WHERE parent IS NOT NULL;
CREATE INDEX instance_failure ON instance_row (failure_type, created)
  WHERE failure_type IS NOT NULL;
CREATE INDEX instance_parked ON instance_row (created) WHERE parked IS NOT NULL;
CREATE INDEX instance_unanswered ON instance_row (created)
  WHERE pending > 0 AND status NOT IN ('Completed', 'Failed', 'Canceled', 'Terminated');

-- Apart from `instance_row`, so that progress never copies a long input.
CREATE TABLE input_row (id INTEGER PRIMARY KEY, body TEXT);

CREATE TABLE history_row (
  n INTEGER PRIMARY KEY,
  instance INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE UNIQUE INDEX history_instance ON history_row (instance, seq);

CREATE TABLE entity_row (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  key TEXT NOT NULL,
  updated INTEGER NOT NULL,
  lock TEXT,
  failures TEXT,
  parked TEXT,
  state TEXT
);
CREATE UNIQUE INDEX entity_name ON entity_row (name, key);
CREATE INDEX entity_locked ON entity_row (name, key) WHERE lock IS NOT NULL;
CREATE INDEX entity_parked ON entity_row (name, key) WHERE parked IS NOT NULL;

CREATE TABLE mail_row (n INTEGER PRIMARY KEY, actor TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX mail_actor ON mail_row (actor);

CREATE TABLE timer_row (
  n INTEGER PRIMARY KEY,
  due INTEGER NOT NULL,
  actor TEXT NOT NULL,
  body TEXT NOT NULL
);

CREATE TABLE outbox_row (
  n INTEGER PRIMARY KEY,
  target INTEGER NOT NULL,
  last INTEGER NOT NULL,
  body TEXT NOT NULL
);

CREATE TABLE peer_row (
  peer INTEGER PRIMARY KEY,
  received INTEGER NOT NULL,
  sent INTEGER NOT NULL
);

CREATE TABLE request_row (
  n INTEGER PRIMARY KEY,
  request TEXT NOT NULL,
  at INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE UNIQUE INDEX request_id ON request_row (request);
CREATE INDEX request_at ON request_row (at);

-- One column per field of Checkpoint. A part is a JSON array, or NULL where there is nothing;
-- optional JSON inside a row is wrapped, [json], so that null still means "none".
CREATE VIEW checkpoint AS
SELECT sequence, epoch, NULL AS purged, NULL AS rewritten, NULL AS created, NULL AS progress,
       NULL AS history, NULL AS entities, NULL AS entities_deleted, NULL AS mail,
       NULL AS mail_deleted, NULL AS timers, NULL AS timers_deleted, NULL AS outbox,
       NULL AS outbox_deleted, NULL AS peers, NULL AS requests,
       NULL AS requests_deleted_before
FROM meta;

-- "LIMIT -1" keeps SQLite from flattening the subquery: flattened, it would render a row of the
-- array once per column read from it, not once (half of the time for rows of 300 bytes).
-- "WHERE true" tells the parser that ON CONFLICT is no join condition.
CREATE TRIGGER checkpoint_applied INSTEAD OF INSERT ON checkpoint
BEGIN
  SELECT RAISE(ABORT, 'perdure: lease lost')
  WHERE NOT EXISTS (
    SELECT 1 FROM meta WHERE epoch = NEW.epoch AND sequence = NEW.sequence - 1
  );

  DELETE FROM history_row
  WHERE instance IN (SELECT value FROM json_each(CAST(NEW.purged AS TEXT)));
  DELETE FROM input_row WHERE id IN (SELECT value FROM json_each(CAST(NEW.purged AS TEXT)));
  DELETE FROM instance_row WHERE id IN (SELECT value FROM json_each(CAST(NEW.purged AS TEXT)));

  DELETE FROM history_row
  WHERE instance IN (SELECT value FROM json_each(CAST(NEW.rewritten AS TEXT)));

  -- An id keeps its key for life, so a replaced row leaves the index of keys alone.
  INSERT INTO instance_row (id, key, name, version, execution, created, parent, parent_task,
                            parent_execution, tags, start_at, status, updated, pending, events)
  SELECT v ->> 0, v ->> 1, v ->> 2, v ->> 3, v ->> 4, v ->> 5, v ->> 6, v ->> 7, v ->> 8,
         v -> '$[9][0]', v ->> 11, 'Pending', v ->> 5, 0, 0
  FROM (SELECT value AS v FROM json_each(CAST(NEW.created AS TEXT)) LIMIT -1) WHERE true
  ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, version = excluded.version, execution = excluded.execution,
    created = excluded.created, parent = excluded.parent, parent_task = excluded.parent_task,
    parent_execution = excluded.parent_execution, tags = excluded.tags,
    start_at = excluded.start_at, status = excluded.status, updated = excluded.updated,
    completed = NULL, pending = 0, events = 0, failure_type = NULL, parked = NULL,
    custom_status = NULL, failure = NULL, output = NULL;
  INSERT OR REPLACE INTO input_row (id, body)
  SELECT v ->> 0, v -> '$[10][0]'
  FROM (SELECT value AS v FROM json_each(CAST(NEW.created AS TEXT)) LIMIT -1);

  UPDATE instance_row SET
    status = p.status, updated = p.updated, completed = p.completed, pending = p.pending,
    events = p.events, output = p.output, failure = p.failure, failure_type = p.failure_type,
    custom_status = p.custom_status, parked = p.parked
  FROM (
    SELECT v ->> 0 AS id, v ->> 1 AS status, v ->> 2 AS updated, v ->> 3 AS completed,
           v ->> 4 AS pending, v ->> 5 AS events, v -> '$[6][0]' AS output,
           v -> '$[7][0]' AS failure, v ->> 8 AS failure_type, v -> '$[9][0]' AS custom_status,
           v -> '$[10][0]' AS parked
    FROM (SELECT value AS v FROM json_each(CAST(NEW.progress AS TEXT)) LIMIT -1)
  ) AS p
  WHERE instance_row.id = p.id;

  INSERT INTO history_row (instance, seq, body)
  SELECT v ->> 0, v ->> 1, v -> 2
  FROM (SELECT value AS v FROM json_each(CAST(NEW.history AS TEXT)) LIMIT -1) WHERE true
  ON CONFLICT (instance, seq) DO UPDATE SET body = excluded.body;

  -- Name and key stay, as above.
  INSERT INTO entity_row (id, name, key, updated, state, lock, failures, parked)
  SELECT v ->> 0, v ->> 1, v ->> 2, v ->> 3, v -> '$[4][0]', v -> '$[5][0]', v -> '$[6][0]',
         v -> '$[7][0]'
  FROM (SELECT value AS v FROM json_each(CAST(NEW.entities AS TEXT)) LIMIT -1) WHERE true
  ON CONFLICT (id) DO UPDATE SET
    updated = excluded.updated, state = excluded.state, lock = excluded.lock,
    failures = excluded.failures, parked = excluded.parked;

  INSERT OR REPLACE INTO mail_row (n, actor, body)
  SELECT v ->> 0, v ->> 1, v -> 2
  FROM (SELECT value AS v FROM json_each(CAST(NEW.mail AS TEXT)) LIMIT -1);
  INSERT OR REPLACE INTO timer_row (n, due, actor, body)
  SELECT v ->> 0, v ->> 1, v ->> 2, v -> 3
  FROM (SELECT value AS v FROM json_each(CAST(NEW.timers AS TEXT)) LIMIT -1);
  INSERT OR REPLACE INTO outbox_row (n, target, last, body)
  SELECT v ->> 0, v ->> 1, v ->> 2, v -> 3
  FROM (SELECT value AS v FROM json_each(CAST(NEW.outbox AS TEXT)) LIMIT -1);
  INSERT OR REPLACE INTO peer_row (peer, received, sent)
  SELECT v ->> 0, v ->> 1, v ->> 2
  FROM (SELECT value AS v FROM json_each(CAST(NEW.peers AS TEXT)) LIMIT -1);
  INSERT OR REPLACE INTO request_row (request, at, body)
  SELECT v ->> 0, v ->> 1, v -> 2
  FROM (SELECT value AS v FROM json_each(CAST(NEW.requests AS TEXT)) LIMIT -1);

  -- Between the rows put and the rows deleted, so that a row that is both still counts. The
  -- tables do not overlap, so this order gives what the order of the fields gives.
  UPDATE meta SET
    sequence = NEW.sequence,
    next_id = max(next_id,
                  ifnull((SELECT max(id) FROM instance_row), 0) + 1,
                  ifnull((SELECT max(id) FROM entity_row), 0) + 1),
    next_row = max(next_row,
                   ifnull((SELECT max(n) FROM mail_row), 0) + 1,
                   ifnull((SELECT max(n) FROM timer_row), 0) + 1,
                   ifnull((SELECT max(n) FROM outbox_row), 0) + 1);

  DELETE FROM entity_row
  WHERE id IN (SELECT value FROM json_each(CAST(NEW.entities_deleted AS TEXT)));
  DELETE FROM mail_row
  WHERE n IN (SELECT value FROM json_each(CAST(NEW.mail_deleted AS TEXT)));
  DELETE FROM timer_row
  WHERE n IN (SELECT value FROM json_each(CAST(NEW.timers_deleted AS TEXT)));
  DELETE FROM outbox_row
  WHERE n IN (SELECT value FROM json_each(CAST(NEW.outbox_deleted AS TEXT)));
  DELETE FROM request_row WHERE at < NEW.requests_deleted_before;
END;

CREATE VIEW instances AS
SELECT key AS instance_id, name, version, status,
       strftime('%Y-%m-%dT%H:%M:%S', created / 1000000, 'unixepoch')
         || printf('.%06dZ', created % 1000000) AS created,
       strftime('%Y-%m-%dT%H:%M:%S', updated / 1000000, 'unixepoch')
         || printf('.%06dZ', updated % 1000000) AS updated,
       strftime('%Y-%m-%dT%H:%M:%S', completed / 1000000, 'unixepoch')
         || printf('.%06dZ', completed % 1000000) AS completed,
       strftime('%Y-%m-%dT%H:%M:%S', start_at / 1000000, 'unixepoch')
         || printf('.%06dZ', start_at % 1000000) AS start_at,
       execution, parent, parent_task, parent_execution, tags, pending, events,
       input_row.body AS input, output, failure_type, failure, custom_status, parked,
       instance_row.id AS id
FROM instance_row LEFT JOIN input_row ON input_row.id = instance_row.id;

CREATE VIEW histories AS
SELECT instance_row.key AS instance_id,
       history_row.seq + event.key AS seq,
       event.value ->> 0 AS type,
       strftime('%Y-%m-%dT%H:%M:%S', (event.value ->> 1) / 1000000, 'unixepoch')
         || printf('.%06dZ', (event.value ->> 1) % 1000000) AS time,
       event.value AS event
FROM instance_row
JOIN history_row ON history_row.instance = instance_row.id
JOIN json_each(history_row.body) AS event;

CREATE VIEW entities AS
SELECT '@' || name || '@' || key AS entity_id, name, key,
       strftime('%Y-%m-%dT%H:%M:%S', updated / 1000000, 'unixepoch')
         || printf('.%06dZ', updated % 1000000) AS updated,
       state, lock, failures, parked, id
FROM entity_row;

CREATE VIEW mailbox AS SELECT n, actor, body AS message FROM mail_row;

CREATE VIEW timers AS
SELECT n,
       strftime('%Y-%m-%dT%H:%M:%S', due / 1000000, 'unixepoch')
         || printf('.%06dZ', due % 1000000) AS due,
       actor, body AS message
FROM timer_row;

CREATE VIEW outbox AS
SELECT n, target AS target_partition, last AS last_message, body AS messages FROM outbox_row;
