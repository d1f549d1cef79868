-- "This was not me": no rule learns a device, a place or a network from such a sign-in. Kept beside the labels, so
-- that the look-up of a sign-in asks no other table.
ALTER TABLE sign_ins ADD COLUMN disputed INTEGER NOT NULL DEFAULT 0;

UPDATE sign_ins SET disputed = 1
WHERE (user_id, id) IN (SELECT user_id, sign_in FROM sign_in_labels WHERE disputed = 1);
