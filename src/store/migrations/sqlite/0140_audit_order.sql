-- The audit log in the order of writing: identifiers that several servers make have only that of their clocks.
ALTER TABLE audit RENAME TO audit_by_id;

CREATE TABLE audit (
    seq        INTEGER NOT NULL PRIMARY KEY,
    id         BLOB    NOT NULL UNIQUE,
    at         INTEGER NOT NULL,
    tenant     TEXT,                      -- absent: the server itself
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    target     TEXT    NOT NULL,
    difference TEXT    NOT NULL,          -- JSON
    request    TEXT
) STRICT;

INSERT INTO audit (id, at, tenant, actor, action, target, difference, request)
SELECT id, at, tenant, actor, action, target, difference, request FROM audit_by_id ORDER BY id;

DROP TABLE audit_by_id;

-- An index holds `seq` as well.
CREATE INDEX audit_tenant ON audit (tenant);
CREATE INDEX audit_target ON audit (target);
