-- The tables of one partition, schema version 3. docs/storage.md describes every table and view.
--
-- Tables hold times as integer microseconds since the epoch (UTC) and JSON as text. The views with
-- plural names are for people: ISO times, keys instead of ids. Everything is written through the
-- view `checkpoint`, which is in checkpoint.sql. The table of
-- activities is in activities.sql, since older files lack it.

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
