-- Of keys that sign from the same moment on, the one that the store took last.
ALTER TABLE signing_keys ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
UPDATE signing_keys SET seq = ordered.place FROM (
    SELECT id, row_number() OVER (ORDER BY active_from, id) AS place FROM signing_keys) ordered
WHERE signing_keys.id = ordered.id;
