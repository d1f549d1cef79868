-- Bundles never change. Activations are only added; the last one of a scope is in force. The scope ''
-- is all tenants: no tenant has an empty name.
CREATE TABLE policy_bundles (
    id         TEXT    NOT NULL PRIMARY KEY,
    sha256     BLOB    NOT NULL,
    files      TEXT    NOT NULL,         -- JSON: name -> text
    owner      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    note       TEXT    NOT NULL,
    checked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE policy_activations (
    seq      INTEGER NOT NULL PRIMARY KEY,
    scope    TEXT    NOT NULL,
    bundle   TEXT,                       -- absent: none of its own any more
    previous TEXT,
    actor    TEXT    NOT NULL,
    note     TEXT    NOT NULL,
    at       INTEGER NOT NULL
) STRICT;

CREATE INDEX policy_activations_scope ON policy_activations (scope, seq);

CREATE TABLE policy_nodes (
    node    TEXT    NOT NULL PRIMARY KEY,
    seq     INTEGER NOT NULL,
    error   TEXT,
    seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE policy_shadows (
    tenant    TEXT    NOT NULL,
    bundle    TEXT    NOT NULL,
    since     INTEGER NOT NULL,
    evaluated INTEGER NOT NULL DEFAULT 0,
    differed  INTEGER NOT NULL DEFAULT 0,
    faults    INTEGER NOT NULL DEFAULT 0,
    micros    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, bundle)
) STRICT, WITHOUT ROWID;

CREATE TABLE policy_shadow_differences (
    sign_in   BLOB NOT NULL,             -- as in decisions
    bundle    TEXT NOT NULL,
    tenant    TEXT NOT NULL,
    decided   TEXT NOT NULL,
    candidate TEXT NOT NULL,
    PRIMARY KEY (sign_in, bundle)
) STRICT, WITHOUT ROWID;

CREATE TABLE sign_in_labels (
    tenant   TEXT    NOT NULL,
    sign_in  BLOB    NOT NULL,
    by_user  INTEGER NOT NULL,
    user_id  BLOB    NOT NULL,
    disputed INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (tenant, sign_in, by_user)
) STRICT, WITHOUT ROWID;
