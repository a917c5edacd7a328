-- The journal of one partition, schema version 3: checkpoints that are durable, until the partition's
-- tables have them. docs/storage.md describes it.

CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  schema_version INTEGER NOT NULL,
  hub TEXT NOT NULL,
  partition INTEGER NOT NULL,
  partitions INTEGER NOT NULL,
  created INTEGER NOT NULL,
  software TEXT NOT NULL,
  sequence INTEGER NOT NULL DEFAULT 0,  -- of a checkpoint that the tables have
  epoch INTEGER NOT NULL DEFAULT 0
);

-- One INSERT is one checkpoint. The parts are what the view `checkpoint` of the tables takes.
CREATE TABLE entry (
  sequence INTEGER PRIMARY KEY,
  epoch INTEGER NOT NULL,
  settled INTEGER NOT NULL,  -- the tables had all up to this one
  next_id INTEGER NOT NULL,
  next_row INTEGER NOT NULL,
  purged TEXT,
  rewritten TEXT,
  created TEXT,
  progress TEXT,
  history TEXT,
  history_bodies BLOB,
  entities TEXT,
  entities_deleted TEXT,
  mail TEXT,
  mail_deleted TEXT,
  timers TEXT,
  timers_deleted TEXT,
  outbox TEXT,
  outbox_deleted TEXT,
  peers TEXT,
  requests TEXT,
  requests_deleted_before INTEGER,
  activities TEXT,
  activities_deleted TEXT
);

-- A few at a time: to remove hundreds of large ones would hold this commit up.
CREATE TRIGGER entry_added BEFORE INSERT ON entry
BEGIN
  SELECT RAISE(ABORT, 'perdure: lease lost')
  WHERE NOT EXISTS (
    SELECT 1 FROM meta WHERE epoch = NEW.epoch
    AND NEW.sequence = 1 + max(sequence, ifnull((SELECT max(sequence) FROM entry), 0))
  );
  DELETE FROM entry
  WHERE sequence <= NEW.settled AND sequence < 4 + (SELECT min(sequence) FROM entry);
END;
