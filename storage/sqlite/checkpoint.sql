-- What writes to the tables: one INSERT into the view brings one or several checkpoints there, all of
-- them or nothing; its trigger unpacks the JSON arrays.

-- One column per field of Checkpoint, and around them: `follows`, the checkpoint that the tables must
-- have, and the numbers that were used up. A part is a JSON array, or NULL where there is nothing;
-- optional JSON inside a row is wrapped, [json], so that null still means "none". The rows of
-- `history` say where in `history_bodies` their text is, which is not parsed.
CREATE VIEW checkpoint AS
SELECT sequence AS follows, sequence, epoch, next_id, next_row, NULL AS purged, NULL AS rewritten,
       NULL AS created, NULL AS progress, NULL AS history, NULL AS history_bodies,
       NULL AS entities, NULL AS entities_deleted, NULL AS mail, NULL AS mail_deleted, NULL AS timers,
       NULL AS timers_deleted, NULL AS outbox, NULL AS outbox_deleted, NULL AS peers,
       NULL AS requests, NULL AS requests_deleted_before, NULL AS activities,
       NULL AS activities_deleted
FROM meta;

-- "LIMIT -1" keeps SQLite from flattening the subquery: flattened, it would render a row of the
-- array once per column read from it, not once (half of the time for rows of 300 bytes).
-- "WHERE true" tells the parser that ON CONFLICT is no join condition.
CREATE TRIGGER checkpoint_applied INSTEAD OF INSERT ON checkpoint
BEGIN
  SELECT RAISE(ABORT, 'perdure: lease lost')
  WHERE NOT EXISTS (
    SELECT 1 FROM meta WHERE epoch = NEW.epoch AND sequence = NEW.follows
  );

  DELETE FROM history_row
  WHERE instance IN (SELECT value FROM json_each(CAST(NEW.purged AS TEXT)));
  DELETE FROM input_row WHERE id IN (SELECT value FROM json_each(CAST(NEW.purged AS TEXT)));
  DELETE FROM instance_row WHERE id IN (SELECT value FROM json_each(CAST(NEW.purged AS TEXT)));
  DELETE FROM activity_row
  WHERE instance IN (SELECT value FROM json_each(CAST(NEW.purged AS TEXT)));

  DELETE FROM history_row
  WHERE instance IN (SELECT value FROM json_each(CAST(NEW.rewritten AS TEXT)));

  -- An id keeps its key for life, so a replaced row leaves the index of keys alone.
  INSERT INTO instance_row (id, key, name, version, execution, created, parent, parent_task,
                            parent_execution, tags, start_at, status, updated, completed, pending,
                            events, output, failure, failure_type, custom_status, parked, notes,
                            waits, attempts)
  SELECT v ->> 0, v ->> 1, v ->> 2, v ->> 3, v ->> 4, v ->> 5, v ->> 6, v ->> 7, v ->> 8,
         v -> '$[9][0]', v ->> 11, v ->> 12, v ->> 13, v ->> 14, v ->> 15, v ->> 16,
         v -> '$[17][0]', v -> '$[18][0]', v ->> 19, v -> '$[20][0]', v -> '$[21][0]',
         v -> '$[22][0]', v -> '$[23][0]', v ->> 24
  FROM (SELECT value AS v FROM json_each(CAST(NEW.created AS TEXT)) LIMIT -1) WHERE true
  ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, version = excluded.version, execution = excluded.execution,
    created = excluded.created, parent = excluded.parent, parent_task = excluded.parent_task,
    parent_execution = excluded.parent_execution, tags = excluded.tags,
    start_at = excluded.start_at, status = excluded.status, updated = excluded.updated,
    completed = excluded.completed, pending = excluded.pending, events = excluded.events,
    output = excluded.output, failure = excluded.failure, failure_type = excluded.failure_type,
    custom_status = excluded.custom_status, parked = excluded.parked, notes = excluded.notes,
    waits = excluded.waits, attempts = excluded.attempts;
  INSERT OR REPLACE INTO input_row (id, body)
  SELECT v ->> 0, v -> '$[10][0]'
  FROM (SELECT value AS v FROM json_each(CAST(NEW.created AS TEXT)) LIMIT -1);

  UPDATE instance_row SET
    status = p.status, updated = p.updated, completed = p.completed, pending = p.pending,
    events = p.events, output = p.output, failure = p.failure, failure_type = p.failure_type,
    custom_status = p.custom_status, parked = p.parked, notes = p.notes, waits = p.waits,
    attempts = p.attempts
  FROM (
    SELECT v ->> 0 AS id, v ->> 1 AS status, v ->> 2 AS updated, v ->> 3 AS completed,
           v ->> 4 AS pending, v ->> 5 AS events, v -> '$[6][0]' AS output,
           v -> '$[7][0]' AS failure, v ->> 8 AS failure_type, v -> '$[9][0]' AS custom_status,
           v -> '$[10][0]' AS parked, v -> '$[11][0]' AS notes, v -> '$[12][0]' AS waits,
           v ->> 13 AS attempts
    FROM (SELECT value AS v FROM json_each(CAST(NEW.progress AS TEXT)) LIMIT -1)
  ) AS p
  WHERE instance_row.id = p.id;

  INSERT INTO history_row (instance, seq, body)
  SELECT v ->> 0, v ->> 1, CAST(substr(NEW.history_bodies, v ->> 2, v ->> 3) AS TEXT)
  FROM (SELECT value AS v FROM json_each(CAST(NEW.history AS TEXT)) LIMIT -1) WHERE true
  ON CONFLICT (instance, seq) DO UPDATE SET body = excluded.body;

  -- First, since a name may go from one entity to the next.
  DELETE FROM entity_row
  WHERE id IN (SELECT value FROM json_each(CAST(NEW.entities_deleted AS TEXT)));
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
  DELETE FROM request_row WHERE at < NEW.requests_deleted_before;
  INSERT OR REPLACE INTO request_row (request, at, body)
  SELECT v ->> 0, v ->> 1, v -> 2
  FROM (SELECT value AS v FROM json_each(CAST(NEW.requests AS TEXT)) LIMIT -1);

  INSERT OR REPLACE INTO activity_row (n, instance, body)
  SELECT v ->> 0, v ->> 1, v -> 2
  FROM (SELECT value AS v FROM json_each(CAST(NEW.activities AS TEXT)) LIMIT -1);

  DELETE FROM mail_row
  WHERE n IN (SELECT value FROM json_each(CAST(NEW.mail_deleted AS TEXT)));
  DELETE FROM timer_row
  WHERE n IN (SELECT value FROM json_each(CAST(NEW.timers_deleted AS TEXT)));
  DELETE FROM outbox_row
  WHERE n IN (SELECT value FROM json_each(CAST(NEW.outbox_deleted AS TEXT)));
  DELETE FROM activity_row
  WHERE n IN (SELECT value FROM json_each(CAST(NEW.activities_deleted AS TEXT)));

  UPDATE meta SET sequence = NEW.sequence, next_id = max(next_id, NEW.next_id),
                  next_row = max(next_row, NEW.next_row);
END;

