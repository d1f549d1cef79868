CREATE TABLE admin_keys (
    id           BLOB    NOT NULL PRIMARY KEY,
    secret_hash  BLOB    NOT NULL,
    tenant       TEXT,                    -- absent: all tenants
    role         TEXT    NOT NULL,
    note         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER
) STRICT, WITHOUT ROWID;

-- Appended to by every change of an administrator, in the change's own transaction.
CREATE TABLE audit (
    id         BLOB    NOT NULL PRIMARY KEY,
    at         INTEGER NOT NULL,
    tenant     TEXT,                      -- absent: the server itself
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    target     TEXT    NOT NULL,
    difference TEXT    NOT NULL,          -- JSON
    request    TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_tenant ON audit (tenant, id);
CREATE INDEX audit_target ON audit (target, id);
