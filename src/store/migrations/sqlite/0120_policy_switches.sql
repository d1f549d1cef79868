-- Activations come into force when the nodes that live are ready for them; what was active is in force.
CREATE TABLE policy_switches (
    seq      INTEGER NOT NULL PRIMARY KEY,
    at       INTEGER NOT NULL,
    node     TEXT    NOT NULL,
    laggards TEXT    NOT NULL            -- JSON: those who were not ready
) STRICT;

INSERT INTO policy_switches (seq, at, node, laggards)
SELECT max(seq), max(at), '', '[]' FROM policy_activations HAVING max(seq) IS NOT NULL;

ALTER TABLE policy_nodes ADD COLUMN ready INTEGER NOT NULL DEFAULT 0;

-- Ed25519 over the bundle's SHA-256; absent: nobody signed it.
ALTER TABLE policy_bundles ADD COLUMN signature BLOB;
