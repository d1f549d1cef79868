//! `policy defs`: what scripts can read and call, told to an editor.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use countersign::signin::fact_paths::PATHS;
use serde_json::{Value, json};
use tempfile::TempDir;

fn run(arguments: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_countersign")).args(arguments).arg("--dir").arg(dir).output().unwrap()
}

fn definitions(dir: &Path) -> (String, String, Value) {
    let output = run(&["policy", "defs"], dir);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told.lines().count(), 6, "{told}");
    assert!(told.lines().all(|path| Path::new(path).is_file()), "{told}");
    let read = |name: &str| std::fs::read_to_string(dir.join("definitions").join(name)).unwrap();
    let schema = serde_json::from_str(&read("facts.schema.json")).unwrap();
    (read("countersign.d.rhai"), read("lists.d.rhai"), schema)
}

#[test]
fn every_fact_stands_in_the_definitions_and_in_the_schema() {
    let dir = TempDir::new().unwrap();
    let (text, _, schema) = definitions(dir.path());
    for fact in PATHS {
        let (object, name) = fact.name.rsplit_once('.').map_or(("s", fact.name), |(object, name)| (object, name));
        assert!(text.contains(&format!("fn get {name}({object}: ")), "{}", fact.name);
        let at = format!("/properties/{}", fact.name.replace('.', "/properties/"));
        assert!(schema.pointer(&at).is_some(), "{}", fact.name);
    }
    assert!(text.contains("fn get history(s: facts) -> history;"), "{text}");
    assert!(text.contains("fn get likelihood_points(signals: signals) -> ?;"), "{text}");
    assert!(text.contains("`unknown`") || text.contains(": first, match, new, partial, unknown"), "{text}");
}

#[test]
fn facts_that_are_maps_are_told_with_their_members() {
    let dir = TempDir::new().unwrap();
    let (text, _, schema) = definitions(dir.path());
    let last = &schema["properties"]["history"]["properties"]["last_sign_in"];
    assert_eq!(last["type"], json!(["object", "null"]));
    assert_eq!(last["properties"]["country"]["type"], json!(["string", "null"]));
    let factor = &schema["properties"]["user"]["properties"]["mfa_methods"]["items"]["properties"];
    assert_eq!(factor["enrolled_age_days"]["type"], json!("integer"));
    for member in ["time_unix_s", "country", "asn", "provider_id", "factors", "level"] {
        assert!(last["properties"].get(member).is_some(), "{member}");
        assert!(text.lines().any(|line| line.contains("last_sign_in`") && line.contains(member)), "{member}");
    }
}

#[test]
fn every_call_that_the_guide_names_stands_in_the_definitions() {
    let dir = TempDir::new().unwrap();
    let (text, lists, _) = definitions(dir.path());
    let guide = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/README.md")).unwrap();
    let mut named = BTreeSet::new();
    for object in ["risk", "out", "token"] {
        for (_, rest) in guide.match_indices(&format!("{object}.")).map(|(at, hit)| (at, &guide[at + hit.len()..]))
        {
            if let Some((name, _)) =
                rest.split_once('(').filter(|(n, _)| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
            {
                named.insert((object, name));
            }
        }
    }
    assert!(named.len() > 20, "{named:?}");
    for (object, name) in named {
        assert!(text.contains(&format!("fn {name}({object}: {object}")), "{object}.{name}");
    }
    for name in ["has", "str", "bool", "int", "list", "raw", "path"] {
        assert!(text.contains(&format!("fn {name}(claims: claims, ")), "{name}");
    }
    for name in ["level", "score", "reasons", "factors_used", "audiences"] {
        assert!(text.contains(&format!("fn get {name}(d: decision)")), "{name}");
    }
    assert!(lists.starts_with("module lists;\n") && lists.contains("fn has(name: String, value: ?) -> bool;"));
}

#[test]
fn definitions_in_a_policies_folder_are_no_part_of_its_policy() {
    let dir = TempDir::new().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    for folder in ["risk", "mapping", "lib"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let files = [
        "policy.toml",
        "reasons.toml",
        "risk/_default.rhai",
        "mapping/default.rhai",
        "lib/names.rhai",
        "lib/groups.rhai",
    ];
    for name in files {
        std::fs::copy(shipped.join(name), dir.path().join(name)).unwrap();
    }
    definitions(dir.path());
    let after = run(&["policy", "check"], dir.path());
    assert_eq!(after.status.code(), Some(0), "{}", String::from_utf8_lossy(&after.stdout));
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = run(&["policy", "defs"], &file);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("file"));
}

#[test]
fn the_schemas_of_the_files_stand_where_the_page_and_the_shipped_settings_say() {
    let dir = TempDir::new().unwrap();
    definitions(dir.path());
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let page = std::fs::read_to_string(policies.join("README.md")).unwrap();
    for name in ["policy", "reasons", "test"] {
        let file = format!("{name}.schema.json");
        assert!(page.contains(&file), "{file}");
        let text = std::fs::read_to_string(dir.path().join("definitions").join(&file)).unwrap();
        let schema: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    }
    // As taplo, and what is built on it, finds them.
    let taplo = std::fs::read_to_string(policies.join(".taplo.toml")).unwrap();
    let table: toml::Table = taplo.parse().unwrap();
    let rules = table["rule"].as_array().unwrap();
    let named: Vec<&str> = rules.iter().map(|rule| rule["schema"]["path"].as_str().unwrap()).collect();
    let expected = ["policy", "reasons", "test"].map(|name| format!("definitions/{name}.schema.json"));
    assert_eq!(named, expected);
}
