-- Backup codes that are left; the set is a row of factors, which goes with its last code.
CREATE TABLE backup_codes (
    user_id BLOB NOT NULL,
    factor  BLOB NOT NULL,
    hash    BLOB NOT NULL,                -- HMAC-SHA-256 under the set's own key, factors.sealed_secret
    PRIMARY KEY (user_id, hash)
) STRICT, WITHOUT ROWID;
