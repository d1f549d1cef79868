-- What administrators look for. Users and identities are written rarely; the index of sign_ins grows at its
-- end in each tenant, since identifiers are time-ordered.
CREATE INDEX IF NOT EXISTS sessions_user ON sessions (user_id);
CREATE INDEX users_email ON users (tenant, email_key) WHERE email_key IS NOT NULL;
CREATE INDEX users_username ON users (tenant, lower(profile ->> 'username'));
CREATE INDEX sign_ins_tenant ON sign_ins (tenant, id);
