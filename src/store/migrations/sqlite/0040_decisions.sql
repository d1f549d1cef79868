-- Decision records: frozen facts and trace, sealed with a key of the tenant. Rows are added at the end
-- and removed at the start; the index serves one record and a tenant's span of time (identifiers are
-- time-ordered).
CREATE TABLE decisions (
    seq        INTEGER NOT NULL PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    id         BLOB    NOT NULL,         -- as in sign_ins
    expires_at INTEGER NOT NULL,
    sealed     BLOB    NOT NULL
) STRICT;

CREATE UNIQUE INDEX decisions_id ON decisions (tenant, id);
