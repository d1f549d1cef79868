//! What users of other servers asked for or were hurt by, as far as it concerns reading ID tokens.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use countersign::secret::sha256;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};

use crate::support::issuer::{TestKey, TokenBuilder, shared_rsa};
use crate::support::service::{Answer, Service, Setup};

async fn send(service: &Service, token: &TokenBuilder, more: &Value) -> Answer {
    let mut body = json!({"id_token": token.sign(), "provider": "acme"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service.post("/auth/id-token/signin", body).await
}

fn message(answer: &Answer) -> String {
    answer.body["message"].as_str().unwrap_or_default().to_owned()
}

/// supabase-swift #221, better-auth #1495: one client id was not enough, and the error did not say which was seen.
#[tokio::test]
async fn each_platform_has_its_client_id_and_a_refusal_says_what_was_seen_and_how_many_are_allowed() {
    let service = Service::start().await;
    for client in ["app-web", "app-ios"] {
        service.sign_in(&service.issuer.token().claim("aud", client).sign()).await.signed_in();
    }
    let refused = service.sign_in(&service.issuer.token().claim("aud", "com.example.android").sign()).await;
    refused.expect(401, "id_token_audience_mismatch");
    let text = message(&refused);
    assert!(text.contains("com.example.android") && text.contains("2 client ids"), "{text}");
    assert!(!text.contains("app-web"), "the configured client ids are nobody's business: {text}");
}

/// openid-client #231, AppAuth-Android #727: tokens of Android have an `azp` that is another client of the same app.
#[tokio::test]
async fn openid_client_231_appauth_android_727_an_azp_that_differs_from_aud_is_fine_when_it_is_ours() {
    let service = Service::start_with(Setup::provider("authorized_parties = [\"app-android\"]")).await;
    for azp in ["app-ios", "app-android", "app-web"] {
        service.sign_in(&service.issuer.token().claim("azp", azp).sign()).await.signed_in();
    }
    service
        .sign_in(&service.issuer.token().claim("azp", "app-evil").sign())
        .await
        .expect(401, "id_token_azp_mismatch");
    // An authorized party is no audience.
    let token = service.issuer.token().claim("aud", "app-android").sign();
    service.sign_in(&token).await.expect(401, "id_token_audience_mismatch");
}

/// supabase/auth #412, #1926, kratos #3476: raw or hashed, hex or base64url, and which rule was broken.
#[tokio::test]
async fn every_nonce_rule_says_which_part_of_it_is_not_met() {
    let raw = "n-0S6_WzA2Mj";
    let hash = sha256(raw.as_bytes());
    let forms = [raw.to_owned(), HEXLOWER.encode(&hash), BASE64URL_NOPAD.encode(&hash)];
    let request = json!({"nonce": raw});
    for rule in ["optional", "required"] {
        let service = Service::start_with(Setup::provider(&format!("nonce = \"{rule}\""))).await;
        for form in &forms {
            send(&service, &service.issuer.token().claim("nonce", form.as_str()), &request).await.signed_in();
        }
        let differs = send(&service, &service.issuer.token().claim("nonce", "other"), &request).await;
        assert!(message(&differs).contains("neither the request's nonce nor its SHA-256"), "{}", differs.text);
        let lacks = send(&service, &service.issuer.token(), &request).await;
        assert!(message(&lacks).contains("carries no nonce"), "{}", lacks.text);
        for answer in [differs, lacks] {
            answer.expect(401, "id_token_nonce_mismatch");
            assert!(!answer.text.contains(raw), "the nonce stands in the answer");
        }
        let unasked = send(&service, &service.issuer.token().claim("nonce", "sdk-made"), &json!({})).await;
        match rule {
            "optional" => drop(unasked.signed_in()),
            _ => assert!(message(&unasked).contains("needs the nonce"), "{}", unasked.text),
        }
    }
    let service = Service::start_with(Setup::provider("nonce = \"forbidden\"")).await;
    send(&service, &service.issuer.token(), &request).await.expect(401, "id_token_nonce_mismatch");
    send(&service, &service.issuer.token().claim("nonce", raw), &json!({}))
        .await
        .expect(401, "id_token_nonce_mismatch");
    send(&service, &service.issuer.token(), &json!({})).await.signed_in();
}

/// better-auth #6521: a nonce that was accepted and never checked. concourse #9692: one token, one sign-in.
#[tokio::test]
async fn better_auth_6521_a_nonce_taken_from_the_request_does_not_make_a_token_good_twice() {
    let service = Service::start().await;
    for token in [service.issuer.token(), service.issuer.token().without("jti")] {
        let token = token.claim("nonce", "n");
        send(&service, &token, &json!({"nonce": "n"})).await.signed_in();
        send(&service, &token, &json!({"nonce": "n"})).await.expect(401, "id_token_replayed");
    }
}

/// The digest is of what was signed: another signature over it, or the malleable twin of an ECDSA one, is the same token.
#[tokio::test]
async fn concourse_9692_a_token_without_jti_is_recognised_under_another_valid_signature() {
    let service = Service::start().await;
    let key = Arc::new(TestKey::new_p256());
    service.issuer.rotate_to(vec![("ec", Arc::clone(&key))]);
    let token = service.issuer.token().without("jti").key("ES256", "ec", &key);
    let (first, second) = (token.sign(), token.sign());
    assert_ne!(first, second, "ECDSA signatures are random");
    service.sign_in(&first).await.signed_in();
    service.sign_in(&second).await.expect(401, "id_token_replayed");
}

/// hanko #2054, pocketbase #6657, zitadel/oidc #139: `email_verified` is a text at some providers.
#[tokio::test]
async fn an_address_counts_as_verified_only_for_true_and_one_in_either_type() {
    let rows = [
        (json!(true), true),
        (json!("true"), true),
        (json!(1), true),
        (json!("1"), true),
        (json!(false), false),
        (json!("false"), false),
        (json!(0), false),
        (json!("0"), false),
        (json!("TRUE "), false),
        (json!("yes"), false),
        (json!(2), false),
        (json!(null), false),
        (json!([true]), false),
        (json!({"verified": true}), false),
    ];
    for (value, counts) in rows {
        let service = Service::start().await;
        let told = |subject: &str| {
            let token = service.issuer.token().subject(subject).claim("email", "a@example.com");
            token.claim("email_verified", value.clone()).sign()
        };
        service.sign_in(&told("one")).await.signed_in();
        // A verified address belongs to one account; an unverified one belongs to nobody.
        let second = service.sign_in(&told("two")).await;
        assert_eq!(second.error() == "account_exists", counts, "{value}: {}", second.text);
    }
}

/// supabase #2050 to #2068: Apple's second issuer host broke every sign-in until it was added by hand.
#[tokio::test]
async fn an_issuer_with_two_names_is_trusted_under_both_and_under_no_third() {
    let service = Service::start().await;
    let url = service.issuer.url.clone();
    let more_config = format!(
        "[[providers]]\ntenant = \"default\"\nname = \"both\"\nissuer = [{url:?}, \"https://account.example\"]\n\
         client_ids = [\"app-both\"]\n"
    );
    let service = service.restart(Setup { more_config, ..Setup::default() }).await;
    for (issuer, error) in [
        (url.as_str(), ""),
        ("https://account.example", ""),
        ("https://account.example/", "id_token_issuer_mismatch"),
    ] {
        let token = service.issuer.token().claim("iss", issuer).claim("aud", "app-both").sign();
        let answer = service.post("/auth/id-token/signin", json!({"id_token": token, "provider": "both"})).await;
        assert_eq!(answer.error(), error, "{issuer}: {}", answer.text);
    }
}

/// next-auth #5284, react-native-apple-authentication #293: the name arrives once, beside the token.
#[tokio::test]
async fn next_auth_5284_a_name_beside_the_token_is_taken_once_and_never_replaces_what_is_known() {
    let service = Service::start_with(Setup::provider("mapping = \"apple\"")).await;
    let named = |name: &str| json!({"profile": {"name": name}});
    let first = send(&service, &service.issuer.token(), &named("Ada Lovelace")).await;
    let stored = async || {
        let file = service.dir.path().join("db/countersign.db");
        let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        let profile: String = sqlx::query_scalar("SELECT profile FROM users").fetch_one(&pool).await.unwrap();
        let profile: Value = serde_json::from_str(&profile).unwrap();
        (profile["name"].clone(), profile["attributes"]["name_source"].clone())
    };
    let user = first.signed_in()["user_id"].clone();
    assert_eq!(stored().await, (json!("Ada Lovelace"), json!("client")));
    let again = send(&service, &service.issuer.token(), &named("Mallory")).await;
    assert_eq!(again.signed_in()["user_id"], user);
    assert_eq!(stored().await, (json!("Ada Lovelace"), json!("client")));
}

/// fal #116, lcobucci/jwt #191: seconds of skew; auth0 #31 went to 300 s. More cannot be configured.
#[tokio::test]
async fn a_skewed_clock_is_forgiven_as_far_as_configured_and_no_further() {
    for leeway in [0_i64, 5, 300] {
        let service = Service::start_with(Setup::provider(&format!("clock_leeway = \"{leeway}s\""))).await;
        let now = service.clock.now_s();
        let token = || service.issuer.token();
        service.sign_in(&token().claim("iat", now + leeway).sign()).await.signed_in();
        service.sign_in(&token().claim("iat", now + leeway + 1).sign()).await.expect(401, "id_token_not_yet_valid");
        service.sign_in(&token().claim("exp", now - leeway).sign()).await.expect(401, "id_token_expired");
        let last = service.sign_in(&token().claim("exp", now - leeway + 1).sign()).await;
        last.signed_in();
    }
}

/// better-auth: an hour for every provider. Here each provider has its age, and it counts from `iat`.
#[tokio::test]
async fn a_token_that_lives_long_is_still_too_old_after_the_configured_age() {
    let service = Service::start_with(Setup::provider("max_token_age = \"2m\"\nclock_leeway = \"0s\"")).await;
    let now = service.clock.now_s();
    let aged = |age: i64| service.issuer.token().claim("iat", now - age).claim("exp", now + 86_400).sign();
    service.sign_in(&aged(120)).await.signed_in();
    let refused = service.sign_in(&aged(121)).await;
    refused.expect(401, "id_token_too_old");
    assert!(message(&refused).contains("121 s ago") && message(&refused).contains("120 s"), "{}", refused.text);
}

/// oidctest #29, Cogtrix #328: no key id is fine when there is nothing to choose, and never a reason to take the first.
#[tokio::test]
async fn oidctest_29_cogtrix_328_without_a_key_id_the_only_fitting_key_counts_and_twins_of_one_name_count_by_their_algorithm()
 {
    let service = Service::start().await;
    let ec = Arc::new(TestKey::new_p256());
    service.issuer.rotate_to(vec![("same", shared_rsa()), ("same", Arc::clone(&ec))]);
    let token = || service.issuer.token();
    service.sign_in(&token().key("RS256", "same", &shared_rsa()).sign()).await.signed_in();
    service.sign_in(&token().key("ES256", "same", &ec).sign()).await.signed_in();
    service.sign_in(&token().key("ES256", "same", &ec).without_header("kid").sign()).await.signed_in();
    let other = Arc::new(TestKey::new_p256());
    service.issuer.rotate_to(vec![("same", Arc::clone(&other)), ("same", Arc::clone(&ec))]);
    service.clock.advance(Duration::from_secs(3601));
    for key in [&ec, &other] {
        service.sign_in(&token().key("ES256", "same", key).sign()).await.expect(401, "key_ambiguous");
        service
            .sign_in(&token().key("ES256", "same", key).without_header("kid").sign())
            .await
            .expect(401, "key_id_missing");
    }
}

/// go-oidc #344, next-auth #13440: people turned the issuer check off because of Microsoft's template.
#[tokio::test]
async fn go_oidc_344_next_auth_13440_a_template_without_an_allow_list_is_no_configuration() {
    let file = |more: &str| {
        format!(
            "[server]\npublic_url = \"https://id.example\"\n[[tenants]]\nid = \"default\"\n[[providers]]\n\
             tenant = \"default\"\nname = \"m\"\npreset = \"microsoft\"\nclient_ids = [\"a\"]\n{more}"
        )
    };
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("countersign.toml");
    for (more, loads) in [("", false), ("allowed_tenant_ids = []", false), ("allowed_tenant_ids = [\"t-1\"]", true)]
    {
        std::fs::write(&path, file(more)).unwrap();
        assert_eq!(countersign::config::load(&path, std::iter::empty()).is_ok(), loads, "{more}");
    }
}

/// Azure's group overage: `_claim_names` is shown to scripts, and its endpoint is never asked.
#[tokio::test]
async fn distributed_claims_are_not_fetched_and_do_not_stop_a_sign_in() {
    let service = Service::start().await;
    let elsewhere = crate::support::wire::WireIssuer::start().await;
    let token = service.issuer.token().claim("_claim_names", json!({"groups": "src1"}));
    let source = json!({"src1": {"endpoint": elsewhere.path(crate::support::wire::KEYS), "access_token": "x"}});
    service.sign_in(&token.claim("_claim_sources", source).sign()).await.signed_in();
    assert_eq!(elsewhere.fetches(), 0);
}

/// An ID token in any other place opens nothing.
#[tokio::test]
async fn an_id_token_is_no_access_token() {
    let service = Service::start().await;
    let token = service.issuer.token().sign();
    service.get_with("/auth/me", &token).await.expect(401, "invalid_access_token");
    service.sign_in(&token).await.signed_in();
    service.get_with("/auth/me", &token).await.expect(401, "invalid_access_token");
    let refresh = json!({"refresh_token": token});
    service.post("/auth/refresh", refresh).await.expect(400, "invalid_refresh_token");
}

/// And one of ours is no ID token, whatever its keys.
#[tokio::test]
async fn an_access_token_of_this_server_is_no_id_token() {
    let service = Service::start().await;
    let access = service.sign_in(&service.issuer.token().sign()).await.signed_in()["access_token"].clone();
    service.sign_in(access.as_str().unwrap()).await.expect(401, "id_token_type_refused");
}

/// OpenID Connect Core 3.1.3.6: with the hash of the token's own algorithm, and no other.
#[tokio::test]
async fn at_hash_is_made_with_the_hash_of_the_tokens_algorithm() {
    let service = Service::start().await;
    let (p256, p384) = (Arc::new(TestKey::new_p256()), Arc::new(TestKey::new_p384()));
    let ed = Arc::new(TestKey::new_ed25519());
    let keys = [("rsa-1", shared_rsa()), ("p256", p256), ("p384", p384), ("ed", ed)];
    service.issuer.rotate_to(keys.iter().map(|(kid, key)| (*kid, Arc::clone(key))).collect());
    let half = |hash: &'static Algorithm| {
        let whole = digest(hash, b"provider-access-token");
        BASE64URL_NOPAD.encode(&whole.as_ref()[..whole.as_ref().len() / 2])
    };
    let hashes = [&SHA256, &SHA384, &SHA512];
    for (alg, key, right) in [("RS256", 0, 0), ("PS256", 0, 0), ("ES256", 1, 0), ("ES384", 2, 1), ("EdDSA", 3, 2)] {
        for (at, hash) in hashes.into_iter().enumerate() {
            let token = service.issuer.token().key(alg, keys[key].0, &keys[key].1).claim("at_hash", half(hash));
            let answer = send(&service, &token, &json!({"access_token": "provider-access-token"})).await;
            let expected = if at == right { "" } else { "id_token_at_hash_mismatch" };
            assert_eq!(answer.error(), expected, "{alg}: {}", answer.text);
        }
    }
}

/// Two providers of one tenant may accept the same token: it is good for one sign-in all the same.
#[tokio::test]
async fn a_token_is_good_once_whichever_provider_is_named_with_it() {
    let service = Service::start().await;
    let more_config = format!(
        "[[providers]]\ntenant = \"default\"\nname = \"twin\"\nissuer = {:?}\nclient_ids = [\"app-web\"]\n",
        service.issuer.url
    );
    let service = service.restart(Setup { more_config, ..Setup::default() }).await;
    for token in [service.issuer.token(), service.issuer.token().without("jti")] {
        let through_twin = json!({"id_token": token.sign(), "provider": "twin"});
        service.sign_in(&token.sign()).await.signed_in();
        service.post("/auth/id-token/signin", through_twin).await.expect(401, "id_token_replayed");
    }
}
