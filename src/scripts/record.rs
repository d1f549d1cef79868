//! A test case from a recorded sign-in: what differs from an ordinary one, and what came of it.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::case_facts;
use crate::policy::explain::StoredDecision;
use crate::signin::fact_paths::{PATHS, WITHHELD, value_of};

/// The case as it stands in `risk/<tenant>.test.toml`. Facts of which only a stand-in is kept are left
/// as in an ordinary sign-in, and so are those that a case cannot set.
#[must_use]
pub fn case_of(decision: &StoredDecision) -> String {
    let ordinary = case_facts::ordinary(&decision.tenant);
    let mut set = Table::new();
    let claims = decision.facts.claims.keys().map(|name| format!("claims.{name}"));
    let paths = PATHS.iter().map(|path| path.name.to_owned()).filter(|path| !WITHHELD.contains(&path.as_str()));
    for path in paths.chain(claims) {
        let (here, there) = (value_of(&decision.facts, &path), value_of(&ordinary, &path));
        if here == there {
            continue;
        }
        let value = match here {
            Json::Null => Value::String("unknown".to_owned()),
            known => match Value::try_from(known) {
                Ok(value) => value,
                Err(_) => continue,
            },
        };
        if case_facts::set(&mut ordinary.clone(), &path, &value).is_ok() {
            set.insert(path, value);
        }
    }
    let trace = &decision.trace;
    let mut expect = Table::new();
    expect.insert("level".to_owned(), trace.level.clone().into());
    expect.insert("score".to_owned(), trace.score.into());
    let mut case = Table::new();
    case.insert("name".to_owned(), format!("recorded {}", decision.id).into());
    case.insert("set".to_owned(), Value::Table(set));
    case.insert("expect".to_owned(), Value::Table(expect));
    let file = Table::from_iter([("case".to_owned(), Value::Array(vec![Value::Table(case)]))]);
    toml::to_string(&file).unwrap_or_default()
}
