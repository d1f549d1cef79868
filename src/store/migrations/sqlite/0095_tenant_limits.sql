-- Limits of the sessions of a tenant of the administration API, in seconds and in number; NULL does not limit.
ALTER TABLE tenants ADD COLUMN session_idle_s INTEGER;
ALTER TABLE tenants ADD COLUMN session_ttl_s  INTEGER;
ALTER TABLE tenants ADD COLUMN max_sessions   INTEGER;
