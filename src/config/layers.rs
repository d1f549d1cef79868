//! File and environment, merged: which value holds for a key, and where it was written.
//!
//! Unknown keys and values of the wrong form are found here, in each layer on its own, so that a place
//! can be named. What the values mean is judged later.

use std::collections::HashMap;
use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Default, Form, Key, PREFIX, SECTIONS, Section, find_section, nearest, variable};
use super::problem::{ConfigError, Findings};

/// The most tenants or providers that the environment may add to.
const MAX_INDEX: usize = 999;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Written<T> {
    pub(super) value: T,
    /// Where; for a default, where the key could be written.
    pub(super) at: String,
    /// Whether somebody wrote it: `false` for a default.
    pub(super) given: bool,
}

/// File and environment together.
pub(super) struct Layers {
    file: String,
    figment: Figment,
    merged: Dict,
    lines: HashMap<String, usize>,
}

/// One table of the merged configuration.
pub(super) struct Table<'a> {
    layers: &'a Layers,
    section: &'static Section,
    dict: Option<&'a Dict>,
    /// `file:line` of the table's head.
    pub(super) at: String,
}

impl Layers {
    /// Reads both layers.
    ///
    /// # Errors
    /// A syntax error of the file, or all unknown keys and ill-formed values.
    pub(super) fn read(
        file: &Path,
        source: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let file = file.display().to_string();
        let mut findings = Findings::default();
        let breaks = source.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
        let mut reader = FileReader { file: &file, source, breaks, lines: HashMap::new(), findings: &mut findings };
        let layer = reader.document();
        let lines = reader.lines;
        let mut figment = Figment::from(Layer { name: FILE_LAYER.into(), dict: layer });
        let mut variables: Vec<_> = env.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        variables.sort();
        for (name, text) in variables {
            match variable_value(&name, &text) {
                Ok(dict) => figment = figment.merge(Layer { name, dict }),
                Err(message) => findings.add(&name, message),
            }
        }
        findings.check()?;
        let merged = match figment.data() {
            Ok(mut profiles) => profiles.remove(&Profile::Default).unwrap_or_default(),
            Err(e) => {
                findings.add(&file, format!("file and environment do not go together: {e}"));
                Dict::new()
            }
        };
        findings.check()?;
        Ok(Self { file, figment, merged, lines })
    }

    /// The file as it is named in messages.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// A table that occurs once; an absent one has only defaults.
    pub(super) fn table(&self, name: &str) -> Table<'_> {
        let section = find_section(name).expect("callers name sections of the table of keys");
        Table { layers: self, section, dict: self.merged.get(name).and_then(Value::as_dict), at: self.place(name) }
    }

    /// The tables of an array, in order. A gap in the numbers of the environment leaves an empty table,
    /// whose missing keys are then found.
    pub(super) fn tables(&self, name: &str) -> Vec<Table<'_>> {
        let section = find_section(name).expect("callers name sections of the table of keys");
        let Some(all) = self.merged.get(name).and_then(Value::as_dict) else { return Vec::new() };
        let count = all.keys().filter_map(|k| k.parse::<usize>().ok()).max().map_or(0, |last| last + 1);
        (0..count)
            .map(|index| {
                let dict = all.get(&index.to_string()).and_then(Value::as_dict);
                Table { layers: self, section, dict, at: self.place(&format!("{name}.{index}")) }
            })
            .collect()
    }

    fn place(&self, path: &str) -> String {
        self.lines.get(path).map_or_else(|| self.file.clone(), |line| format!("{}:{line}", self.file))
    }

    fn place_of(&self, value: &Value, path: &str) -> String {
        match self.figment.get_metadata(value.tag()) {
            Some(layer) if layer.name != FILE_LAYER => layer.name.to_string(),
            _ => self.place(path),
        }
    }
}

impl Table<'_> {
    fn key(&self, name: &str) -> &'static Key {
        self.section.find(name).expect("callers name keys of the table of keys")
    }

    fn written(&self, name: &str) -> Option<Written<&Value>> {
        let value = self.dict?.get(name)?;
        // The place of a key was noted by its own head, so that the index need not be known here.
        let at = self.layers.place_of(value, &format!("{}#{name}", self.at));
        Some(Written { value, at, given: true })
    }

    fn default(&self) -> String {
        self.at.clone()
    }

    /// A text; its default when there is one.
    pub(super) fn text(&self, name: &str) -> Option<Written<String>> {
        if let Some(w) = self.written(name) {
            return Some(Written { value: w.value.as_str()?.to_owned(), at: w.at, given: true });
        }
        match self.key(name).default {
            Default::Text(text) => Some(Written { value: text.to_owned(), at: self.default(), given: false }),
            _ => None,
        }
    }

    /// A flag.
    pub(super) fn flag(&self, name: &str) -> bool {
        let default = self.key(name).default == Default::Flag(true);
        self.written(name).and_then(|w| w.value.to_bool()).unwrap_or(default)
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Option<Written<i64>> {
        let Some(w) = self.written(name) else {
            return match self.key(name).default {
                Default::Number(value) => Some(Written { value, at: self.default(), given: false }),
                _ => None,
            };
        };
        let value = w.value.to_i128().and_then(|n| i64::try_from(n).ok())?;
        Some(Written { value, at: w.at, given: true })
    }

    /// A list of texts; a single text is a list of one.
    pub(super) fn list(&self, name: &str) -> Written<Vec<String>> {
        if let Some(w) = self.written(name) {
            let value = match w.value.as_str() {
                Some(text) => vec![text.to_owned()],
                None => w.value.as_array().unwrap_or_default().iter().filter_map(owned).collect(),
            };
            return Written { value, at: w.at, given: true };
        }
        let value = match self.key(name).default {
            Default::One(text) | Default::Text(text) => vec![text.to_owned()],
            Default::Many(texts) => texts.iter().map(|&text| text.to_owned()).collect(),
            _ => Vec::new(),
        };
        Written { value, at: self.default(), given: false }
    }

    /// What was written, but for the names that an address tells.
    pub(super) fn written_members(&self) -> serde_json::Map<String, serde_json::Value> {
        let all = self.dict.and_then(|dict| serde_json::to_value(dict).ok());
        let Some(serde_json::Value::Object(mut members)) = all else { return serde_json::Map::new() };
        members.retain(|name, _| !matches!(name.as_str(), "tenant" | "name"));
        members
    }

    /// A text that may be a list instead: which of the two was written.
    pub(super) fn is_list(&self, name: &str) -> bool {
        self.written(name).is_some_and(|w| w.value.as_array().is_some())
    }
}

fn owned(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

const FILE_LAYER: &str = "file";

/// One layer for figment: what it holds, under a name by which its values are found again.
struct Layer {
    name: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// Turns the file into a layer, and notes the line of each key.
struct FileReader<'a> {
    file: &'a str,
    source: &'a str,
    /// Where the line breaks are.
    breaks: Vec<usize>,
    lines: HashMap<String, usize>,
    findings: &'a mut Findings,
}

impl FileReader<'_> {
    fn document(&mut self) -> Dict {
        let document = match DeTable::parse(self.source) {
            Ok(document) => document,
            Err(error) => {
                let place = error.span().map_or_else(|| self.file.to_owned(), |span| self.at(span.start));
                self.findings.add(&place, error.message().trim());
                return Dict::new();
            }
        };
        let mut tables: Vec<_> = document.get_ref().iter().collect();
        tables.sort_by_key(|(name, _)| name.span().start);
        let mut dict = Dict::new();
        for (name, value) in tables {
            let place = self.at(name.span().start);
            let name: &str = name.get_ref();
            let Some(section) = find_section(name) else {
                self.findings.add(&place, unknown_section(name, value.get_ref()));
                continue;
            };
            if let Some(read) = self.section(section, value, &place) {
                dict.insert(section.name.to_owned(), read);
            }
        }
        dict
    }

    fn section(&mut self, section: &'static Section, value: &Spanned<DeValue<'_>>, place: &str) -> Option<Value> {
        match (value.get_ref(), section.repeated) {
            (DeValue::Table(table), false) => {
                self.lines.insert(section.name.to_owned(), self.line(value.span().start));
                let at = self.at(value.span().start);
                Some(self.table(section, table, &at).into())
            }
            (DeValue::Array(items), true) if items.iter().all(|i| matches!(i.get_ref(), DeValue::Table(_))) => {
                let mut dict = Dict::new();
                for (index, item) in items.iter().enumerate() {
                    let DeValue::Table(table) = item.get_ref() else { continue };
                    self.lines.insert(format!("{}.{index}", section.name), self.line(item.span().start));
                    let at = self.at(item.span().start);
                    dict.insert(index.to_string(), self.table(section, table, &at).into());
                }
                Some(dict.into())
            }
            (found, _) => {
                let message = format!("{} is {}; write {}", section.name, form_of(found), section.shown());
                self.findings.add(place, message);
                None
            }
        }
    }

    fn table(&mut self, section: &'static Section, table: &DeTable<'_>, head: &str) -> Dict {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut dict = Dict::new();
        for (name, value) in entries {
            let line = self.line(name.span().start);
            let place = format!("{}:{line}", self.file);
            let name: &str = name.get_ref();
            let Some(key) = section.find(name) else {
                self.findings.add(&place, section.unknown(name));
                continue;
            };
            self.lines.insert(format!("{head}#{name}"), line);
            match file_value(key.form, value.get_ref()) {
                Some(value) => {
                    dict.insert(name.to_owned(), value);
                }
                None => self.findings.add(
                    &place,
                    format!(
                        "{name} in {} is {}; it must be {}",
                        section.shown(),
                        form_of(value.get_ref()),
                        key.form.words()
                    ),
                ),
            }
        }
        dict
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.breaks.partition_point(|at| *at < offset)
    }

    fn at(&self, offset: usize) -> String {
        format!("{}:{}", self.file, self.line(offset))
    }
}

fn unknown_section(name: &str, value: &DeValue<'_>) -> String {
    if !matches!(value, DeValue::Table(_) | DeValue::Array(_))
        && let Some(home) = SECTIONS.iter().find(|s| s.find(name).is_some())
    {
        return format!("unknown key \"{name}\" outside any table; it belongs in {}", home.shown());
    }
    let near = nearest(name, SECTIONS.iter().map(|s| s.name)).and_then(find_section);
    let near = near.map_or_else(String::new, |s| format!("; nearest is {}", s.shown()));
    format!("unknown table \"{name}\"{near}")
}

fn file_value(form: Form, value: &DeValue<'_>) -> Option<Value> {
    match (form, value) {
        (Form::Text | Form::TextOrList, DeValue::String(text)) => Some(text.as_ref().into()),
        (Form::Flag, DeValue::Boolean(flag)) => Some((*flag).into()),
        (Form::Number, DeValue::Integer(number)) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::from)
        }
        (Form::List | Form::TextOrList, DeValue::Array(items)) => {
            let text = |item: &Spanned<DeValue<'_>>| item.get_ref().as_str().map(Value::from);
            items.iter().map(text).collect::<Option<Vec<_>>>().map(Value::from)
        }
        _ => None,
    }
}

fn form_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(items) if items.iter().any(|i| matches!(i.get_ref(), DeValue::Table(_))) => {
            "an array of tables"
        }
        DeValue::Array(items) if items.iter().any(|i| !matches!(i.get_ref(), DeValue::String(_))) => {
            "a list with other things than texts"
        }
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// What one variable sets: `COUNTERSIGN_SERVER__LISTEN`, `COUNTERSIGN_PROVIDERS__0__CLIENT_IDS`.
fn variable_value(name: &str, text: &str) -> Result<Dict, String> {
    let unknown = || unknown_variable(name);
    let parts: Vec<&str> = name[PREFIX.len()..].split("__").collect();
    let known = |section: &str, key: &str| {
        let section = SECTIONS.iter().find(|s| s.name.to_uppercase() == section)?;
        Some((section, section.keys.iter().find(|k| k.name.to_uppercase() == key)?))
    };
    let (section, index, key) = match parts[..] {
        [section, key] => match known(section, key) {
            Some((section, key)) if !section.repeated => (section, None, key),
            _ => return Err(unknown()),
        },
        [section, index, key] => match known(section, key) {
            Some((section, key)) if section.repeated => {
                let fine = index.parse::<usize>().ok().filter(|i| *i <= MAX_INDEX && i.to_string() == index);
                let range =
                    || format!("\"{index}\" is not a number from 0 to {MAX_INDEX}; 0 is the first of the file");
                (section, Some(fine.ok_or_else(range)?), key)
            }
            _ => return Err(unknown()),
        },
        _ => return Err(unknown()),
    };
    let value = environment_value(key.form, text).ok_or_else(|| format!("must be {}", key.form.words()))?;
    let keys = Dict::from([(key.name.to_owned(), value)]);
    let inner = match index {
        Some(index) => Dict::from([(index.to_string(), keys.into())]),
        None => keys,
    };
    Ok(Dict::from([(section.name.to_owned(), inner.into())]))
}

/// Lists may be written as in the file, or with commas alone.
fn environment_value(form: Form, text: &str) -> Option<Value> {
    match form {
        Form::Text => Some(text.into()),
        Form::Flag => text.parse::<bool>().ok().map(Value::from),
        Form::Number => text.parse::<i64>().ok().map(Value::from),
        Form::TextOrList if !text.starts_with('[') => Some(text.into()),
        Form::List | Form::TextOrList if text.starts_with('[') => {
            let parsed = DeValue::parse(text).ok()?;
            file_value(form, parsed.get_ref())
        }
        Form::List | Form::TextOrList => {
            let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
            Some(parts.map(Value::from).collect::<Vec<_>>().into())
        }
    }
}

fn unknown_variable(name: &str) -> String {
    let all: Vec<String> = SECTIONS.iter().flat_map(|s| s.keys.iter().map(|k| variable(s, 0, k.name))).collect();
    let near = nearest(name, all.iter().map(String::as_str)).unwrap_or_default();
    format!("unknown variable; nearest is {near}")
}
