-- One hub is one schema. Times are integer microseconds since the epoch (UTC), except those of
-- `member`, which are by the clock of this server; texts sort by their characters' numbers.

CREATE TABLE {s}.hub (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id uuid NOT NULL,
  secret text NOT NULL,
  app text,
  schema_version int NOT NULL,
  partitions int NOT NULL,
  created bigint NOT NULL,
  software text NOT NULL
);

-- A process that serves the hub; its number is never used twice.
CREATE TABLE {s}.member (
  member bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  address text NOT NULL,
  host text NOT NULL,
  pid int NOT NULL,
  software text NOT NULL,
  app text NOT NULL,
  app_hash text NOT NULL,
  http text,
  weight real NOT NULL DEFAULT 1,
  draining boolean NOT NULL DEFAULT false,
  control boolean NOT NULL DEFAULT false, -- whether it ever had a session that holds its lock
  joined timestamptz NOT NULL DEFAULT clock_timestamp(),
  beat timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Written when a partition moves, and no more: commits take a share lock on its row.
CREATE TABLE {s}.partition (
  partition int PRIMARY KEY,
  epoch bigint NOT NULL DEFAULT 0,
  owner bigint,
  wanted bigint,
  software text
) WITH (fillfactor = 20);

-- What the tables have of the journal: apart, since commits must not wait for this row.
CREATE TABLE {s}.folded (
  partition int PRIMARY KEY,
  epoch bigint NOT NULL DEFAULT 0,
  settled bigint NOT NULL DEFAULT 0,
  next_id bigint NOT NULL DEFAULT 1,
  next_row bigint NOT NULL DEFAULT 1
) WITH (fillfactor = 20);

CREATE TABLE {s}.journal (
  partition int NOT NULL,
  sequence bigint NOT NULL,
  epoch bigint NOT NULL,
  next_id bigint NOT NULL,
  next_row bigint NOT NULL,
  body bytea NOT NULL,
  PRIMARY KEY (partition, sequence)
) WITH (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0,
  toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 5000
);

-- What members owe each other while a line is down. It may lose all, like a socket.
CREATE UNLOGGED TABLE {s}.relay (
  target bigint NOT NULL,
  n bigint GENERATED ALWAYS AS IDENTITY,
  source bigint NOT NULL,
  body bytea NOT NULL,
  PRIMARY KEY (target, n)
);

CREATE TABLE {s}.instance_row (
  partition int NOT NULL,
  id bigint NOT NULL,
  key text COLLATE "C" NOT NULL,
  name text COLLATE "C" NOT NULL,
  version text COLLATE "C",
  execution bigint NOT NULL,
  created bigint NOT NULL,
  parent text COLLATE "C",
  parent_task bigint NOT NULL,
  parent_execution bigint NOT NULL,
  tags json,
  input json,
  start_at bigint,
  status text COLLATE "C" NOT NULL,
  updated bigint NOT NULL,
  completed bigint,
  pending bigint NOT NULL,
  events bigint NOT NULL,
  output json,
  failure json,
  failure_type text COLLATE "C",
  custom_status json,
  parked json,
  notes json,
  waits json,
  attempts bigint,
  -- For queries: each tag as JSON of its name and value, and what it waits for; a hash if long.
  tagged text[] COLLATE "C",
  waited text[] COLLATE "C",
  PRIMARY KEY (partition, id)
);
CREATE UNIQUE INDEX instance_key ON {s}.instance_row (partition, key);
CREATE INDEX instance_created ON {s}.instance_row (partition, created, key);
CREATE INDEX instance_status ON {s}.instance_row (partition, status, created, key);
CREATE INDEX instance_name ON {s}.instance_row (partition, name, created, key);
CREATE INDEX instance_updated ON {s}.instance_row (partition, updated);
CREATE INDEX instance_completed ON {s}.instance_row (partition, completed)
  WHERE completed IS NOT NULL;
CREATE INDEX instance_parent ON {s}.instance_row (partition, parent, created, key)
  WHERE parent IS NOT NULL;
CREATE INDEX instance_failure ON {s}.instance_row
  (partition, left(failure_type, 200), created, key)
  WHERE failure_type IS NOT NULL;
CREATE INDEX instance_parked ON {s}.instance_row (partition, created, key)
  WHERE parked IS NOT NULL;
CREATE INDEX instance_attempts ON {s}.instance_row (partition, created, key) WHERE attempts > 1;
CREATE INDEX instance_unanswered ON {s}.instance_row (partition)
  WHERE pending > 0 AND status NOT IN ('Completed', 'Failed', 'Canceled', 'Terminated');
CREATE INDEX instance_live ON {s}.instance_row (partition, name)
  WHERE status NOT IN ('Completed', 'Failed', 'Canceled', 'Terminated');
CREATE INDEX instance_tagged ON {s}.instance_row USING gin (tagged) WHERE tagged IS NOT NULL;
CREATE INDEX instance_waited ON {s}.instance_row USING gin (waited) WHERE waited IS NOT NULL;

CREATE TABLE {s}.history_row (
  partition int NOT NULL,
  instance bigint NOT NULL,
  seq bigint NOT NULL,
  body json NOT NULL,
  PRIMARY KEY (partition, instance, seq)
);

CREATE TABLE {s}.entity_row (
  partition int NOT NULL,
  id bigint NOT NULL,
  name text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  updated bigint NOT NULL,
  state json,
  lock json,
  failures json,
  parked json,
  PRIMARY KEY (partition, id)
);
CREATE UNIQUE INDEX entity_name ON {s}.entity_row (partition, name, key);
CREATE INDEX entity_locked ON {s}.entity_row (partition, name, key) WHERE lock IS NOT NULL;
CREATE INDEX entity_parked ON {s}.entity_row (partition, name, key) WHERE parked IS NOT NULL;

CREATE TABLE {s}.mail_row (
  partition int NOT NULL,
  n bigint NOT NULL,
  actor text COLLATE "C" NOT NULL,
  body json NOT NULL,
  PRIMARY KEY (partition, n)
);
CREATE INDEX mail_actor ON {s}.mail_row (partition, actor, n);

CREATE TABLE {s}.timer_row (
  partition int NOT NULL,
  n bigint NOT NULL,
  due bigint NOT NULL,
  actor text COLLATE "C" NOT NULL,
  body json NOT NULL,
  PRIMARY KEY (partition, n)
);

CREATE TABLE {s}.outbox_row (
  partition int NOT NULL,
  n bigint NOT NULL,
  target int NOT NULL,
  last bigint NOT NULL,
  body json NOT NULL,
  PRIMARY KEY (partition, target, n)
);
CREATE INDEX outbox_n ON {s}.outbox_row (partition, n);

CREATE TABLE {s}.peer_row (
  partition int NOT NULL,
  peer int NOT NULL,
  received bigint NOT NULL,
  sent bigint NOT NULL,
  PRIMARY KEY (partition, peer)
) WITH (fillfactor = 50);

CREATE TABLE {s}.request_row (
  partition int NOT NULL,
  request text COLLATE "C" NOT NULL,
  at bigint NOT NULL,
  body json NOT NULL,
  PRIMARY KEY (partition, request)
);
CREATE INDEX request_at ON {s}.request_row (partition, at);

CREATE TABLE {s}.activity_row (
  partition int NOT NULL,
  n bigint NOT NULL,
  instance bigint NOT NULL,
  body json NOT NULL,
  PRIMARY KEY (partition, n)
);
CREATE INDEX activity_instance ON {s}.activity_row (partition, instance);

-- Copies of rows that nobody can read, until a person has looked at them.
CREATE TABLE {s}.damaged_row (
  partition int NOT NULL,
  of_table text NOT NULL,
  row bigint NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  reason text NOT NULL,
  content json
);

-- For people.
CREATE VIEW {s}.instances AS
SELECT key AS instance_id, name, version, status,
       to_timestamp(created / 1e6) AS created, to_timestamp(updated / 1e6) AS updated,
       to_timestamp(completed / 1e6) AS completed, to_timestamp(start_at / 1e6) AS start_at,
       execution, parent, tags, pending, events, input, output, failure_type, failure,
       custom_status, parked, partition, id
FROM {s}.instance_row;

-- By its text: `->` and `->>` refuse an event that has \u0000 anywhere in it.
CREATE VIEW {s}.histories AS
SELECT i.key AS instance_id, h.seq + e.place - 1 AS seq,
       substring(e.event::text FROM '^\["([^"]*)"') AS type,
       to_timestamp(substring(e.event::text FROM '^\["[^"]*",(-?[0-9]+)')::bigint / 1e6) AS time,
       e.event
FROM {s}.instance_row i
JOIN {s}.history_row h ON h.partition = i.partition AND h.instance = i.id
CROSS JOIN LATERAL json_array_elements(h.body) WITH ORDINALITY AS e (event, place);

CREATE VIEW {s}.entities AS
SELECT '@' || name || '@' || key AS entity_id, name, key,
       to_timestamp(updated / 1e6) AS updated, state, lock, failures, parked, partition, id
FROM {s}.entity_row;
