//! A hostile or hasty tenant with an editor's key: too much at once, too large, too deep, oddly named.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::Role;
use super::policies::{files, fine, scoring};
use crate::support::service::Service;

async fn kept(service: &Service, key: &str, points: i64) -> String {
    fine(service.post_with("/admin/policies", key, scoring(points)).await)["id"].as_str().unwrap().to_owned()
}

async fn active(service: &Service, key: &str) -> Value {
    fine(service.get_with("/admin/policies/status", key).await)["active"][0].clone()
}

#[tokio::test]
async fn rollbacks_at_once_go_back_one_by_one_and_activations_at_once_leave_one_in_force() {
    let service = Service::start().await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    let ids = [kept(&service, &key, 1).await, kept(&service, &key, 2).await, kept(&service, &key, 3).await];
    let activate = |id: &str| {
        let path = format!("/admin/policies/{id}/activate");
        let (service, key) = (&service, &key);
        async move { service.post_with(&path, key, json!({"note": "at once"})).await }
    };
    for id in &ids {
        fine(activate(id).await);
    }
    let back = || service.post_with("/admin/policies/rollback", &key, json!({}));
    for answer in join_all([back(), back()]).await {
        fine(answer);
    }
    assert_eq!(active(&service, &key).await["bundle"], *ids[0], "two steps, whoever was faster");
    let answers = join_all((0..12).map(|_| back())).await;
    let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!(done.len(), 1, "there is one step left, to the folder");
    for answer in &refused {
        answer.expect(409, "policy_nothing_before");
    }
    assert_eq!(active(&service, &key).await["bundle"], Value::Null);

    let answers = join_all((0..9).map(|n| activate(&ids[n % 3]))).await;
    let mut made: Vec<Value> = answers.into_iter().map(fine).collect();
    made.sort_by_key(|activation| activation["seq"].as_i64());
    made.windows(2).for_each(|pair| assert_eq!(pair[1]["previous"], pair[0]["bundle"], "{pair:#?}"));
    let last = made.last().unwrap();
    assert_eq!(active(&service, &key).await["seq"], last["seq"]);
    let points = 1 + ids.iter().position(|id| *id == last["bundle"]).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let answer = service.sign_in(&service.issuer.token().sign()).await;
        if answer.body["risk_assessment"]["score"] == points {
            break;
        }
        assert!(std::time::Instant::now() < until, "{}", answer.text);
    }
}

#[tokio::test]
async fn too_many_too_deep_and_oddly_named_files_are_refused_with_a_word() {
    let service = Service::start().await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    let draft = |body: Value| service.post_with("/admin/policies", &key, body);
    let mut many = files(&[]);
    for n in 0..65 {
        many["files"][format!("lib/h{n}.rhai")] = "".into();
    }
    draft(many).await.expect(400, "policy_unusable");
    // Each helper imports the next one: none is ready before the last.
    let mut chain = files(&[("lib/names.rhai", ""), ("lib/groups.rhai", "")]);
    for n in 0..40 {
        chain["files"][format!("lib/h{n:02}.rhai")] = format!("import \"lib/h{:02}\" as next;", n + 1).into();
    }
    let answer = draft(chain).await;
    assert!(matches!(answer.status, 200 | 400), "{}", answer.text);

    let deep = |open: &str, close: &str, n: usize| format!("x = {}{}", open.repeat(n), close.repeat(n));
    for text in [
        deep("[", "]", 12_000),
        deep("{ a = ", " }", 4_000),
        format!("[{}x]", "a.".repeat(10_000)),
        format!("contract = 1\n[tenants]\n{}", "a.".repeat(9_000) + "b = 1"),
        "contract = 99999999999999999999".to_owned(),
        "contract = 1\n[thresholds]\nmedium = -9223372036854775808\nhigh = 9223372036854775807".to_owned(),
        "\u{feff}contract = 1\n\u{202e}x = 1".to_owned(),
        "\0".to_owned(),
    ] {
        draft(files(&[("policy.toml", &text)])).await.expect(400, "policy_unusable");
        draft(files(&[("reasons.toml", &text)])).await.expect(400, "policy_unusable");
        let kept = draft(files(&[("risk/_default.test.toml", &text)])).await;
        if kept.status == 200 {
            let id = kept.body["id"].as_str().unwrap();
            for what in ["test", "activate"] {
                let answer = service.post_with(&format!("/admin/policies/{id}/{what}"), &key, json!({})).await;
                assert!(matches!(answer.status, 400 | 409), "{what}: {}", answer.text);
            }
        }
    }
    for name in
        ["risk/d\u{e9}faut.rhai", "risk/\u{202e}x.rhai", "risk/x\u{200b}.rhai", "RISK/x.rhai", "risk//x.rhai"]
    {
        draft(files(&[(name, "")])).await.expect(400, "policy_unusable");
    }
    let long = format!("risk/{}.rhai", "x".repeat(65));
    draft(files(&[(&long, "")])).await.expect(400, "policy_unusable");
    // No tenant has this name, so it is no harm, and it is not a tenant's.
    draft(files(&[("risk/NotATenant.rhai", "fn assess(s, risk) {}")])).await;
    let mut note = files(&[]);
    note["note"] = "a\u{0}b".into();
    draft(note).await.expect(400, "malformed_request");
    draft(json!({"files": {"policy.toml": "x".repeat(70_000)}})).await.expect(400, "policy_unusable");
    draft(json!({"files": {}})).await.expect(400, "policy_unusable");
}

#[tokio::test]
async fn a_bundle_may_be_as_large_as_bundles_are_and_no_other_body_is() {
    let service = Service::start().await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    let viewer = service.admin_key(Role::Viewer, Some("default")).await;
    let shipped = countersign::scripts::bundle::read_folder(std::path::Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/policies"
    )));
    let files: serde_json::Map<String, Value> =
        shipped.unwrap().files().iter().map(|(name, text)| (name.clone(), json!(**text))).collect();
    let held: usize = files.values().map(|text| text.as_str().unwrap().len()).sum();
    // Lists of the size that makes the whole one that of the limit, each line with an end that is escaped.
    let of_size = |total: usize| {
        let (mut files, mut left, mut number) = (files.clone(), total - held, 0);
        while left > 0 {
            let size = left.min(60_000);
            let line = "192.0.2.0/24\n";
            let text = line.repeat(size / line.len()) + "#".repeat(size % line.len()).as_str();
            files.insert(format!("lists/large_{number}.txt"), text.into());
            (left, number) = (left - size, number + 1);
        }
        json!({ "files": files })
    };
    let draft = |key: &str, body: &Value| {
        let (key, body) = (key.to_owned(), body.clone());
        let service = &service;
        async move { service.post_with("/admin/policies", &key, body).await }
    };
    let full = of_size(512 * 1024);
    assert!(full.to_string().len() > 512 * 1024);
    let kept = draft(&key, &full).await;
    assert_eq!(kept.status, 200, "{}", kept.text);
    let refused = draft(&key, &of_size(512 * 1024 + 1)).await;
    assert!(refused.expect(400, "policy_unusable").text.contains("524289"), "{}", refused.text);

    // The body's own limit, to the byte.
    let padded = |size: usize| {
        let body = r#"{"files": {}}"#;
        format!("{body}{}", " ".repeat(size - body.len()))
    };
    let raw = async |path: &str, bearer: &str, body: String| {
        let request = service.http().post(service.url(path)).bearer_auth(bearer);
        service.send(request.header("content-type", "application/json").body(body)).await
    };
    raw("/admin/policies", &key, padded(1024 * 1024)).await.expect(400, "policy_unusable");
    raw("/admin/policies", &key, padded(1024 * 1024 + 1)).await.expect(413, "body_too_large");
    // Whoever may not keep a bundle is told so, and the body is not looked at.
    raw("/admin/policies", &viewer, "nonsense".to_owned()).await.expect(403, "admin_role_insufficient");
    raw("/admin/policies", "csk_x", "nonsense".to_owned()).await.expect(401, "invalid_admin_key");
    raw("/admin/policies", &key, "nonsense".to_owned()).await.expect(400, "malformed_request");
    // Everything else takes what it took.
    let id = kept.body["id"].as_str().unwrap();
    for path in ["simulate", "activate", "replay"] {
        let path = format!("/admin/policies/{id}/{path}");
        raw(&path, &key, padded(64 * 1024 + 1)).await.expect(413, "body_too_large");
    }
    raw("/admin/policies/shadow", &key, padded(64 * 1024 + 1)).await.expect(413, "body_too_large");
    raw("/auth/id-token/signin", &key, padded(64 * 1024 + 1)).await.expect(413, "body_too_large");
}

#[tokio::test]
async fn facts_and_candidates_that_make_no_sense_are_refused_with_a_word() {
    let service = Service::start().await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    let id = kept(&service, &key, 5).await;
    let simulate = |set: Value| {
        let path = format!("/admin/policies/{id}/simulate");
        let (service, key) = (&service, &key);
        async move { service.post_with(&path, key, json!({"set": set})).await }
    };
    for set in [
        json!([]),
        json!("x"),
        json!(null),
        json!({"history.device": null}),
        json!({"history.sign_ins_total": 1e300}),
        json!({"history.sign_ins_total": 18_446_744_073_709_551_615_u64}),
        json!({"request.ip": "999.1.1.1"}),
        json!({"": 1}),
        json!({"claims": {}}),
        json!({"signals.plugin.x": 1}),
    ] {
        let answer = simulate(set.clone()).await;
        assert!(matches!(answer.error(), "policy_unusable" | "malformed_request"), "{set}: {}", answer.text);
    }
    // Odd, and fine: what a token may hold as well.
    for set in [
        json!({"history.sign_ins_total": i64::MIN, "request.time_unix_s": i64::MAX, "user.age_days": i64::MAX}),
        json!({"history.km_from_last": 1e308, "history.hours_since_last": -1e308, "history.implied_speed_kmh": 0.0}),
        json!({"claims.\u{202e}": {"a": [[[[1]]]]}, "claims.": "x", "tenant.id": "other"}),
        json!({"request.user_agent": "\u{1f469}\u{200d}".repeat(2000), "request.country": ""}),
    ] {
        let answer = fine(simulate(set).await);
        assert!(answer["report"]["score"].is_i64(), "{answer}");
    }
    let shadow = |bundles: Value| service.post_with("/admin/policies/shadow", &key, json!({"bundles": bundles}));
    fine(shadow(json!([id, id])).await);
    let status = fine(service.get_with("/admin/policies/status", &key).await);
    assert_eq!(status["shadows"].as_array().unwrap().len(), 1);
    shadow(json!(["pol_\u{0}"])).await.expect(404, "unknown_policy");
    shadow(json!([id, "pol_0000000000000000"])).await.expect(404, "unknown_policy");
    // Taken on and off at once, by everybody.
    let storm = (0..16).map(|n| if n % 2 == 0 { shadow(json!([id])) } else { shadow(json!([])) });
    for answer in join_all(storm).await {
        fine(answer);
    }
    fine(shadow(json!([])).await);
    let replay = format!("/admin/policies/{id}/replay");
    for since in [0_u64, u64::MAX, i64::MAX as u64] {
        let answer = service.post_with(&replay, &key, json!({"since_s": since})).await;
        assert!(matches!(answer.status, 200 | 400), "{since}: {}", answer.text);
    }
}
