-- A key signs from active_from on, until a younger one does; it is published before and after.
ALTER TABLE signing_keys ADD COLUMN active_from INTEGER NOT NULL DEFAULT 0;
UPDATE signing_keys SET active_from = created_at;

-- A session that is not refreshed ends at idle_at. The sessions of one user are found through sign_ins,
-- which is clustered by user.
ALTER TABLE sessions ADD COLUMN refreshed_at INTEGER;
ALTER TABLE sessions ADD COLUMN idle_at INTEGER;

-- SHA-256 over tenant, provider, issuer and the provider's own session identifier.
ALTER TABLE sessions ADD COLUMN upstream_sid BLOB;
CREATE INDEX sessions_upstream ON sessions (upstream_sid) WHERE upstream_sid IS NOT NULL;

-- Keys that were derived from an earlier master key and have to stay as they are.
CREATE TABLE kept_keys (
    name   TEXT NOT NULL PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
