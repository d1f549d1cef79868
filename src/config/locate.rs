//! Where in the file something stands. The parser tells it of types; for our own checks and for unknown
//! keys the lines are looked through once more.

use super::ConfigError;

/// A file and its lines.
pub(super) struct Place {
    file: String,
    lines: Vec<String>,
}

impl Place {
    pub fn new(file: String, text: &str) -> Self {
        Self { file, lines: text.lines().map(str::to_owned).collect() }
    }

    /// `file:line` of a byte.
    pub fn of_byte(&self, text: &str, byte: usize) -> String {
        let line = text.get(..byte).map_or(1, |before| before.matches('\n').count() + 1);
        format!("{}:{line}", self.file)
    }

    /// `file:line` of a key in a table; `index` chooses among tables of one name (`[[providers]]`). The
    /// table's own line when the key does not stand in it, the file alone when the table does not.
    pub fn of_key(&self, table: &str, index: usize, key: &str) -> String {
        let mut seen = 0;
        let mut inside = false;
        let mut at_table = None;
        for (number, line) in self.lines.iter().enumerate() {
            let line = line.trim();
            if line.starts_with('[') {
                let name = line.trim_matches(|c| c == '[' || c == ']').trim();
                inside = name == table && seen == index;
                if name == table {
                    seen += 1;
                }
                if inside {
                    at_table = Some(number + 1);
                }
                continue;
            }
            if inside && line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('=')) {
                return format!("{}:{}", self.file, number + 1);
            }
        }
        at_table.map_or_else(|| self.file.clone(), |line| format!("{}:{line}", self.file))
    }

    pub fn error(&self, table: &str, index: usize, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.of_key(table, index, key), message)
    }
}

/// `unknown key "mapings" in [[providers]]; nearest is "mapping"`.
pub(super) fn unknown_key(key: &str, table: &str, known: &[&str]) -> String {
    match nearest(key, known) {
        Some(near) => format!("unknown key \"{key}\" in {table}; nearest is \"{near}\""),
        None => format!("unknown key \"{key}\" in {table}"),
    }
}

/// The known word that is nearest to one that is not.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known.iter().copied().max_by(|a, b| strsim::jaro_winkler(word, a).total_cmp(&strsim::jaro_winkler(word, b)))
}
