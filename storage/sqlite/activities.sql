-- Activities that are to run although no turn will take their answer: their orchestration has ended,
-- or goes on as new. A row goes with the answer, or with the instance.
CREATE TABLE activity_row (n INTEGER PRIMARY KEY, instance INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX activity_instance ON activity_row (instance);

CREATE VIEW activities AS
SELECT activity_row.n, instance_row.key AS instance_id, activity_row.body AS call
FROM activity_row LEFT JOIN instance_row ON instance_row.id = activity_row.instance;

-- For instances whose code is not registered any more: found at the start of a hub, without their rows.
CREATE INDEX instance_live ON instance_row (name, version)
  WHERE status NOT IN ('Completed', 'Failed', 'Canceled', 'Terminated');

-- A JSON object: how often it was rewound, why it is suspended, and what goes along until it begins.
ALTER TABLE instance_row ADD COLUMN notes TEXT;
