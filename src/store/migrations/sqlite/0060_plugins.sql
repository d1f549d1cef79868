-- Messages with codes of a challenge, one for each method: the last one counts.
CREATE TABLE mfa_deliveries (
    challenge   BLOB NOT NULL,
    method      TEXT NOT NULL,
    user_id     BLOB NOT NULL,
    delivery_id TEXT NOT NULL,
    sealed_code BLOB,
    reference   TEXT,
    messages    INTEGER NOT NULL,
    sent_at     INTEGER NOT NULL,
    PRIMARY KEY (challenge, method)
) WITHOUT ROWID;
CREATE INDEX mfa_deliveries_by_user ON mfa_deliveries (user_id, sent_at);
CREATE INDEX mfa_deliveries_by_time ON mfa_deliveries (sent_at);

-- Small values of plugins, shared by the nodes.
CREATE TABLE plugin_values (
    plugin     TEXT NOT NULL,
    key        BLOB NOT NULL,
    value      BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (plugin, key)
) WITHOUT ROWID;
CREATE INDEX plugin_values_by_expiry ON plugin_values (expires_at);
