-- Whether an activation goes back: it takes off what stood above its bundle.
ALTER TABLE policy_activations ADD COLUMN goes_back INTEGER NOT NULL DEFAULT 0;
