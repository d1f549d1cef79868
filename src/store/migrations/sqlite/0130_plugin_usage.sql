-- What each plugin holds, kept by triggers: adding it up at every write would keep the one writer from everybody else.
-- A value counts 32 bytes besides its own and its key's, about what its row takes.
CREATE TABLE plugin_usage (
    plugin TEXT PRIMARY KEY,
    bytes  INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO plugin_usage (plugin, bytes)
SELECT plugin, sum(length(key) + length(value) + 32) FROM plugin_values GROUP BY plugin;

CREATE TRIGGER plugin_values_added AFTER INSERT ON plugin_values BEGIN
    INSERT INTO plugin_usage (plugin, bytes) VALUES (NEW.plugin, length(NEW.key) + length(NEW.value) + 32)
    ON CONFLICT (plugin) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER plugin_values_changed AFTER UPDATE OF value ON plugin_values BEGIN
    UPDATE plugin_usage SET bytes = bytes + length(NEW.value) - length(OLD.value) WHERE plugin = NEW.plugin;
END;

CREATE TRIGGER plugin_values_removed AFTER DELETE ON plugin_values BEGIN
    UPDATE plugin_usage SET bytes = bytes - length(OLD.key) - length(OLD.value) - 32 WHERE plugin = OLD.plugin;
END;
