//! Lock files as operators write them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::lock::*;
use super::view::ClaimGrant;

const HEAD: &str = "[[plugin]]\nid = \"a.b\"\nversion = \"1\"\nfile = \"a.so\"\n";

fn with(rest: &str) -> Result<Vec<Entry>, String> {
    let sha = "0".repeat(64);
    let text = format!("{HEAD}sha256 = \"{sha}\"\n{rest}");
    parse(Path::new("dir/plugins.lock"), &text).map_err(|e| e.to_string())
}

#[test]
fn a_short_entry_gets_careful_defaults() {
    let entry = with("hooks = [\"signal.signals\"]").unwrap().remove(0);
    assert_eq!(entry.file, Path::new("dir/a.so"));
    assert_eq!(entry.config_json, "{}");
    assert_eq!((entry.deadline, entry.max_queued), (Duration::from_millis(250), 64));
    assert!(entry.grants.facts.is_empty());
    assert_eq!(entry.grants.claims, ClaimGrant::Named(BTreeSet::new()));
}

#[test]
fn what_is_wrong_is_named_with_file_and_line() {
    let signals = "hooks = [\"signal.signals\"]\n";
    let enrich = "hooks = [\"provider.enrich\"]\n";
    for (rest, line, part) in [
        (format!("{signals}hokks = 1"), 7, "hokks"),
        (format!("{signals}isolation = \"jail\""), 7, "\"in_process\""),
        (format!("{signals}memory_mib = 64"), 7, "strike it"),
        (format!("{signals}isolation = \"process\"\nmemory_mib = 1"), 8, "from 16"),
        (format!("{signals}method = \"email\""), 7, "strike it"),
        ("hooks = [\"mfa.begin\"]".to_owned(), 2, "need method"),
        ("hooks = [\"mfa.begin\"]\nmethod = \"totp\"".to_owned(), 7, "\"sms\", \"push\""),
        ("hooks = [\"mfa.begin\"]\nmethod = \"push\"".to_owned(), 7, "needs the hook mfa.verify too"),
        ("hooks = [\"mfa.begin\"]\nmethod = \"voice\"".to_owned(), 7, "with a dot in it"),
        (format!("hooks = [\"mfa.begin\"]\nmethod = \"acme.{}\"", "v".repeat(28)), 7, "with a dot in it"),
        ("hooks = [\"mfa.begin\"]\nmethod = \"email\"\nstrength = \"strong\"".to_owned(), 8, "strike it"),
        ("hooks = [\"mfa.begin\"]\nmethod = \"sms\"\naddress = \"email\"".to_owned(), 8, "strike it"),
        (
            "hooks = [\"mfa.begin\"]\nmethod = \"a.b\"\nstrength = \"phishing_resistant\"".to_owned(),
            8,
            "\"weak\" or \"strong\"",
        ),
        ("hooks = [\"mfa.begin\"]\nmethod = \"a.b\"\naddress = \"pager\"".to_owned(), 8, "\"phone_number\""),
        ("hooks = [\"mfa.begin\"]\nmethod = \"a.b\"\ntenants = []".to_owned(), 8, "tenants is empty"),
        ("hooks = [\"mfa.begin\"]\nmethod = \"a.b\"\ntenants = [\"A\"]".to_owned(), 8, "a tenant id is"),
        (format!("{signals}tenants = [\"acme\"]"), 7, "strike it"),
        (format!("{signals}strength = \"weak\""), 7, "strike it"),
        (format!("{signals}grants = {{ events = [\"sign_in\"] }}"), 7, "is for the hook event.observe"),
        ("hooks = [\"event.observe\"]\ngrants = { events = [] }".to_owned(), 7, "events is empty"),
        (
            "hooks = [\"event.observe\"]\ngrants = { events = [\"logout\"] }".to_owned(),
            7,
            "sign_in, security_event",
        ),
        ("hooks = [\"mfa.verify\"]".to_owned(), 6, "name both"),
        ("hooks = [\"provider.verify\"]".to_owned(), 2, "needs bind"),
        (format!("{signals}grants = {{ http = [\"https://a.example\"] }}"), 7, "host name"),
        (format!("{signals}grants = {{ http = [\"*.example\"] }}"), 7, "host name"),
        (format!("{signals}grants = {{ networks = [\"10.0.0.0\"] }}"), 7, "10.0.0.0/8"),
        (format!("{signals}grants = {{ secrets = [\"../key\"] }}"), 7, "secret"),
        (format!("{signals}grants = {{ kv_kib = 99999 }}"), 7, "from 1 to 16384"),
        ("hooks = [\"event.forget\"]".to_owned(), 6, "event.forget"),
        ("hooks = []".to_owned(), 6, "hooks is empty"),
        (format!("{signals}bind = [\"google\"]"), 7, "strike it"),
        (format!("{signals}deadline_ms = 0"), 7, "from 1 to 30000"),
        (format!("{signals}max_in_flight = 65"), 7, "from 1 to 64"),
        (format!("{signals}grants = {{ facts = [\"request.cookies\"] }}"), 7, "request.cookies"),
        (format!("{signals}grants = {{ cookies = [] }}"), 7, "cookies"),
        (format!("{signals}config = {{ x = nan }}"), 7, "JSON cannot say"),
        (format!("{enrich}grants = {{ claims = [] }}"), 2, "needs bind"),
        (format!("{enrich}bind = [\"/x\"]\ngrants = {{ claims = [] }}"), 7, "bind names a provider"),
        (format!("{enrich}bind = [\"*\"]"), 1, "grants.claims"),
        (format!("{signals}config = {{"), 7, ""),
    ] {
        let error = with(&rest).err().unwrap_or_else(|| panic!("{rest} was accepted"));
        assert!(error.starts_with(&format!("dir/plugins.lock:{line}: ")), "{rest}: {error}");
        assert!(error.contains(part), "{rest}: {error}");
    }
}

#[test]
fn an_id_a_hash_and_a_second_entry_are_checked() {
    let hooks = "hooks = [\"signal.signals\"]";
    let sha = "0".repeat(64);
    let parse = |text: String| parse(Path::new("p"), &text).err().map(|e| e.to_string()).unwrap_or_default();
    let upper = format!("{HEAD}sha256 = \"{}\"\n{hooks}", "A".repeat(64));
    assert!(parse(upper).contains("p:5: sha256 is not 64"));
    for id in ["", "A", "1a", "a/b", "a b", &"a".repeat(65)] {
        let text = HEAD.replace("a.b", id);
        assert!(parse(format!("{text}sha256 = \"{sha}\"\n{hooks}")).starts_with("p:2: id "), "{id}");
    }
    let one = format!("{HEAD}sha256 = \"{sha}\"\n{hooks}\n");
    assert_eq!(parse(format!("{one}{one}")), "p:8: plugin a.b stands here twice; strike one");
}

#[test]
fn config_reaches_the_plugin_as_json() {
    let rest = "hooks = [\"signal.signals\"]\nconfig = { a = [1, 2.5, true], t = 1979-05-27, s = { x = \"y\" } }";
    let json: Value = serde_json::from_str(&with(rest).unwrap()[0].config_json).unwrap();
    assert_eq!(json, serde_json::json!({ "a": [1, 2.5, true], "t": "1979-05-27", "s": { "x": "y" } }));
}
