-- People: who is linked to what, and who is invited.

-- Unlinking ends the sessions that came through the provider.
CREATE INDEX IF NOT EXISTS sessions_user ON sessions (user_id);

-- An identity that was refused because its address is another user's: that user alone may link it.
CREATE TABLE link_offers (
    id          BLOB    NOT NULL PRIMARY KEY,
    secret_hash BLOB    NOT NULL,
    tenant      TEXT    NOT NULL,
    provider    TEXT    NOT NULL,
    issuer      TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    user_id     BLOB    NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The identity that the right answer to a challenge links.
CREATE TABLE challenge_links (
    challenge  BLOB    NOT NULL PRIMARY KEY,
    provider   TEXT    NOT NULL,
    issuer     TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- An invitation is for an address or for an identity, and has a pending user from the start.
CREATE TABLE invitations (
    id          BLOB    NOT NULL PRIMARY KEY,
    tenant      TEXT    NOT NULL,
    user_id     BLOB    NOT NULL,
    provider    TEXT,                    -- NULL: any provider that is trusted for the address
    issuer      TEXT,
    subject     TEXT,
    email_key   TEXT,                    -- the address in lower case
    note        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    accepted_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX invitations_email ON invitations (tenant, email_key)
    WHERE accepted_at IS NULL AND email_key IS NOT NULL;
CREATE UNIQUE INDEX invitations_identity ON invitations (tenant, provider, issuer, subject)
    WHERE accepted_at IS NULL AND subject IS NOT NULL;
