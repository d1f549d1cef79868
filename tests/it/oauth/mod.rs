//! The OAuth endpoints: clients, exchange, refresh, introspection, revocation, metadata.

mod apple_notices;
mod backchannel;
mod dpop;
pub mod security_events;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::service::{Answer, Service, Setup};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const SECRET: &str = "a secret & more: 0123456789";

/// `shop` has a secret, `app` is public, `api` only asks; `lone` has a provider that is never asked.
pub fn setup() -> Setup {
    let hash = data_encoding::HEXLOWER.encode(&countersign::secret::sha256(SECRET.as_bytes()));
    let client = |id: &str, lines: &str| format!("[[clients]]\nid = \"{id}\"\n{lines}\n");
    let more_config = [
        client(
            "shop",
            &format!("secret_hash = \"{hash}\"\nproviders = [\"acme\"]\naudiences = [\"https://api.example\"]"),
        ),
        client("app", "kind = \"native\"\nproviders = [\"acme\"]"),
        client("api", &format!("kind = \"machine\"\nsecret_hash = \"{hash}\"\ngrants = []")),
        client("lone", "kind = \"spa\"\nproviders = [\"unasked\"]"),
        "[[providers]]\nname = \"unasked\"\nissuer = \"https://unasked.invalid\"\nclient_ids = [\"x\"]\n"
            .to_owned(),
    ]
    .concat();
    Setup { more_config, ..Setup::default() }
}

pub fn encoded(fields: &[(&str, &str)]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields).finish()
}

fn request(service: &Service, path: &str, body: String) -> reqwest::RequestBuilder {
    let request = service.http().post(service.url(path));
    request.header("content-type", "application/x-www-form-urlencoded").body(body)
}

pub async fn form(service: &Service, path: &str, fields: &[(&str, &str)]) -> Answer {
    service.send(request(service, path, encoded(fields))).await
}

/// As client `app`.
async fn exchange(service: &Service, token: &str, more: &[(&str, &str)]) -> Answer {
    exchange_as(service, &[("client_id", "app")], token, more).await
}

pub async fn exchange_as(service: &Service, client: &[(&str, &str)], token: &str, more: &[(&str, &str)]) -> Answer {
    let plain = [("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", ID_TOKEN)];
    form(service, "/oauth/token", &[client, &plain, more].concat()).await
}

pub async fn refresh_as(service: &Service, client: &[(&str, &str)], token: &str) -> Answer {
    let plain = [("grant_type", "refresh_token"), ("refresh_token", token)];
    form(service, "/oauth/token", &[client, &plain].concat()).await
}

pub const SHOP: [(&str, &str); 2] = [("client_id", "shop"), ("client_secret", SECRET)];
pub const APP: [(&str, &str); 1] = [("client_id", "app")];
const API: [(&str, &str); 2] = [("client_id", "api"), ("client_secret", SECRET)];

fn text<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.body[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", answer.text))
}

fn claims(token: &str) -> Value {
    let payload = data_encoding::BASE64URL_NOPAD.decode(token.split('.').nth(1).unwrap().as_bytes()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

#[tokio::test]
async fn keycloak_45180_thunderid_3869_an_id_token_is_exchanged_for_tokens_of_the_client_that_no_other_can_refresh()
{
    let service = Service::start_with(setup()).await;
    let first = exchange_as(&service, &SHOP, &service.issuer.token().sign(), &[]).await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!(first.body["token_type"], "Bearer");
    assert_eq!(first.body["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(first.headers["cache-control"], "no-store");
    let access = claims(text(&first, "access_token"));
    assert_eq!((&access["client_id"], &access["tenant_id"]), (&json!("shop"), &json!("default")));
    assert_eq!(service.get_with("/auth/me", text(&first, "access_token")).await.status, 200);

    let refresh = text(&first, "refresh_token");
    let other = refresh_as(&service, &APP, refresh).await;
    assert_eq!(other.expect(400, "invalid_grant").body["reason"], "invalid_refresh_token");
    let json_endpoint = service.post("/auth/refresh", json!({"refresh_token": refresh})).await;
    json_endpoint.expect(400, "invalid_refresh_token");
    let second = refresh_as(&service, &SHOP, refresh).await;
    assert_eq!((second.status, second.body.get("issued_token_type")), (200, None), "{}", second.text);
    service.clock.advance(Duration::from_secs(11));
    let reused = refresh_as(&service, &SHOP, refresh).await;
    assert_eq!(reused.expect(400, "invalid_grant").body["reason"], "refresh_token_reused");
    refresh_as(&service, &SHOP, text(&second, "refresh_token")).await.expect(400, "invalid_grant");

    // And the other way round: what the JSON endpoint gave is not a client's.
    let plain = service.sign_in(&service.issuer.token().sign()).await.body;
    refresh_as(&service, &APP, plain["refresh_token"].as_str().unwrap()).await.expect(400, "invalid_grant");
    assert_eq!(service.post("/auth/refresh", json!({"refresh_token": plain["refresh_token"]})).await.status, 200);
}

#[tokio::test]
async fn clients_prove_themselves_in_one_way_and_refusals_do_not_tell_which_part_was_wrong() {
    let service = Service::start_with(setup()).await;
    let body = || encoded(&[("grant_type", "refresh_token"), ("refresh_token", "x")]);
    let with_header = |value: String, body: String| {
        service.send(request(&service, "/oauth/token", body).header("authorization", value))
    };
    let basic = |id: &str, secret: &str| {
        let encode = |t: &str| url::form_urlencoded::byte_serialize(t.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encode(id), encode(secret));
        format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()))
    };
    with_header(basic("shop", SECRET), body()).await.expect(400, "invalid_grant");
    refresh_as(&service, &SHOP, "x").await.expect(400, "invalid_grant");
    refresh_as(&service, &APP, "x").await.expect(400, "invalid_grant");

    let mut messages = std::collections::HashSet::new();
    for client in [
        &[("client_id", "shop")][..],
        &[("client_id", "shop"), ("client_secret", "wrong")],
        &[("client_id", "nobody")],
        &[("client_id", "nobody"), ("client_secret", SECRET)],
        &[("client_id", "app"), ("client_secret", SECRET)],
    ] {
        let refused = refresh_as(&service, client, "x").await;
        messages.insert(text(refused.expect(401, "invalid_client"), "message").to_owned());
        assert_eq!(refused.headers["www-authenticate"], "Basic realm=\"oauth\"");
    }
    for value in [
        basic("shop", "wrong"),
        basic("app", SECRET),
        "Basic !!!".to_owned(),
        "Bearer x".to_owned(),
        format!("Basic {}", data_encoding::BASE64.encode(b"shop")),
    ] {
        let refused = with_header(value, body()).await;
        messages.insert(text(refused.expect(401, "invalid_client"), "message").to_owned());
    }
    assert_eq!(messages.len(), 1, "{messages:?}");
    refresh_as(&service, &[], "x").await.expect(401, "invalid_client");
    let both = format!("{}&client_secret=x", body());
    with_header(basic("shop", SECRET), both).await.expect(400, "invalid_request");
    let another = format!("{}&client_id=app", body());
    with_header(basic("shop", SECRET), another).await.expect(400, "invalid_request");
    let tenant =
        request(&service, "/oauth/token", format!("{}&client_id=app", body())).header("x-tenant-id", "other");
    service.send(tenant).await.expect(401, "invalid_client");
}

/// GHSA-7qjx-wj4g-4c4w and its kin: a client that was allowed nothing could exchange tokens of any provider.
#[tokio::test]
async fn a_client_that_is_not_allowed_for_a_provider_is_refused_before_anything_is_looked_up() {
    let service = Service::start_with(setup()).await;
    let token = service.issuer.token();
    let lone = [("client_id", "lone")];
    let named = exchange_as(&service, &lone, &token.sign(), &[("provider", "acme")]).await;
    named.expect(400, "unauthorized_client");
    let found = exchange_as(&service, &lone, &token.sign(), &[]).await;
    assert_eq!(found.expect(400, "invalid_request").body["reason"], "no_provider_fits");
    // Not even the shape of the token was looked at, no key was fetched, and the token is not spent.
    exchange_as(&service, &lone, "nonsense", &[("provider", "acme")]).await.expect(400, "unauthorized_client");
    assert_eq!(service.issuer.fetches.load(std::sync::atomic::Ordering::SeqCst), 0);
    exchange_as(&service, &API, &token.sign(), &[]).await.expect(400, "unauthorized_client");
    let id_token = token.sign();
    exchange_as(&service, &lone, &id_token, &[]).await.expect(400, "invalid_request");
    assert_eq!(exchange(&service, &id_token, &[]).await.status, 200);
}

#[tokio::test]
async fn an_audience_is_one_of_the_clients_and_its_tokens_open_nothing_here() {
    let service = Service::start_with(setup()).await;
    let token = || service.issuer.token().sign();
    for field in ["audience", "resource"] {
        let answer = exchange_as(&service, &SHOP, &token(), &[(field, "https://api.example")]).await;
        let access = text(&answer, "access_token");
        assert_eq!(claims(access)["aud"], "https://api.example");
        service.get_with("/auth/me", access).await.expect(401, "invalid_access_token");
        let again = refresh_as(&service, &SHOP, text(&answer, "refresh_token")).await;
        assert_eq!(claims(text(&again, "access_token"))["aud"], "https://api.example");
        let known = form(&service, "/oauth/introspect", &[&API[..], &[("token", access)]].concat()).await;
        assert_eq!((&known.body["active"], &known.body["aud"]), (&json!(true), &json!("https://api.example")));
    }
    let own = exchange(&service, &token(), &[("audience", "http://127.0.0.1:8080")]).await;
    assert_eq!(service.get_with("/auth/me", text(&own, "access_token")).await.status, 200);
    for more in [
        &[("audience", "https://api.example")][..],
        &[("audience", "https://other.example")],
        &[("audience", "http://127.0.0.1:8080"), ("resource", "https://api.example")],
    ] {
        exchange(&service, &token(), more).await.expect(400, "invalid_target");
    }
}

#[tokio::test]
async fn what_is_malformed_or_not_offered_is_told_in_the_words_of_the_rfcs() {
    let service = Service::start_with(setup()).await;
    let token = service.issuer.token().sign();
    let app = |more: &str| format!("client_id=app&{more}");
    let exchange_with = |kind: &str, more: &str| {
        app(&format!("grant_type={EXCHANGE}&subject_token={token}&subject_token_type={kind}{more}"))
    };
    for (body, status, error) in [
        (String::new(), 400, "invalid_request"),
        (app("grant_type="), 400, "invalid_request"),
        (app("grant_type=password&username=a&password=b"), 400, "unsupported_grant_type"),
        (app("grant_type=authorization_code&code=x"), 400, "unsupported_grant_type"),
        (app("grant_type=client_credentials"), 400, "unsupported_grant_type"),
        (app("grant_type=refresh_token"), 400, "invalid_request"),
        (app("grant_type=refresh_token&refresh_token=a&refresh_token=b"), 400, "invalid_request"),
        (app("grant_type=refresh_token&refresh_token=%zz"), 400, "invalid_request"),
        (app("grant_type=refresh_token&refresh_token=%ff"), 400, "invalid_request"),
        (app("grant_type=refresh_token&refresh_token=x&scope=admin"), 400, "invalid_scope"),
        (app("grant_type=refresh_token&refresh_token=x&audience=y"), 400, "invalid_target"),
        (exchange_with("urn:ietf:params:oauth:token-type:access_token", ""), 400, "invalid_request"),
        (exchange_with("urn:ietf:params:oauth:token-type:saml2", ""), 400, "invalid_request"),
        (exchange_with(ID_TOKEN, "&actor_token=x"), 400, "invalid_request"),
        (
            exchange_with(ID_TOKEN, "&requested_token_type=urn:ietf:params:oauth:token-type:refresh_token"),
            400,
            "invalid_request",
        ),
        (app(&format!("grant_type={EXCHANGE}&subject_token_type={ID_TOKEN}")), 400, "invalid_request"),
        (app(&format!("refresh_token={}", "a".repeat(70_000))), 413, "body_too_large"),
    ] {
        let answer = service.send(request(&service, "/oauth/token", body)).await;
        answer.expect(status, error);
        assert!(answer.body["error_description"].is_string(), "{}", answer.text);
    }
    let json =
        service.http().post(service.url("/oauth/token")).header("content-type", "application/json").body("{}");
    service.send(json).await.expect(415, "unsupported_media_type");
    assert_eq!(exchange(&service, &token, &[]).await.status, 200, "none of these spent the token");
}

#[tokio::test]
async fn an_id_token_that_is_refused_says_why_and_nothing_gives_tokens_twice() {
    let service = Service::start_with(setup()).await;
    let token = service.issuer.token();
    let expired = token.clone().claim("exp", service.clock.now_s() - 3600);
    let foreign = token.clone().claim("aud", "another-app");
    for (token, more, reason) in [
        (expired.sign(), &[("provider", "acme")][..], "id_token_expired"),
        (foreign.sign(), &[("provider", "acme")], "id_token_audience_mismatch"),
        ("a.b.c".to_owned(), &[], "malformed_id_token"),
        (token.clone().claim("nonce", "n").sign(), &[("nonce", "m")], "id_token_nonce_mismatch"),
    ] {
        let refused = exchange(&service, &token, more).await;
        assert_eq!(refused.expect(400, "invalid_request").body["reason"], reason);
    }
    let once = token.sign();
    assert_eq!(exchange(&service, &once, &[]).await.status, 200);
    let twice = exchange(&service, &once, &[]).await;
    assert_eq!(twice.expect(400, "invalid_request").body["reason"], "id_token_replayed");
    service.sign_in(&once).await.expect(401, "id_token_replayed");
}

#[tokio::test]
async fn a_demand_for_a_second_factor_is_mfa_required_and_its_answer_gives_the_clients_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let rule = "fn assess(s, risk) { if s.request.device_id == \"away\" { risk.require_mfa(\"new_device\"); } }";
    let policies = Setup::with_policies(dir.path(), &[("risk/_default.rhai", rule)]).policies;
    let service = Service::start_with(Setup { policies, ..setup() }).await;
    let at_home = exchange(&service, &service.issuer.token().sign(), &[("device_id", "home")]).await;
    let access = text(&at_home, "access_token");
    let enrolment = service.post_with("/auth/me/mfa/totp", access, json!({})).await;
    let code = |shift: i64| {
        let secret = data_encoding::BASE32_NOPAD.decode(text(&enrolment, "secret").as_bytes()).unwrap();
        let at = countersign::clock::UnixTime::from_secs(service.clock.now_s() + shift);
        countersign::mfa::totp::code_at(&countersign::secret::Secret::new(secret), at).unwrap()
    };
    let confirm = json!({"factor_id": enrolment.body["factor_id"], "code": code(0)});
    assert_eq!(service.post_with("/auth/me/mfa/totp/confirm", access, confirm).await.status, 200);

    let away = exchange(&service, &service.issuer.token().sign(), &[("device_id", "away")]).await;
    away.expect(403, "mfa_required");
    assert_eq!(away.body["code"], 403_120);
    assert_eq!(away.body["required_mfa_methods"], json!(["totp"]));
    assert!(away.body.get("access_token").is_none() && away.body.get("refresh_token").is_none());
    service.clock.advance(Duration::from_secs(30));
    let answer = json!({"challenge_token": away.body["challenge_token"], "device_id": "away", "code": code(0)});
    let answered = service.post("/auth/mfa/verify-challenge", answer).await;
    let body = answered.signed_in();
    assert_eq!(claims(body["access_token"].as_str().unwrap())["client_id"], "app");
    let refresh = body["refresh_token"].as_str().unwrap();
    service.post("/auth/refresh", json!({"refresh_token": refresh})).await.expect(400, "invalid_refresh_token");
    assert_eq!(refresh_as(&service, &APP, refresh).await.status, 200);
}

#[tokio::test]
async fn introspection_tells_clients_with_a_secret_what_is_good_and_nothing_of_what_is_not() {
    let service = Service::start_with(setup()).await;
    let tokens = exchange_as(&service, &SHOP, &service.issuer.token().sign(), &[]).await;
    let (access, refresh) = (text(&tokens, "access_token").to_owned(), text(&tokens, "refresh_token").to_owned());
    let ask = |client: &'static [(&str, &str)], token: String| {
        let service = &service;
        async move { form(service, "/oauth/introspect", &[client, &[("token", &token)]].concat()).await }
    };
    let known = ask(&API, access.clone()).await;
    let told = claims(&access);
    for name in ["iss", "sub", "aud", "exp", "iat", "jti", "sid", "client_id", "tenant_id", "auth_time"] {
        assert_eq!(known.body[name], told[name], "{name}");
    }
    assert_eq!((&known.body["active"], &known.body["token_type"]), (&json!(true), &json!("Bearer")));
    assert_eq!(ask(&SHOP, refresh.clone()).await.body["active"], true);
    let nothing = json!({"active": false});
    for (client, token) in [
        (&API[..], refresh.clone()),
        (&API, "x".to_owned()),
        (&API, format!("{access}A")),
        (&API, service.issuer.token().sign()),
        (&SHOP, "rft_x.y".to_owned()),
    ] {
        assert_eq!(ask(client, token).await.body, nothing);
    }
    ask(&APP, access.clone()).await.expect(400, "unauthorized_client");
    form(&service, "/oauth/introspect", &[("token", &access)]).await.expect(401, "invalid_client");
    form(&service, "/oauth/introspect", &API).await.expect(400, "invalid_request");

    assert_eq!(refresh_as(&service, &SHOP, &refresh).await.status, 200);
    assert_eq!(ask(&SHOP, refresh).await.body, nothing, "a spent refresh token is not good");
    let user = tokens_user(&access);
    service.store.set_user_status(user, countersign::signin::user::UserStatus::Disabled).await.unwrap();
    assert_eq!(ask(&API, access.clone()).await.body, nothing);
    service.store.set_user_status(user, countersign::signin::user::UserStatus::Active).await.unwrap();
    assert_eq!(ask(&API, access.clone()).await.body["active"], true);
    let editor = service.admin_key(countersign::admin::access::Role::Editor, Some("default")).await;
    for (switch, active) in [("disable", false), ("enable", true)] {
        service.post_with(&format!("/admin/providers/acme/{switch}"), &editor, json!({})).await;
        assert_eq!(ask(&API, access.clone()).await.body["active"], active, "the provider: {switch}");
    }
    service.clock.advance(Duration::from_secs(1800));
    assert_eq!(ask(&API, access).await.body, nothing);
}

fn tokens_user(access: &str) -> countersign::ids::UserId {
    claims(access)["sub"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn revocation_ends_the_session_of_the_clients_own_token_and_of_no_other() {
    let service = Service::start_with(setup()).await;
    for by in ["access_token", "refresh_token"] {
        let tokens = exchange_as(&service, &SHOP, &service.issuer.token().sign(), &[]).await;
        let token = text(&tokens, by);
        let foreign = form(&service, "/oauth/revoke", &[&APP[..], &[("token", token)]].concat()).await;
        foreign.expect(400, "unauthorized_client");
        let access = text(&tokens, "access_token");
        assert_eq!(service.get_with("/auth/me", access).await.status, 200);
        let hint = [("token", token), ("token_type_hint", "whatever")];
        assert_eq!(form(&service, "/oauth/revoke", &[&SHOP[..], &hint].concat()).await.status, 200);
        service.get_with("/auth/me", access).await.expect(401, "session_ended");
        refresh_as(&service, &SHOP, text(&tokens, "refresh_token")).await.expect(400, "invalid_grant");
        assert_eq!(form(&service, "/oauth/revoke", &[&SHOP[..], &hint].concat()).await.status, 200);
    }
    assert_eq!(form(&service, "/oauth/revoke", &[&APP[..], &[("token", "x")]].concat()).await.status, 200);
    form(&service, "/oauth/revoke", &[("token", "x")]).await.expect(401, "invalid_client");
}

#[tokio::test]
async fn the_metadata_names_what_is_served_under_the_configured_address() {
    let service = Service::start().await;
    let mut documents = Vec::new();
    for path in ["openid-configuration", "oauth-authorization-server"] {
        documents.push(service.send(service.http().get(service.url(&format!("/.well-known/{path}")))).await.body);
    }
    assert_eq!(documents[0], documents[1]);
    let issuer = documents[0]["issuer"].as_str().unwrap();
    assert_eq!(issuer, "http://127.0.0.1:8080");
    for name in ["token_endpoint", "introspection_endpoint", "revocation_endpoint", "jwks_uri"] {
        let path = documents[0][name].as_str().unwrap().strip_prefix(issuer).unwrap();
        let there = service.http().get(service.url(path)).send().await.unwrap().status();
        assert!(there == 200 || there == 405, "{name}: {there}");
    }
}
