//! `policy defs`: what scripts can read and call, for an editor and the language server of rhai, and a
//! JSON Schema of the facts. Both come from the tables that the engine and the generated sign-ins use.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::calls::Call;
use super::facts::MEMBERS;
use super::{case_facts as cases, corpus, engine, schemas};
use crate::ids::TenantId;
use crate::signin::fact_paths::{CLAIMS, FactPath, PATHS, PLUGIN_SIGNALS, WITHHELD};
use crate::signin::facts::Facts;

/// The file of what every script has.
const MAIN: &str = "countersign.d.rhai";
/// No word of any list.
const NO_WORD: &str = "zzzz";

/// What a fact can be.
struct Shape {
    path: &'static str,
    /// Of JSON: `string`, `integer`, …; `None` when no generated sign-in knows it.
    kind: Option<&'static str>,
    /// It may be `()`.
    maybe: bool,
    /// Every word that it can be; empty when any text will do.
    words: Vec<String>,
    /// What the map, or each of the list, has.
    members: &'static [(&'static str, &'static str)],
}

impl Shape {
    fn of(fact: &FactPath, all: &[Facts]) -> Self {
        let values: Vec<Value> = all.iter().map(|facts| (fact.read)(facts)).collect();
        let members = MEMBERS.iter().find(|(path, _)| *path == fact.name).map_or(&[][..], |(_, members)| members);
        let withheld = WITHHELD.contains(&fact.name);
        let seen = values.iter().find(|value| !value.is_null()).map(kind);
        let kind = match fact.name {
            "history.last_sign_in" => Some("object"),
            "tenant.first_sign_in" => Some("string"),
            _ => seen,
        };
        let free = |word: &str| cases::set(&mut all[0].clone(), fact.name, &word.into()).is_ok();
        let texts = values.iter().filter_map(Value::as_str);
        let mut words: Vec<String> = texts.map(str::to_owned).collect();
        words.sort_unstable();
        words.dedup();
        if withheld || !words.first().is_some_and(|word| free(word)) || free(NO_WORD) {
            words.clear();
        }
        Self { path: fact.name, kind, maybe: withheld || values.iter().any(Value::is_null), words, members }
    }

    fn rhai(&self) -> &'static str {
        match self.kind {
            Some(_) if self.maybe => "?",
            Some("string") => "String",
            Some("integer") => "int",
            Some("number") => "float",
            Some("boolean") => "bool",
            Some("array") => "Array",
            Some("object") => "Map",
            _ => "?",
        }
    }

    fn told(&self) -> String {
        let kind = self.kind.unwrap_or("of no fixed kind");
        let words = if self.words.is_empty() { String::new() } else { format!(": {}", self.words.join(", ")) };
        let members: Vec<&str> = self.members.iter().map(|(name, _)| *name).collect();
        let of = if members.is_empty() { String::new() } else { format!(" of #{{{}}}", members.join(", ")) };
        format!("`s.{}`, {kind}{of}{words}{}", self.path, if self.maybe { "; () when it is not known" } else { "" })
    }

    fn schema(&self) -> Value {
        let mut schema = Map::new();
        if let Some(kind) = self.kind {
            schema.insert("type".to_owned(), if self.maybe { json!([kind, "null"]) } else { json!(kind) });
        }
        if !self.words.is_empty() {
            let none = self.maybe.then_some(Value::Null);
            let words: Vec<Value> = self.words.iter().map(|word| json!(word)).chain(none).collect();
            schema.insert("enum".to_owned(), words.into());
        }
        match (self.kind, self.members) {
            (Some("array"), []) => drop(schema.insert("items".to_owned(), json!({"type": "string"}))),
            (Some("array"), members) => drop(schema.insert("items".to_owned(), object(members))),
            (_, []) => {}
            (_, members) => drop(schema.insert("properties".to_owned(), object(members)["properties"].take())),
        }
        Value::Object(schema)
    }
}

fn object(members: &[(&str, &str)]) -> Value {
    let of = |&(name, kind): &(&str, &str)| {
        let kind = kind.strip_suffix('?').map_or_else(|| json!(kind), |kind| json!([kind, "null"]));
        (name.to_owned(), json!({ "type": kind }))
    };
    json!({"type": "object", "properties": members.iter().map(of).collect::<Map<_, _>>()})
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null | Value::Object(_) => "object",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
    }
}

/// Claims and the signals of plugins have names of the tenant's own, and are no single facts.
fn is_open(path: &str) -> bool {
    [CLAIMS, PLUGIN_SIGNALS].contains(&path)
}

fn shapes() -> Vec<Shape> {
    let Ok(tenant) = TenantId::parse(TenantId::DEFAULT) else { return Vec::new() };
    let all: Vec<Facts> = corpus::samples(&tenant).into_iter().map(|sample| (*sample.facts).clone()).collect();
    PATHS.iter().filter(|fact| !is_open(fact.name)).map(|fact| Shape::of(fact, &all)).collect()
}

/// A type as the definitions name it: theirs has no space.
fn type_name(name: &str) -> String {
    name.replace(' ', "_")
}

/// The path in the table of facts of what the engine has as `type.name`.
fn path_of(registered: &str) -> &str {
    let from_root = registered.strip_prefix("facts.").or_else(|| registered.strip_prefix("mapping facts."));
    from_root.unwrap_or(registered)
}

fn told(call: &Call) -> String {
    let get = if call.is_property() { "get " } else { "" };
    let on = call.on.map(|on| format!("{}: {}", call.object(), type_name(on)));
    let all: Vec<String> = on.into_iter().chain(call.parameters().into_iter().map(str::to_owned)).collect();
    if call.is_index() {
        // The language server knows no form for it, and would give up on the rest of the file.
        let key = call.parameters().join(", ");
        return format!("\n// {}[{key}] -> {}: {}\n", call.object(), call.gives(), call.doc);
    }
    format!("\n/// {}\nfn {get}{}({}) -> {};\n", call.doc, call.name(), all.join(", "), call.gives())
}

/// The definitions in the language of rhai: files by name.
#[must_use]
pub fn rhai() -> BTreeMap<String, String> {
    let (calls, facts) = engine::told();
    let shapes = shapes();
    let mut files = BTreeMap::from([(MAIN.to_owned(), "module static;\n".to_owned())]);
    for call in &calls {
        let module = call.is_of_module().then(|| call.object());
        let name = module.map_or_else(|| MAIN.to_owned(), |module| format!("{module}.d.rhai"));
        let file = files.entry(name).or_insert_with(|| format!("module {};\n", module.unwrap_or("static")));
        *file += &told(call);
    }
    let text = files.entry(MAIN.to_owned()).or_default();
    for registered in facts {
        let (on, name) = registered.rsplit_once('.').unwrap_or(("", registered));
        let object = if on.ends_with("facts") { "s" } else { on };
        let (doc, gives) = match shapes.iter().find(|shape| shape.path == path_of(registered)) {
            Some(shape) => (shape.told(), shape.rhai()),
            None if path_of(registered) == PLUGIN_SIGNALS => {
                ("What plugins say, by their id.".into(), "plugin_signals")
            }
            None => (format!("`s.{name}`"), name),
        };
        let _ = write!(text, "\n/// {doc}\nfn get {name}({object}: {}) -> {gives};\n", type_name(on));
    }
    files
}

/// JSON Schema (draft 2020-12) of `s`.
#[must_use]
pub fn facts_schema() -> Value {
    let mut members: Map<String, Value> = Map::new();
    for shape in shapes() {
        let Some((object, name)) = shape.path.split_once('.') else {
            members.insert(shape.path.to_owned(), shape.schema());
            continue;
        };
        let object = members
            .entry(object)
            .or_insert_with(|| json!({"type": "object", "additionalProperties": false, "properties": {}}));
        object["properties"][name] = shape.schema();
    }
    members["signals"]["properties"]["plugin"] = json!({"type": "object"});
    members.insert("claims".to_owned(), json!({"type": "object"}));
    json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Facts of a sign-in",
           "type": "object", "additionalProperties": false, "properties": members})
}

/// The facts that a case can set, by their paths: as they are, and `"unknown"` where they may be `()`.
pub(super) fn case_facts() -> Value {
    let Ok(tenant) = TenantId::parse(TenantId::DEFAULT) else { return Value::Null };
    let ordinary = cases::ordinary(&tenant);
    let can = |path: &str, text: &str| {
        let table: Result<toml::Table, _> = format!("x = {text}").parse();
        table.is_ok_and(|table| cases::set(&mut ordinary.clone(), path, &table["x"]).is_ok())
    };
    let mut all = Map::new();
    for shape in shapes() {
        let path = shape.path;
        let unknown = can(path, "\"unknown\"").then(|| json!({"const": "unknown"}));
        let word = can(path, "\"zzzz\"") || can(path, "\"10.1.2.3\"");
        let own = if !shape.words.is_empty() && !word {
            Some(json!({"enum": shape.words}))
        } else if word {
            Some(json!({"type": "string"}))
        } else if can(path, "1.5") {
            Some(json!({"type": "number"}))
        } else if can(path, "1") {
            Some(json!({"type": "integer"}))
        } else if can(path, "true") {
            Some(json!({"type": "boolean"}))
        } else if can(path, "[]") {
            Some(json!({"type": "array", "items": {"type": "string"}}))
        } else {
            None
        };
        let mut of = match (own, unknown) {
            (None, _) => continue,
            (Some(own), Some(unknown)) if own["type"] != "string" && own.get("enum").is_none() => {
                json!({"anyOf": [own, unknown]})
            }
            (Some(own), _) => own,
        };
        of["description"] = shape.told().into();
        all.insert(path.to_owned(), of);
    }
    Value::Object(all)
}

/// Writes all into a folder, and tells the files.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(folder: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let schema = serde_json::to_string_pretty(&facts_schema())? + "\n";
    let pretty =
        |(name, schema): (&str, Value)| Ok((name.to_owned(), serde_json::to_string_pretty(&schema)? + "\n"));
    let schemas = schemas::all().into_iter().map(pretty).collect::<io::Result<Vec<_>>>()?;
    let files = rhai().into_iter().chain([("facts.schema.json".to_owned(), schema)]).chain(schemas);
    let write = |(name, text): (String, String)| {
        let path = folder.join(name);
        std::fs::write(&path, text).map(|()| path)
    };
    files.map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::super::facts;
    use super::*;
    use crate::clock::UnixTime;
    use crate::mfa::{MfaMethod, Strength};
    use crate::signin::facts::{FactorFacts, LastSignIn};

    #[test]
    fn the_table_of_facts_and_the_engine_have_the_same_ones() {
        let (_, registered) = engine::told();
        for fact in PATHS {
            assert!(registered.iter().any(|path| path_of(path) == fact.name), "the engine lacks {}", fact.name);
        }
        for path in &registered {
            let is_object = registered.iter().any(|other| other.starts_with(&format!("{}.", path_of(path))));
            let is_fact = PATHS.iter().any(|fact| fact.name == path_of(path));
            assert!(is_object || is_fact, "the table of facts lacks {path}");
        }
    }

    #[test]
    fn every_call_of_the_engine_is_told() {
        let files = rhai();
        for call in engine::told().0 {
            let file = if call.is_of_module() { &format!("{}.d.rhai", call.object()) } else { MAIN };
            let form =
                if call.is_index() { format!("// {}[", call.object()) } else { format!(" {}(", call.name()) };
            assert!(files[file].contains(&form), "{}", call.signature);
            assert!(files[file].contains(call.doc), "{}", call.signature);
        }
    }

    #[test]
    fn nothing_is_registered_past_the_table_of_calls() {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/scripts");
        let ways = ["fn", "get", "set", "indexer", "raw", "custom", "static", "global", "type", "iterator"]
            .map(|what| format!("register_{what}"));
        let mut files = 0;
        for entry in std::fs::read_dir(scripts).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let found: Vec<&String> = ways.iter().filter(|way| text.contains(*way)).collect();
            if path.ends_with("calls.rs") {
                assert!(found.len() >= 5, "{found:?}");
            } else {
                assert!(
                    found.is_empty() && !text.contains(concat!(".set_", "native")),
                    "{}: {found:?}",
                    path.display()
                );
            }
            files += 1;
        }
        assert!(files > 10);
    }

    #[test]
    fn members_of_maps_are_those_that_scripts_get() {
        let last = LastSignIn {
            time: UnixTime::from_secs(1),
            country: Some("SE".into()),
            asn: Some(1),
            provider_id: "acme".into(),
            factors: Vec::new(),
            level: "low".into(),
        };
        let factor = FactorFacts {
            method: MfaMethod::Totp,
            strength: Strength::Strong,
            enrolled_age_days: 1,
            last_used_age_days: Some(1),
        };
        for (path, map) in
            [("history.last_sign_in", facts::last_sign_in(&last)), ("user.mfa_methods", facts::factor(&factor))]
        {
            let map = map.cast::<rhai::Map>();
            let kind_of = |value: &rhai::Dynamic| match value.type_name() {
                "i64" => "integer",
                "string" => "string",
                "array" => "array",
                other => panic!("{other}"),
            };
            let got: Vec<(&str, &str)> = map.iter().map(|(name, value)| (name.as_str(), kind_of(value))).collect();
            let (_, told) = MEMBERS.iter().find(|(told, _)| *told == path).unwrap();
            let told: Vec<(&str, &str)> = told.iter().map(|(n, k)| (*n, k.trim_end_matches('?'))).collect();
            assert_eq!(got, told, "{path}");
        }
    }

    #[test]
    fn what_can_only_be_certain_words_is_told_with_all_of_them() {
        let schema = facts_schema();
        let words = &schema["properties"]["history"]["properties"]["device"]["enum"];
        assert_eq!(*words, json!(["first", "match", "new", "partial", "unknown"]));
        assert!(schema["properties"]["request"]["properties"]["city"].get("enum").is_none());
        assert_eq!(schema["properties"]["request"]["properties"]["asn"]["type"], json!(["integer", "null"]));
    }
}
