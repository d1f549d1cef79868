CREATE INDEX identities_by_user ON identities (user_id);
