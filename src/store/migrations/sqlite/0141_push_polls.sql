-- When the channel of a message was last asked whether its user has answered.
ALTER TABLE mfa_deliveries ADD COLUMN polled_at INTEGER;
