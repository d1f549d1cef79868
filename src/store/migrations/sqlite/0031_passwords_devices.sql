-- Local passwords and trusted devices. Neither is touched by a sign-in.

CREATE TABLE passwords (
    user_id     BLOB    NOT NULL PRIMARY KEY,
    hash        TEXT    NOT NULL,        -- PHC string
    former      TEXT    NOT NULL,        -- JSON list of those before it, newest first
    changed_at  INTEGER NOT NULL,
    must_change INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row for each old password that was looked at and not found right.
CREATE TABLE password_attempts (
    id      INTEGER NOT NULL PRIMARY KEY,
    user_id BLOB    NOT NULL,
    at      INTEGER NOT NULL
) STRICT;

CREATE INDEX password_attempts_user ON password_attempts (user_id, at);

CREATE TABLE trusted_devices (
    user_id     BLOB    NOT NULL,
    device      BLOB    NOT NULL,        -- keyed hash
    secret_hash BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (user_id, device)
) STRICT, WITHOUT ROWID;
