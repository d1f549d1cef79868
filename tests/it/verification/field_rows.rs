//! Advisories and wishes of the field beyond the reading of ID tokens: exchange, linking, second factors, policies,
//! plugins.

use std::time::Duration;

use serde_json::{Value, json};

use crate::admin::Role;
use crate::mfa::{challenge, code, enrolled, verify};
use crate::oauth;
use crate::support::issuer::TokenBuilder;
use crate::support::plugins::Bench;
use crate::support::service::{Answer, JsonBody, Service, Setup};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

fn verified(token: TokenBuilder) -> TokenBuilder {
    token.claim("email", "ada@example.com").claim("email_verified", true)
}

async fn exchange(service: &Service, token: &str, more: &[(&str, &str)]) -> Answer {
    let plain = [
        ("client_id", "app"),
        ("grant_type", EXCHANGE),
        ("subject_token", token),
        ("subject_token_type", ID_TOKEN),
    ];
    oauth::form(service, "/oauth/token", &[&plain[..], more].concat()).await
}

#[tokio::test]
async fn dex_4397_keycloak_51004_the_exchange_checks_the_audience_of_its_subject_token() {
    let service = Service::start_with(oauth::setup()).await;
    let foreign = service.issuer.token().claim("aud", "another-app").sign();
    for more in [&[("provider", "acme")][..], &[("provider", "acme"), ("audience", "another-app")]] {
        let refused = exchange(&service, &foreign, more).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(refused.body["access_token"].is_null());
    }
    let refused = exchange(&service, &foreign, &[("provider", "acme")]).await;
    assert_eq!(refused.expect(400, "invalid_request").body["reason"], "id_token_audience_mismatch");
    // And without a provider's name no audience is taken for one of ours.
    let refused = exchange(&service, &foreign, &[]).await;
    assert_eq!(refused.expect(400, "invalid_request").body["reason"], "no_provider_fits");
    assert_eq!(exchange(&service, &service.issuer.token().sign(), &[]).await.status, 200);
}

/// The other path that takes an ID token: linking while signed in.
#[tokio::test]
async fn keycloak_51000_linking_checks_the_audience_of_its_token_too() {
    let service = Service::start().await;
    let access = service.sign_in(&service.issuer.token().sign()).await.signed_in()["access_token"].clone();
    let foreign = service.issuer.token().subject("second").claim("aud", "another-app").sign();
    let body = json!({"id_token": foreign, "provider": "acme"});
    let refused = service.post_with("/auth/me/identities", access.as_str().unwrap(), body).await;
    refused.expect(401, "id_token_audience_mismatch");
}

/// What administrators find of sign-ins whose provider gave somebody's address to another subject.
async fn noted(service: &Service, viewer: &str) -> Vec<Value> {
    let found = service.get_with("/admin/audit?action=user.subject_changed", viewer).await;
    assert_eq!(found.status, 200, "{}", found.text);
    found.body["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn google_domain_reuse_leaves_an_event_that_an_administrator_finds() {
    for linking in ["never", "verified_email", "confirm"] {
        let service = Service::start_with(Setup::provider(&format!("linking = \"{linking}\""))).await;
        let viewer = service.admin_key(Role::Viewer, Some("default")).await;
        let of =
            |subject: &str| verified(service.issuer.token().subject(subject)).claim("hd", "example.com").sign();
        let owner = service.sign_in(&of("former-employee")).await.signed_in()["user_id"].clone();
        assert!(noted(&service, &viewer).await.is_empty());
        service.sign_in(&of("new-owner")).await.expect(409, "account_exists");

        let events = noted(&service, &viewer).await;
        assert_eq!(events.len(), 1, "linking = {linking}: {events:?}");
        assert_eq!((&events[0]["target"], &events[0]["actor"]), (&owner, &json!("system")));
        assert_eq!(events[0]["difference"]["provider"]["after"], "acme");
        let text = json!(events).to_string();
        assert!(!text.contains("ada@example.com") && !text.contains("new-owner"), "{text}");
        // It leads to the record of the refused sign-in.
        let sign_in = events[0]["difference"]["sign_in"]["after"].as_str().unwrap().to_owned();
        let record = service.get_with(&format!("/admin/sign-ins/{sign_in}"), &viewer).await;
        assert_eq!(record.status, 200, "{}", record.text);

        // Once a day: nobody fills the log with tokens of their own.
        for _ in 0..3 {
            service.sign_in(&of("new-owner")).await.expect(409, "account_exists");
        }
        assert_eq!(noted(&service, &viewer).await.len(), 1);
        service.clock.advance(Duration::from_secs(86_401));
        service.sign_in(&of("new-owner")).await.expect(409, "account_exists");
        assert_eq!(noted(&service, &viewer).await.len(), 2);
        // Another tenant's administrator sees nothing of it.
        let other = service.admin_key(Role::Viewer, Some("other")).await;
        assert!(noted(&service, &other).await.is_empty());
    }
}

/// What anybody can write into a token without the provider's word is no event.
#[tokio::test]
async fn an_unverified_address_under_another_subject_is_no_event() {
    let service = Service::start().await;
    let viewer = service.admin_key(Role::Viewer, Some("default")).await;
    service.sign_in(&verified(service.issuer.token()).sign()).await.signed_in();
    let claimed = verified(service.issuer.token().subject("other")).claim("email_verified", false);
    service.sign_in(&claimed.sign()).await.expect(409, "account_exists");
    assert!(noted(&service, &viewer).await.is_empty());
}

#[tokio::test]
async fn cve_2026_25227_scripts_are_tried_only_by_those_who_may_write_them() {
    let service = Service::start().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let viewer = service.admin_key(Role::Viewer, Some("default")).await;
    let script = "fn assess(s, risk) { risk.add(\"new_country\", 7); }";
    let draft = json!({"files": {"risk/_default.rhai": script}});
    service.post_with("/admin/policies", &viewer, draft).await.expect(403, "admin_role_insufficient");
    for what in ["check", "test", "simulate", "replay"] {
        let path = format!("/admin/policies/pol_0000000000000000/{what}");
        let tried = service.post_with(&path, &viewer, json!({"set": {}, "since_s": 1})).await;
        tried.expect(403, "admin_role_insufficient");
        let tried = service.post_with(&path, &editor, json!({"set": {}, "since_s": 1})).await;
        assert_ne!(tried.status, 403, "{}", tried.text);
    }
    // A provider's connection likewise: it makes this server ask another one.
    let tried = service.post_with("/admin/providers/acme/test", &viewer, json!({})).await;
    tried.expect(403, "admin_role_insufficient");
    let nobody = service.post("/admin/providers/acme/test", json!({})).await;
    assert_eq!(nobody.status, 401, "{}", nobody.text);
}

#[tokio::test]
async fn cve_2026_25227_who_tried_a_script_is_in_the_audit_log_and_no_fact_is() {
    let service = Service::start().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    service.sign_in(&verified(service.issuer.token()).sign()).await.signed_in();
    let files = json!({
        "policy.toml": "contract = 1\n",
        "reasons.toml": "[odd]\ntitle = \"odd\"\n",
        "mapping/default.rhai": "fn map(s, out) { }",
        "risk/_default.rhai": "fn assess(s, risk) { risk.add(s.history.sign_ins_total / 0, \"odd\"); }",
    });
    let draft = service.post_with("/admin/policies", &editor, json!({"files": files})).await;
    let id = draft.body["id"].as_str().unwrap_or_else(|| panic!("{}", draft.text));
    let set = json!({"set": {"request.country": "SE"}, "since_s": 86_400});
    for what in ["check", "test", "simulate", "replay"] {
        let tried = service.post_with(&format!("/admin/policies/{id}/{what}"), &editor, set.clone()).await;
        assert_eq!(tried.status, 200, "{what}: {}", tried.text);
        service.clock.advance(Duration::from_secs(1));
    }
    let nonsense = json!({"set": {"request.no_such_fact": "secret-of-a-person"}});
    let tried = service.post_with(&format!("/admin/policies/{id}/simulate"), &editor, nonsense).await;
    tried.expect(400, "policy_unusable");
    let nowhere = service.post_with("/admin/policies/pol_0000000000000000/check", &editor, json!({})).await;
    nowhere.expect(404, "unknown_policy");

    let reader = service.admin_key(Role::Viewer, Some("default")).await;
    let log = service.get_with("/admin/audit?action=policy.&limit=200", &reader).await;
    let (key, _) = editor.split_once('.').unwrap();
    let told: Vec<(&str, &Value)> = log.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|record| record["action"] != "policy.draft")
        .map(|record| {
            assert_eq!((&record["target"], &record["actor"]), (&json!(id), &json!(key)), "{record}");
            assert_eq!(record["tenant"], "default");
            (record["action"].as_str().unwrap(), &record["difference"])
        })
        .rev()
        .collect();
    let actions: Vec<&str> = told.iter().map(|(action, _)| *action).collect();
    let all = ["policy.check", "policy.test", "policy.simulate", "policy.replay", "policy.simulate"];
    assert_eq!(actions, all, "{}", log.text);
    let came = |at: usize, member: &str| told[at].1[member]["after"].clone();
    assert_eq!(came(0, "passed"), false);
    let (runs, faults) = (came(0, "runs").as_u64().unwrap(), came(0, "faults").as_u64().unwrap());
    assert!(faults > 0 && faults <= runs, "{}", log.text);
    assert_eq!((came(1, "cases"), came(1, "failed")), (json!(0), json!(0)));
    assert_eq!((came(2, "runs"), came(2, "faults")), (json!(1), json!(1)));
    assert_eq!((came(3, "sign_ins"), came(3, "faults")), (json!(1), json!(1)));
    assert_eq!(came(4, "ended_early"), true);
    for word in ["SE", "country", "secret-of-a-person", "ada@example.com", "usr_"] {
        assert!(!log.text.contains(word), "{word} in {}", log.text);
    }
}

/// fusionauth #2389: nobody could tell what each script takes.
#[tokio::test]
async fn fusionauth_2389_time_and_operations_of_each_script_are_counted_by_tenant() {
    let dir = tempfile::TempDir::new().unwrap();
    let counts_to = |n: u32| format!("let i = 0; while i < {n} {{ i += 1; }}");
    let rules = format!(
        "fn assess(s, risk) {{ {} if s.history.sign_ins_total > 0 {{ throw \"oops\"; }} }}\n\
         fn token(s, d, token) {{ {} }}",
        counts_to(1000),
        counts_to(10)
    );
    let files = [("risk/metered-2389.rhai", rules.as_str()), ("risk/metered-2389.test.toml", "")];
    let setup = Setup::with_policies(dir.path(), &files);
    let keys = Service::start().await;
    let more_config = format!(
        "[[tenants]]\nid = \"metered-2389\"\n[[providers]]\ntenant = \"metered-2389\"\nname = \"acme\"\n\
         issuer = {:?}\nclient_ids = [\"app-web\"]\n",
        keys.issuer.url
    );
    let service = Service::start_with(Setup { more_config, ..setup }).await;
    let sign_in = async || {
        let body = json!({"id_token": keys.issuer.token().sign(), "provider": "acme"});
        let request = service.http().post(service.url("/auth/id-token/signin")).json(&body);
        service.send(request.header("x-tenant-id", "metered-2389")).await
    };
    let read = async || {
        let text = service.send(service.http().get(service.url("/metrics"))).await.text;
        move |name: &str, script: &str, more: &str| -> Option<f64> {
            let labels = format!("{{tenant=\"metered-2389\",script=\"{script}\"{more}}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(labels.as_str()));
            line.map(|value| value.parse().unwrap())
        }
    };
    sign_in().await.signed_in();
    let first = read().await;
    let operations = |script| first("countersign_script_operations_sum", script, "").unwrap();
    for script in ["map", "assess", "token"] {
        assert_eq!(first("countersign_script_operations_count", script, ""), Some(1.0), "{script}");
        assert_eq!(first("countersign_script_seconds_count", script, ""), Some(1.0), "{script}");
        let seconds = first("countersign_script_seconds_sum", script, "").unwrap();
        assert!(seconds > 0.0 && seconds < 10.0, "{script} took {seconds} s");
        assert_eq!(first("countersign_script_failures_total", script, "").unwrap_or(0.0), 0.0);
    }
    assert!(operations("assess") > 3000.0, "{}", operations("assess"));
    assert!(operations("token") > 30.0 && operations("token") < 300.0, "{}", operations("token"));
    let within = |bound: &str| first("countersign_script_operations_bucket", "assess", bound);
    assert_eq!((within(",le=\"2500\""), within(",le=\"20000\"")), (Some(0.0), Some(1.0)));

    service.clock.advance(Duration::from_secs(1));
    sign_in().await;
    let second = read().await;
    assert_eq!(second("countersign_script_failures_total", "assess", ""), Some(1.0));
    assert_eq!(second("countersign_script_operations_count", "assess", ""), Some(2.0));
    assert_eq!(second("countersign_script_operations_count", "map", ""), Some(2.0));

    // And an administrator is told of one decision.
    let viewer = service.admin_key(Role::Viewer, Some("metered-2389")).await;
    let listed = service.get_with("/admin/sign-ins", &viewer).await;
    let id = listed.body["items"][1]["id"].as_str().unwrap_or_else(|| panic!("{}", listed.text));
    let told = service.get_with(&format!("/admin/sign-ins/{id}/explain"), &viewer).await;
    assert!(told.text.contains(&format!("\"ops\":{}", operations("assess"))), "{}", told.text);
}

/// A verifier that looks at nothing: audience, time, issuer and single use are the server's.
#[tokio::test]
async fn cve_2026_41577_a_plugin_that_ignores_conditions_and_audience_lets_nobody_in_by_that() {
    let bench = Bench::new();
    let entry = bench.misbehaving("verify = \"ok\"").hooks(&["provider.verify"]);
    let entry = entry.with("bind = [\"acme\"]\ndeadline_ms = 5000");
    let bench = bench.lock(&entry);
    let service = Service::start_with(Setup { plugins_lock: Some(bench.write()), ..Setup::default() }).await;
    let now = service.clock.now_s();
    let good = json!({"iss": service.issuer.url, "aud": "app-web", "sub": "s-1", "iat": now, "exp": now + 300});
    for (claim, value, error) in [
        ("aud", json!("another-app"), "id_token_audience_mismatch"),
        ("aud", json!(null), "id_token_claim_invalid"),
        ("iss", json!("https://other.example"), "id_token_issuer_mismatch"),
        ("exp", json!(now - 3600), "id_token_expired"),
        ("exp", json!((now + 300).to_string()), "id_token_claim_invalid"),
        ("nbf", json!(now + 3600), "id_token_not_yet_valid"),
        ("iat", json!(now + 3600), "id_token_not_yet_valid"),
        ("sub", json!(""), "id_token_claim_invalid"),
    ] {
        let mut claims = good.clone();
        claims[claim] = value;
        let answer = service.sign_in(&claims.to_string()).await;
        assert_eq!(answer.error(), error, "{claims}: {}", answer.text);
    }
    service.sign_in(&good.to_string()).await.signed_in();
    service.sign_in(&good.to_string()).await.expect(401, "id_token_replayed");
}

/// The limit of guesses counts at the account: no address, real or told by a header, makes another bucket.
#[tokio::test]
async fn cve_2026_45364_rotating_addresses_do_not_escape_the_limit_of_guesses() {
    let (_dir, service, secret) = enrolled().await;
    let addresses = ["2001:db8::1", "2001:DB8::2", "::ffff:192.0.2.1", "192.0.2.1", "2001:db8:0:1::1"];
    let mut wrong = 0;
    let mut token = challenge(&service).await;
    for n in 0..12 {
        if n % 4 == 0 {
            token = challenge(&service).await;
        }
        let body = json!({"challenge_token": token, "code": "000000"});
        let request = service.http().post(service.url("/auth/mfa/verify-challenge")).json(&body);
        let request = request.header("x-forwarded-for", addresses[n % addresses.len()]);
        let answer = service.send(request.header("forwarded", format!("for=\"[2001:db8::{n}]\""))).await;
        wrong += usize::from(answer.error() == "invalid_mfa_code");
    }
    assert_eq!(wrong, 10);
    let last = challenge(&service).await;
    verify(&service, &last, &code(&service, &secret, 0)).await.expect(429, "mfa_locked");
}

#[tokio::test]
async fn cve_2025_61928_a_user_named_beside_a_code_is_never_listened_to() {
    let (_dir, service, secret) = enrolled().await;
    let victim = service.sign_in(&service.issuer.token().subject("victim").sign()).await.signed_in().clone();
    let mine = service.sign_in(&service.issuer.token().sign()).await;
    let body = json!({
        "challenge_token": mine.challenged()["challenge_token"],
        "code": code(&service, &secret, 0),
        "user_id": victim["user_id"],
        "sub": victim["user_id"],
    });
    let answer = service.post("/auth/mfa/verify-challenge", body).await;
    // Unknown members are passed over, as everywhere: the challenge alone says whose it is.
    assert_ne!(answer.signed_in()["user_id"], victim["user_id"]);
}

/// zitadel #10932, datum auth-ui #57: what one node began was not known to the next one.
#[tokio::test]
async fn zitadel_10932_a_challenge_of_one_node_is_answered_at_another() {
    let dir = tempfile::TempDir::new().unwrap();
    let setup = || Setup::with_policies(dir.path(), &[("risk/_default.rhai", crate::mfa::DEMAND)]);
    let service = Service::start_with(setup()).await;
    let secret = crate::mfa::enrol(&service).await;
    let other = service.beside(setup()).await;
    service.clock.advance(Duration::from_secs(60));
    let begun = challenge(&service).await;
    let answer = verify(&other, &begun, &code(&service, &secret, 0)).await;
    let refresh = json!({"refresh_token": answer.signed_in()["refresh_token"]});
    assert_eq!(service.post("/auth/refresh", refresh).await.status, 200);
    let again = verify(&service, &begun, &code(&service, &secret, 30)).await;
    assert_eq!(again.status, 400, "a challenge that was answered at one node is spent at all: {}", again.text);
}

/// breeze #4651: clients took the 401 of a wrong code for the end of the session.
#[tokio::test]
async fn breeze_4651_a_wrong_code_is_a_400_and_ends_no_session() {
    let (_dir, service, _) = enrolled().await;
    let bystander = service.sign_in(&service.issuer.token().subject("bystander").sign()).await;
    let access = bystander.signed_in()["access_token"].as_str().unwrap().to_owned();
    let begun = challenge(&service).await;
    verify(&service, &begun, "000000").await.expect(400, "invalid_mfa_code");
    assert_eq!(service.get_with("/auth/me", &access).await.status, 200);
}
