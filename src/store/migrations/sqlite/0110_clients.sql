-- OAuth clients of the administration API; those of the file stand in the file.
CREATE TABLE clients (
    tenant        TEXT    NOT NULL,
    id            TEXT    NOT NULL,
    settings      TEXT    NOT NULL,       -- JSON, in the words of [[clients]], without secret_hash
    secret_hashes BLOB    NOT NULL,       -- SHA-256 of each secret, the newest first, one after the other
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    generation    INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

-- Which of those that had a name one after the other: the version of the directory that it came with. What is
-- there gets 1, since whatever comes later comes with a greater version; what began under it, too.
ALTER TABLE providers ADD COLUMN generation INTEGER NOT NULL DEFAULT 1;

UPDATE sessions SET "grant" = json_set("grant", '$.provider_generation', 1)
WHERE ended_at IS NULL AND EXISTS (
    SELECT 1 FROM providers p WHERE p.tenant = "grant" ->> 'tenant' AND p.name = "grant" ->> 'provider'
    AND p.created_at <= sessions.created_at);

UPDATE challenges SET "grant" = json_set("grant", '$.provider_generation', 1)
WHERE used_at IS NULL AND EXISTS (
    SELECT 1 FROM providers p WHERE p.tenant = "grant" ->> 'tenant' AND p.name = "grant" ->> 'provider'
    AND p.created_at <= challenges.created_at);
