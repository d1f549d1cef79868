//! Examples of the operations on policies for the document, by operation id.

use serde_json::{Value, json};

use super::admin_examples::message;
use super::spec::EXAMPLE_TIME;

const POLICY: &str = "pol_3f9a04b2c8d1e657";
const OLDER: &str = "pol_71cc5e0d9a2b4f83";
const SIGN_IN: &str = "evt_034xz6kz6yf8g9h0jkmnpqrstv";
const USER: &str = "usr_034xz6kz0yfp8g3v5t1c9qk7re";
const ADMIN_KEY: &str = "csk_034xz6kz5xe7f8g9h0jkmnpqrs";

/// The body of a request.
pub(super) fn request(operation: &str) -> Option<Value> {
    Some(match operation {
        "draftPolicy" => json!({
            "note": "hosting networks need a factor",
            "files": {
                "policy.toml": "contract = 1\n",
                "reasons.toml": "[hosting_network]\ntitle = \"Hosting network\"\n",
                "mapping/default.rhai": "fn map(s, out) { out.name(s.claims.str(\"name\")); }\n",
                "risk/_default.rhai":
                    "fn assess(s, risk) {\n    if s.request.network_kind == \"hosting\" { risk.add(30, \"hosting_network\"); }\n}\n",
                "risk/_default.test.toml":
                    "[[case]]\nname = \"hosting\"\nset = { \"request.network_kind\" = \"hosting\" }\nexpect = { score = 30 }\n",
            },
        }),
        "simulatePolicy" => json!({"set": {"request.network_kind": "hosting", "history.known_country": "unknown"}}),
        "replayPolicy" => json!({"since_s": 604_800}),
        "activatePolicy" => json!({"note": "hosting networks need a factor"}),
        "rollBackPolicy" => json!({"note": "too many challenges"}),
        "shadowPolicies" => json!({"bundles": [POLICY]}),
        "labelSignIn" | "labelMySignIn" => json!({"verdict": "bad"}),
        _ => return None,
    })
}

/// Success: name, summary, value.
pub(super) fn success(operation: &str) -> Option<(&'static str, &'static str, Value)> {
    Some(match operation {
        "listPolicies" => {
            let mut bundle = bundle();
            bundle["state"] = "active".into();
            ("bundles", "One bundle", json!({"items": [bundle]}))
        }
        "draftPolicy" => ("draft", "The draft", bundle()),
        "policyStatus" => (
            "status",
            "One server, one candidate",
            json!({
                "active": [activation()],
                "folder": OLDER,
                "nodes": [{"node": "nod_5d1c8f20a96b3e47", "seq": 12, "ready": 12, "seen_at": EXAMPLE_TIME}],
                "switch": {"seq": 12, "at": EXAMPLE_TIME, "laggards": []},
                "shadows": [{"bundle": OLDER, "since": EXAMPLE_TIME, "evaluated": 41_208, "differed": 783,
                             "script_errors": 0}],
            }),
        ),
        "listPolicyActivations" => ("activations", "One activation", json!({"items": [activation()]})),
        "activatePolicy" | "rollBackPolicy" => ("activation", "It is active", activation()),
        "checkPolicy" => {
            let script = json!({
                "file": "risk/_default.rhai", "ran": 408, "faults": [], "never": [], "always": [],
                "denies_everything": false, "most_operations": 96, "longest_us": 61,
            });
            (
                "passed",
                "Nothing was found",
                json!({"passed": true, "report": {"bundle": POLICY, "scripts": [script]}}),
            )
        }
        "testPolicy" => {
            let report = json!({"cases": 1, "failed": [], "reason_coverage_percent": 100, "wanted_coverage_percent": 60,
                       "lines": {"percent": 75, "files": [{"file": "risk/default.rhai", "lines": 4, "never_run": [9], "percent": 75}]}});
            ("passed", "All cases pass", json!({"passed": true, "report": report}))
        }
        "simulatePolicy" => ("explained", "What it decides", json!({"passed": true, "report": explanation()})),
        "replayPolicy" => {
            let report = json!({
                "active": OLDER, "candidate": POLICY, "sign_ins": 41_208,
                "before": {"allow": 40_709, "mfa": 495, "deny": 4}, "after": {"allow": 39_926, "mfa": 1_278, "deny": 4},
                "newly_asked": {"sign_ins": 783, "users": 410, "users_more_than_5_times": 12, "of_users_who_disputed": 9},
                "causes": [{"reason": "hosting_network", "sign_ins": 604}],
            });
            ("report", "A part of a report", json!({"passed": true, "report": report}))
        }
        "diffPolicy" => {
            let diff =
                format!("--- {OLDER}/risk/_default.rhai\n+++ {POLICY}/risk/_default.rhai\n@@ -1,3 +1,3 @@\n");
            ("differs", "One file differs", json!({"passed": false, "report": {"from": OLDER, "diff": diff}}))
        }
        "shadowPolicies" => message("the candidates are set"),
        "explainSignIn" => {
            let text =
                "evt_… at 2026-01-15T10:30:00Z: usr_… of tenant default was asked for a second factor; score 30";
            ("explained", "One reason", json!({"text": text, "explanation": explanation()}))
        }
        "labelSignIn" => message("the sign-in is labelled"),
        "labelMySignIn" => message("thank you, it is kept"),
        "listMySignIns" => {
            let one = json!({"id": SIGN_IN, "at": EXAMPLE_TIME, "provider": "google", "end": "signed_in", "country": "SE"});
            ("sign_ins", "One sign-in", json!({"items": [one]}))
        }
        _ => return None,
    })
}

fn bundle() -> Value {
    json!({"id": POLICY, "tenant": "default", "created_at": EXAMPLE_TIME, "created_by": ADMIN_KEY, "signed": false,
           "note": "hosting networks need a factor"})
}

fn activation() -> Value {
    json!({"seq": 12, "tenant": "default", "bundle": POLICY, "previous": OLDER, "goes_back": false, "actor": ADMIN_KEY,
           "note": "hosting networks need a factor", "at": EXAMPLE_TIME})
}

fn explanation() -> Value {
    json!({
        "id": SIGN_IN, "tenant": "default", "at": EXAMPLE_TIME, "user_id": USER, "provider": "google", "bundle": POLICY,
        "file": "risk/_default.rhai", "contract": 1, "score": 30, "level": "medium", "action": "mfa", "ops": 41, "us": 18,
        "steps": [{"code": "hosting_network", "points": 30, "line": 2, "calls": ["add 30"],
                   "because": {"request.network_kind": "hosting"}}],
        "core": ["threshold medium >= 30", "a second factor is asked for: totp"], "tags": [], "notes": [], "shadow": [],
        "failure": null,
    })
}
