-- Open challenges end with the sessions of their user, or of the provider's session that they came from.
CREATE INDEX challenges_open ON challenges (user_id) WHERE used_at IS NULL;
CREATE INDEX challenges_upstream ON challenges ("grant" ->> 'upstream_sid')
    WHERE used_at IS NULL AND "grant" ->> 'upstream_sid' IS NOT NULL;
