-- What live instances wait for, and how often a call of theirs was tried: for queries alone.
-- `waits` is a JSON array of texts such as "activity:charge"; docs/storage.md lists them.
ALTER TABLE instance_row ADD COLUMN waits TEXT;
ALTER TABLE instance_row ADD COLUMN attempts INTEGER;

-- The same by what is waited for; `begun` is when the instance was created, the order of pages.
CREATE TABLE wait_row (
  wait TEXT NOT NULL,
  begun INTEGER NOT NULL,
  instance INTEGER NOT NULL,
  PRIMARY KEY (wait, begun, instance)
) WITHOUT ROWID;
CREATE INDEX instance_attempts ON instance_row (created) WHERE attempts > 1;

-- Most instances that a round of checkpoints brings have ended, and pass by all of these.
CREATE TRIGGER waits_inserted AFTER INSERT ON instance_row WHEN NEW.waits IS NOT NULL
BEGIN
  INSERT OR IGNORE INTO wait_row (wait, begun, instance)
  SELECT value, NEW.created, NEW.id FROM json_each(CASE WHEN json_valid(NEW.waits) THEN NEW.waits END)
  WHERE type = 'text';
END;
CREATE TRIGGER waits_updated AFTER UPDATE OF waits, created ON instance_row
WHEN OLD.waits IS NOT NEW.waits OR OLD.created IS NOT NEW.created
BEGIN
  DELETE FROM wait_row WHERE begun = OLD.created AND instance = OLD.id AND wait IN (
    SELECT value FROM json_each(CASE WHEN json_valid(OLD.waits) THEN OLD.waits END)
  );
  INSERT OR IGNORE INTO wait_row (wait, begun, instance)
  SELECT value, NEW.created, NEW.id FROM json_each(CASE WHEN json_valid(NEW.waits) THEN NEW.waits END)
  WHERE type = 'text';
END;
CREATE TRIGGER waits_deleted AFTER DELETE ON instance_row WHEN OLD.waits IS NOT NULL
BEGIN
  DELETE FROM wait_row WHERE begun = OLD.created AND instance = OLD.id AND wait IN (
    SELECT value FROM json_each(CASE WHEN json_valid(OLD.waits) THEN OLD.waits END)
  );
END;
