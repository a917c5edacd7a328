-- Instances by their tags, in the order of pages: `begun` is when the instance was created.
CREATE TABLE tag_row (
  tag TEXT NOT NULL,
  value TEXT NOT NULL,
  begun INTEGER NOT NULL,
  instance INTEGER NOT NULL,
  PRIMARY KEY (tag, value, begun, instance)
) WITHOUT ROWID;

-- What a file of an older version has.
INSERT OR IGNORE INTO tag_row (tag, value, begun, instance)
SELECT t.key, t.value, r.created, r.id
FROM instance_row AS r, json_each(CASE WHEN json_valid(r.tags) THEN r.tags END) AS t
WHERE t.type = 'text';

CREATE TRIGGER tags_inserted AFTER INSERT ON instance_row WHEN NEW.tags IS NOT NULL
BEGIN
  INSERT OR IGNORE INTO tag_row (tag, value, begun, instance)
  SELECT key, value, NEW.created, NEW.id FROM json_each(CASE WHEN json_valid(NEW.tags) THEN NEW.tags END)
  WHERE type = 'text';
END;
CREATE TRIGGER tags_updated AFTER UPDATE OF tags, created ON instance_row
WHEN OLD.tags IS NOT NEW.tags OR OLD.created IS NOT NEW.created
BEGIN
  DELETE FROM tag_row WHERE begun = OLD.created AND instance = OLD.id AND (tag, value) IN (
    SELECT key, value FROM json_each(CASE WHEN json_valid(OLD.tags) THEN OLD.tags END)
  );
  INSERT OR IGNORE INTO tag_row (tag, value, begun, instance)
  SELECT key, value, NEW.created, NEW.id FROM json_each(CASE WHEN json_valid(NEW.tags) THEN NEW.tags END)
  WHERE type = 'text';
END;
CREATE TRIGGER tags_deleted AFTER DELETE ON instance_row WHEN OLD.tags IS NOT NULL
BEGIN
  DELETE FROM tag_row WHERE begun = OLD.created AND instance = OLD.id AND (tag, value) IN (
    SELECT key, value FROM json_each(CASE WHEN json_valid(OLD.tags) THEN OLD.tags END)
  );
END;
