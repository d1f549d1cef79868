-- Times are milliseconds since 1970. Identifiers are 16 time-ordered bytes, so that new rows stand
-- together. No counter is updated by a sign-in: what can be derived is derived.

CREATE TABLE users (
    id             BLOB    NOT NULL PRIMARY KEY,
    tenant         TEXT    NOT NULL,
    status         TEXT    NOT NULL,
    email_key      TEXT,                 -- the address in lower case
    email_verified INTEGER NOT NULL,
    profile        TEXT    NOT NULL,     -- JSON
    created_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A verified address has one holder in a tenant.
CREATE UNIQUE INDEX users_verified_email ON users (tenant, email_key) WHERE email_verified = 1;

CREATE TABLE identities (
    tenant     TEXT    NOT NULL,
    provider   TEXT    NOT NULL,
    issuer     TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    user_id    BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, provider, issuer, subject)
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    id         BLOB    NOT NULL PRIMARY KEY,
    user_id    BLOB    NOT NULL,
    "grant"    TEXT    NOT NULL,         -- JSON
    created_at INTEGER NOT NULL,
    ends_at    INTEGER,
    ended_at   INTEGER,
    device     BLOB
) STRICT, WITHOUT ROWID;

CREATE TABLE refresh_tokens (
    id          BLOB    NOT NULL PRIMARY KEY,
    session_id  BLOB    NOT NULL,
    secret_hash BLOB    NOT NULL,
    expires_at  INTEGER NOT NULL,
    used_at     INTEGER,
    successor   BLOB,                    -- its identifier
    sealed      BLOB                     -- its secret, until the grace has passed
) STRICT, WITHOUT ROWID;

CREATE INDEX refresh_tokens_sealed ON refresh_tokens (used_at) WHERE sealed IS NOT NULL;

CREATE TABLE replays (
    id         INTEGER NOT NULL PRIMARY KEY,
    key        BLOB    NOT NULL UNIQUE,
    expires_at INTEGER NOT NULL
) STRICT;

-- Clustered by user: the history of one user is read in one go.
CREATE TABLE sign_ins (
    user_id    BLOB    NOT NULL,         -- 16 zero bytes: nobody was found
    id         BLOB    NOT NULL,
    at         INTEGER NOT NULL,
    tenant     TEXT    NOT NULL,
    provider   TEXT    NOT NULL,
    "end"      INTEGER NOT NULL,
    code       TEXT,
    device     INTEGER,                  -- keyed hashes
    agent      INTEGER,
    prefix     INTEGER,
    country    TEXT,
    asn        INTEGER,
    latitude   REAL,
    longitude  REAL,
    accuracy   REAL,
    score      INTEGER,
    level      INTEGER,
    assessment TEXT,                     -- JSON: policy, reasons, fault
    session_id BLOB,
    PRIMARY KEY (user_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE challenges (
    id          BLOB    NOT NULL PRIMARY KEY,
    secret_hash BLOB    NOT NULL,
    tenant      TEXT    NOT NULL,
    user_id     BLOB    NOT NULL,
    device      BLOB,
    methods     TEXT    NOT NULL,
    "grant"     TEXT    NOT NULL,        -- JSON
    context     TEXT    NOT NULL,        -- JSON
    assessment  TEXT    NOT NULL,        -- JSON
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    used_at     INTEGER
) STRICT, WITHOUT ROWID;

-- One row for each code that was looked at and not found right.
CREATE TABLE mfa_attempts (
    id        INTEGER NOT NULL PRIMARY KEY,
    user_id   BLOB    NOT NULL,
    challenge BLOB    NOT NULL,
    at        INTEGER NOT NULL
) STRICT;

CREATE INDEX mfa_attempts_user ON mfa_attempts (user_id, at);

CREATE TABLE mfa_locks (
    user_id BLOB    NOT NULL PRIMARY KEY,
    until   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE factors (
    user_id       BLOB    NOT NULL,
    id            BLOB    NOT NULL,
    method        TEXT    NOT NULL,
    sealed_secret BLOB    NOT NULL,
    enrolled_at   INTEGER NOT NULL,
    last_used_at  INTEGER,
    last_step     INTEGER,
    confirmed     INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    PRIMARY KEY (user_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE signing_keys (
    id         BLOB    NOT NULL PRIMARY KEY,
    algorithm  TEXT    NOT NULL,
    sealed     BLOB    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
