//! JSON Schemas of the files beside the scripts, for editors that check TOML by one: `policy.toml`, `reasons.toml`,
//! and test files. What they refuse the server refuses as well; a few rules that span several keys are the
//! server's alone.

use serde_json::{Map, Value, json};

use super::definitions::case_facts;
use super::settings::RESERVED_REASONS;
use crate::mfa::MfaMethod;
use crate::mfa::method::{OWN_METHOD_BYTES, OwnMethod};
use crate::signin::likelihood::COUNTED_SIGN_INS;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// A reason's code, a claim's name.
const CODE: &str = "^[a-z0-9_]{1,48}$";
/// A tenant's identifier.
const TENANT: &str = "^[a-z0-9_-]{1,64}$";

/// Every schema by the name of its file.
pub(super) fn all() -> [(&'static str, Value); 3] {
    [("policy.schema.json", policy()), ("reasons.schema.json", reasons()), ("test.schema.json", test_file())]
}

fn object(title: &str, properties: Value, required: &[&str]) -> Value {
    json!({"title": title, "type": "object", "additionalProperties": false, "properties": properties,
           "required": required})
}

fn root(mut schema: Value) -> Value {
    schema["$schema"] = DRAFT.into();
    schema
}

fn integer(minimum: u64, maximum: u64, description: &str) -> Value {
    json!({"type": "integer", "minimum": minimum, "maximum": maximum, "description": description})
}

fn words(words: &[&str], description: &str) -> Value {
    json!({"enum": words, "description": description})
}

fn texts(description: &str) -> Value {
    json!({"type": "array", "items": {"type": "string"}, "description": description})
}

/// What a tenant's own table can have, and the file for all of them.
fn settings() -> Map<String, Value> {
    let score = |level: &str| integer(1, 100, &format!("Scores from here on are {level}."));
    let breaker = object(
        "When a fresh activation is taken back",
        json!({
            "errors": {"type": "integer", "minimum": 1, "description": "So many failures of its scripts"},
            "window_s": integer(1, 600, "within so many seconds."),
            "action": words(&["rollback"], "What happens then."),
        }),
        &["errors", "window_s", "action"],
    );
    let password = json!({
        "min_length": integer(8, 64, "Characters."),
        "max_age_days": integer(1, 3650, "Absent: a password never expires."),
        "warn_days": integer(0, 365, "password_warning is \"expiring\" in the last ones."),
        "grace_days": integer(0, 365, "\"expired_grace\" for this long, then \"expired\"."),
        "history": integer(0, 24, "The last ones that may not come again."),
        "expired": words(&["warn", "challenge", "deny"], "What an expired one means for a sign-in through a provider."),
    });
    let likelihood = json!({
        "mode": words(&["off", "auto", "on"], "auto: from min_sign_ins on."),
        "min_sign_ins": integer(100, COUNTED_SIGN_INS as u64, "Completed sign-ins of the tenant."),
        "min_history": integer(1, 50, "Weight of the user's own sign-ins; a low-level one is a half."),
    });
    let table = json!({
        "first_sign_in": words(&["low", "medium"], "What the very first sign-in of a user is at least."),
        "unenrolled": words(
            &["known_channel", "upstream_step_up", "deny"],
            "What a user without a usable factor gets when one is asked for.",
        ),
        "privileged_groups": texts("Members are privileged (s.user.privileged)."),
        "trusted_devices": {
            "type": "boolean",
            "description": "Whether a trusted device stands for the second factor that medium risk asks for.",
        },
        "thresholds": object(
            "Levels by score; medium is at most high",
            json!({"medium": score("medium"), "high": score("high")}),
            &["medium", "high"],
        ),
        "actions": object(
            "What a level means",
            json!({
                "medium": words(&["mfa", "strong_mfa", "deny"], "At medium risk."),
                "high": words(&["strong_mfa", "deny"], "At high risk."),
            }),
            &[],
        ),
        "failure": object(
            "What a script that fails means",
            json!({
                "on_error": words(
                    &["default_then_mfa", "mfa", "deny"],
                    "default_then_mfa: the shipped default decides, and a second factor is asked for on top.",
                ),
                "breaker": breaker,
            }),
            &[],
        ),
        "password": object("Local passwords", password, &[]),
        "likelihood": object("s.signals.likelihood", likelihood, &[]),
    });
    match table {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn policy() -> Value {
    let own = settings();
    let tenant = object("What is different for this tenant", Value::Object(own.clone()), &[]);
    let mut all = own;
    all.insert("contract".to_owned(), json!({"const": 1, "description": "The contract of the scripts."}));
    let gate = json!({"reason_coverage": integer(0, 100, "Percent of the reasons that some case must give.")});
    all.insert("gate".to_owned(), object("What stands before an activation", gate, &["reason_coverage"]));
    let tenants = json!({"type": "object", "propertyNames": {"pattern": TENANT}, "additionalProperties": tenant,
                         "description": "By the tenant's identifier."});
    all.insert("tenants".to_owned(), tenants);
    root(object("policy.toml", Value::Object(all), &["contract"]))
}

fn reasons() -> Value {
    let reason = object(
        "A reason",
        json!({
            "title": {"type": "string", "description": "For people, short."},
            "help": {"type": "string", "description": "For administrators."},
        }),
        &["title"],
    );
    root(json!({
        "title": "reasons.toml", "type": "object", "additionalProperties": reason,
        "propertyNames": {"pattern": CODE, "not": {"enum": RESERVED_REASONS}},
    }))
}

fn test_file() -> Value {
    let codes = |description: &str| json!({"type": "array", "items": {"type": "string", "pattern": CODE}, "description": description});
    let out: Map<String, Value> = ["kind", "subject", "email", "name", "username", "phone", "locale"]
        .into_iter()
        .map(|name| (name.to_owned(), json!({"type": "string"})))
        .chain(["email_verified", "phone_verified"].map(|name| (name.to_owned(), json!({"type": "boolean"}))))
        .chain([
            ("attributes".to_owned(), json!({"type": "object"})),
            ("groups".to_owned(), json!({"type": "array", "items": {"type": "string"}})),
        ])
        .collect();
    let score = json!({
        "description": "Exact, or from min to max.",
        "anyOf": [
            integer(0, 100, "Exact."),
            object(
                "From, to",
                json!({"min": integer(0, 100, "From."), "max": integer(0, 100, "To.")}),
                &["min", "max"],
            ),
        ],
    });
    let expect = json!({
        "level": words(&["low", "medium", "high"], "The level."),
        "action": words(
            &["allow", "mfa", "strong_mfa", "deny"],
            "What is asked of a user without MFA at the provider and with every factor.",
        ),
        "score": score,
        "reasons": codes("Reasons that must be given."),
        "not_reasons": codes("Reasons that must not be given."),
        "out": object("All that a mapping tells", Value::Object(out), &[]),
        "reject": {"type": "string", "pattern": CODE, "description": "The reason that a mapping refuses with."},
        "token": {"type": "object", "propertyNames": {"pattern": CODE},
                  "description": "All claims that fn token adds."},
        "audience": {"type": "string", "description": "The audience that fn token narrows to."},
    });
    let methods: Vec<&str> = MfaMethod::ALL.iter().map(|method| method.as_str()).collect();
    let case = json!({
        "name": {"type": "string", "description": "A sentence about behaviour."},
        "set": {
            "type": "object", "additionalProperties": false, "properties": case_facts(),
            "patternProperties": {
                "^claims\\.": {},
                "^signals\\.plugin\\.": {"anyOf": [{"type": "object"}, {"const": "unknown"}]},
            },
            "description": "What differs from an ordinary sign-in.",
        },
        "claims": {"type": "object", "description": "The claims of a mapping case."},
        "factor": {"anyOf": [{"enum": methods}, {"pattern": OwnMethod::PATTERN, "maxLength": OWN_METHOD_BYTES}],
                   "type": "string", "description": "The second factor that was passed, for fn token."},
        "audiences": texts("d.audiences, for fn token."),
        "expect": object("What must come of it", expect, &[]),
    });
    let cases = json!({"type": "array", "items": object("A case", case, &["name", "expect"])});
    root(object("Cases beside a script", json!({"case": cases}), &[]))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::settings::{AllSettings, KNOWN};
    use super::*;

    /// Where a value does not fit. The keywords that these schemas use; any other one fails.
    fn faults(schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let is = |t: &Value| t == kind || t == "number" && kind == "integer";
        let mut found = Vec::new();
        for (keyword, rule) in schema.as_object().unwrap() {
            let fits = match keyword.as_str() {
                "$schema" | "title" | "description" => true,
                "type" => rule.as_array().map_or_else(|| is(rule), |types| types.iter().any(is)),
                "enum" => rule.as_array().unwrap().contains(value),
                "const" => rule == value,
                "minimum" => value.as_f64().is_none_or(|n| n >= rule.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|n| n <= rule.as_f64().unwrap()),
                "pattern" => value.as_str().is_none_or(|text| matches(rule.as_str().unwrap(), text)),
                "maxLength" => {
                    value.as_str().is_none_or(|text| text.chars().count() as u64 <= rule.as_u64().unwrap())
                }
                "anyOf" => rule.as_array().unwrap().iter().any(|one| faults(one, value, at).is_empty()),
                "not" => !faults(rule, value, at).is_empty(),
                "required" => value.as_object().is_none_or(|map| {
                    rule.as_array().unwrap().iter().all(|n| map.contains_key(n.as_str().unwrap()))
                }),
                "items" => {
                    let items = value.as_array().into_iter().flatten();
                    found.extend(items.flat_map(|item| faults(rule, item, &format!("{at}[]"))));
                    true
                }
                "propertyNames" => {
                    let names = value.as_object().into_iter().flat_map(Map::keys);
                    found.extend(names.flat_map(|name| faults(rule, &json!(name), &format!("{at}.{name}"))));
                    true
                }
                "properties" | "additionalProperties" | "patternProperties" => true,
                other => panic!("{other} is not looked at"),
            };
            if !fits {
                found.push(format!("{at}: {keyword}"));
            }
        }
        for (name, member) in value.as_object().into_iter().flatten() {
            let own = schema.get("properties").and_then(|properties| properties.get(name));
            let patterns = schema.get("patternProperties").and_then(Value::as_object);
            let by_pattern = patterns.into_iter().flatten().find(|(pattern, _)| matches(pattern, name));
            match (own.or(by_pattern.map(|(_, rule)| rule)), schema.get("additionalProperties")) {
                (None, Some(Value::Bool(false))) => found.push(format!("{at}.{name}: is not known")),
                (Some(rule), _) | (None, Some(rule)) => found.extend(faults(rule, member, &format!("{at}.{name}"))),
                (None, None) => {}
            }
        }
        found
    }

    /// The patterns that there are.
    fn matches(pattern: &str, text: &str) -> bool {
        let of = |most: usize, more: &str| {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
            (1..=most).contains(&text.len()) && text.chars().all(fits)
        };
        match pattern {
            CODE => of(48, "_"),
            TENANT => of(64, "_-"),
            OwnMethod::PATTERN => matches!(MfaMethod::find(text), Some(MfaMethod::Own(_))),
            "^claims\\." => text.starts_with("claims."),
            "^signals\\.plugin\\." => text.starts_with("signals.plugin."),
            other => panic!("{other}"),
        }
    }

    fn judge(schema: &Value, toml: &str) -> Vec<String> {
        let table: toml::Table = toml.parse().unwrap_or_else(|e| panic!("{toml}: {e}"));
        faults(schema, &serde_json::to_value(table).unwrap(), "")
    }

    fn files(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, ending, found);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_shipped_file_and_example_fits() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        for (ending, schema, least) in
            [("policy.toml", policy(), 1), ("reasons.toml", reasons(), 4), (".test.toml", test_file(), 16)]
        {
            let mut found = Vec::new();
            files(&root, ending, &mut found);
            assert!(found.len() >= least, "{ending}: {found:?}");
            for path in found {
                let faults = judge(&schema, &std::fs::read_to_string(&path).unwrap());
                assert!(faults.is_empty(), "{}: {faults:?}", path.display());
            }
        }
    }

    /// Documents with one value each of everything that a schema of a table lets through: every word, both bounds.
    fn documents(schema: &Value) -> Vec<Value> {
        if let Some(words) = schema.get("enum") {
            return words.as_array().unwrap().clone();
        }
        match schema["type"].as_str() {
            Some("integer") => {
                [schema.get("minimum"), schema.get("maximum")].into_iter().flatten().cloned().collect()
            }
            Some("boolean") => vec![json!(true), json!(false)],
            Some("array") => vec![json!([]), json!(["staff"])],
            _ => {
                let properties = schema["properties"].as_object().unwrap();
                let whole: Map<_, _> =
                    properties.iter().map(|(n, s)| (n.clone(), documents(s)[0].clone())).collect();
                let mut all = vec![Value::Object(whole.clone())];
                for (name, of) in properties {
                    all.extend(documents(of).into_iter().map(|value| {
                        let mut one = whole.clone();
                        one.insert(name.clone(), value);
                        Value::Object(one)
                    }));
                }
                all
            }
        }
    }

    #[test]
    fn the_server_takes_what_the_schema_takes_and_knows_the_same_keys() {
        let schema = policy();
        let mut known = KNOWN.to_vec();
        known.sort_unstable();
        let told: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(told, known);
        let mut tried = 0;
        for (name, of) in settings() {
            for value in documents(&of) {
                if name == "thresholds" && value["medium"].as_u64() > value["high"].as_u64() {
                    continue;
                }
                let one = Value::Object(Map::from_iter([(name.clone(), value)]));
                for document in [json!({"contract": 1, "tenants": {"acme": one}}), {
                    let mut top = one.clone();
                    top["contract"] = 1.into();
                    top
                }] {
                    assert!(faults(&schema, &document, "").is_empty(), "{document}");
                    let text = toml::to_string(&document).unwrap();
                    assert!(AllSettings::parse(&text).is_ok(), "{text}");
                    tried += 1;
                }
            }
        }
        assert!(tried >= 100, "{tried}");
    }

    #[test]
    fn what_the_server_refuses_the_schema_refuses() {
        let parses = |text: &str| AllSettings::parse(text).is_ok();
        for wrong in [
            "",
            "contract = 2",
            "contract = 1\nunknown = 1",
            "contract = 1\nfirst_sign_in = \"high\"",
            "contract = 1\nprivileged_groups = \"staff\"",
            "contract = 1\n[thresholds]\nmedium = 0\nhigh = 60",
            "contract = 1\n[thresholds]\nmedium = 10\nhigh = 101",
            "contract = 1\n[thresholds]\nmedium = 10",
            "contract = 1\n[actions]\nhigh = \"mfa\"",
            "contract = 1\n[actions]\nlow = \"mfa\"",
            "contract = 1\n[failure]\non_error = \"allow\"",
            "contract = 1\n[failure]\nbreaker = { errors = 0, window_s = 60, action = \"rollback\" }",
            "contract = 1\n[failure]\nbreaker = { errors = 1, window_s = 601, action = \"rollback\" }",
            "contract = 1\n[failure]\nbreaker = { errors = 1 }",
            "contract = 1\n[gate]\nreason_coverage = 101",
            "contract = 1\n[gate]\n",
            "contract = 1\n[password]\nmin_length = 7",
            "contract = 1\n[password]\nhistory = 25",
            "contract = 1\n[likelihood]\nmin_sign_ins = 99",
            "contract = 1\n[likelihood]\nmode = \"maybe\"",
            "contract = 1\n[tenants.acme]\ncontract = 1",
            "contract = 1\n[tenants.acme.gate]\nreason_coverage = 1",
            "contract = 1\n[tenants.\"No Tenant\"]\nunenrolled = \"deny\"",
        ] {
            assert!(!parses(wrong), "the server takes {wrong}");
            assert!(!judge(&policy(), wrong).is_empty(), "the schema takes {wrong}");
        }
        for wrong in
            ["[New]\ntitle = \"x\"", "[new]\nhelp = \"x\"", "[new]\ntitle = 1", "[policy_error]\ntitle = \"x\""]
        {
            assert!(super::super::settings::parse_reasons(wrong).is_err(), "{wrong}");
            assert!(!judge(&reasons(), wrong).is_empty(), "{wrong}");
        }
        for wrong in [
            "[[case]]\nname = \"x\"",
            "[[case]]\nexpect = {}",
            "[[case]]\nname = \"x\"\nexpect = { score = \"1\" }",
            "[[case]]\nname = \"x\"\nexpect = { scores = 1 }",
            "[[case]]\nname = \"x\"\nexpect = {}\nset = { \"history.devise\" = \"new\" }",
            "[[case]]\nname = \"x\"\nexpect = {}\nset = { \"history.device\" = \"newish\" }",
            "[[case]]\nname = \"x\"\nexpect = {}\nset = { \"user.privileged\" = 1 }",
            "[[case]]\nname = \"x\"\nexpect = {}\nset = { \"user.privileged\" = \"unknown\" }",
            "[[case]]\nname = \"x\"\nexpect = {}\nset = { \"signals.plugin.x\" = 1 }",
            "[[case]]\nname = \"x\"\nexpect = {}\nfactor = \"smoke\"",
            "[[case]]\nname = \"x\"\nexpect = {}\nfactor = \"acme.\"",
        ] {
            assert!(!judge(&test_file(), wrong).is_empty(), "{wrong}");
        }
    }

    #[test]
    fn a_factor_may_be_a_plugins_own() {
        let own = "[[case]]\nname = \"x\"\nexpect = {}\nfactor = \"acme.voice\"";
        assert_eq!(judge(&test_file(), own), Vec::<String>::new());
    }

    #[test]
    fn every_fact_that_a_case_can_set_is_in_the_schema_with_the_values_of_the_generated_ones() {
        use crate::scripts::corpus;
        let schema = test_file();
        let set = &schema["properties"]["case"]["items"]["properties"]["set"];
        let tenant = crate::ids::TenantId::parse("acme").unwrap();
        for sample in corpus::samples(&tenant) {
            let value = serde_json::to_value(&sample.set).unwrap();
            assert!(faults(set, &value, "").is_empty(), "{value}: {:?}", faults(set, &value, ""));
        }
        // And nothing else: what the schema names can be set to something.
        for (path, of) in set["properties"].as_object().unwrap() {
            let tries = ["\"unknown\"", "true", "1", "1.5", "[]", "\"SE\"", "\"10.1.2.3\"", "\"acme\""];
            let words = of.get("enum").and_then(Value::as_array).into_iter().flatten().map(ToString::to_string);
            let can = tries.iter().map(|&text| text.to_owned()).chain(words).any(|text| {
                let table: toml::Table = format!("x = {text}").parse().unwrap();
                super::super::case_facts::set(&mut super::super::case_facts::ordinary(&tenant), path, &table["x"])
                    .is_ok()
            });
            assert!(can, "{path}");
        }
    }
}
