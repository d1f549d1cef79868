-- Tenants and providers of the administration API; those of the file stand in the file.
CREATE TABLE tenants (
    id         TEXT    NOT NULL PRIMARY KEY,
    hosts      TEXT    NOT NULL,          -- JSON
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE providers (
    tenant     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    settings   TEXT    NOT NULL,          -- JSON, in the words of [[providers]]
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

-- Providers of the file that an administrator switched off.
CREATE TABLE providers_off (
    tenant TEXT    NOT NULL,
    name   TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

-- Grows with every change of the three tables above: nodes ask for it.
CREATE TABLE directory_version (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO directory_version (one, version) VALUES (1, 0);

CREATE INDEX users_tenant ON users (tenant, id);
