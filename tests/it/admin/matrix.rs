//! Tenants apart and roles apart, for every operation of the document: the test walks it, so that an
//! operation that is not thought of here fails.

use std::collections::BTreeMap;

use countersign::http::openapi_document;
use serde_json::{Value, json};

use super::Role;
use crate::support::issuer::TestIssuer;
use crate::support::service::{Answer, JsonBody, Service, Setup};

struct Operation {
    id: String,
    method: String,
    path: String,
    /// `bearer`, `adminKey` or nothing; the first one that is listed.
    security: Option<String>,
    /// Whether it may be used without a credential as well.
    open: bool,
    example: Option<Value>,
}

fn operations() -> Vec<Operation> {
    let document = openapi_document();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let security = operation["security"].as_array().cloned().unwrap_or_default();
            let named = security.iter().find_map(|s| s.as_object()?.keys().next().cloned());
            found.push(Operation {
                id: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase(),
                path: path.clone(),
                open: named.is_none() || security.iter().any(|s| s.as_object().is_some_and(|o| o.is_empty())),
                security: named,
                example: operation.pointer("/requestBody/content/application~1json/example").cloned(),
            });
        }
    }
    found
}

/// The path with identifiers in place of its parameters.
fn filled(path: &str, identifiers: &BTreeMap<&str, String>) -> String {
    let fill = |part: &str| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
        Some(name) => identifiers
            .get(name)
            .cloned()
            .unwrap_or_else(|| panic!("{path}: give the matrix an identifier of another tenant for {{{name}}}")),
        None => part.to_owned(),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

async fn call(
    service: &Service,
    operation: &Operation,
    path: &str,
    credential: Option<&str>,
    tenant: Option<&str>,
    body: Option<Value>,
) -> Answer {
    let method = operation.method.parse().unwrap();
    let mut request = service.http().request(method, service.url(path));
    if let Some(credential) = credential {
        request = request.bearer_auth(credential);
    }
    if let Some(tenant) = tenant {
        request = request.header("x-tenant-id", tenant);
    }
    if let Some(body) = body.or_else(|| operation.example.clone()).filter(|body| !body.is_null()) {
        request = request.json(&body);
    }
    service.send(request).await
}

/// Two tenants, `default` and `other`, each with a provider, a user, a session and an admin key.
struct World {
    service: Service,
    own: Side,
    foreign: Side,
}

struct Side {
    tenant: &'static str,
    user: String,
    access: String,
    refresh: Value,
    admin: String,
    identifiers: BTreeMap<&'static str, String>,
}

async fn world() -> World {
    let client = "[[clients]]\nid = \"own-app\"\nkind = \"native\"\nproviders = [\"acme\"]\n";
    let service = Service::start_with(Setup { more_config: client.to_owned(), ..Setup::default() }).await;
    let root = service.admin_key(Role::Admin, None).await;
    let settings = json!({
        "issuer": service.issuer.url,
        "client_ids": [TestIssuer::CLIENT],
        "linking": "never",
    });
    let create = json!({"name": "elsewhere", "settings": settings});
    let request = service.http().post(service.url("/admin/providers")).bearer_auth(&root);
    let made = service.send(request.header("x-tenant-id", "other").json(&create)).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let own = side(&service, "default", "acme").await;
    let foreign = side(&service, "other", "elsewhere").await;
    World { service, own, foreign }
}

async fn side(service: &Service, tenant: &'static str, provider: &str) -> Side {
    let device_id = format!("device of {tenant}");
    let body = json!({"id_token": service.issuer.token().sign(), "provider": provider, "device_id": device_id});
    let request = service.http().post(service.url("/auth/id-token/signin")).header("x-tenant-id", tenant);
    let signed_in = service.send(request.json(&body)).await;
    let body = signed_in.signed_in().clone();
    let admin = service.admin_key(Role::Admin, Some(tenant)).await;
    let first = async |list: &str| {
        let listed = service.get_with(list, &admin).await;
        listed.body["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{list}: {}", listed.text)).to_owned()
    };
    let user = body["user_id"].as_str().unwrap().to_owned();
    let draft = operations().into_iter().find(|operation| operation.id == "draftPolicy").unwrap();
    // A bundle is named by what it holds: each tenant's holds something else.
    let mut files = draft.example.clone().unwrap();
    files["files"]["policy.toml"] = json!(format!("contract = 1\n# {tenant}\n"));
    let drafted = call(service, &draft, &draft.path, Some(&admin), None, Some(files)).await;
    let policy = drafted.body["id"].as_str().unwrap_or_else(|| panic!("{}", drafted.text)).to_owned();
    let access = body["access_token"].as_str().unwrap().to_owned();
    let mine = async |list: &str, member: &str| {
        let request = service.http().get(service.url(list)).bearer_auth(&access).header("x-tenant-id", tenant);
        let listed = service.send(request).await;
        listed.body[member][0]["id"].as_str().unwrap_or_else(|| panic!("{list}: {}", listed.text)).to_owned()
    };
    let client = json!({"client_id": format!("of-{tenant}"), "settings": {"providers": [provider]}});
    let client = service.post_with("/admin/clients", &admin, client).await;
    let client =
        client.body["client"]["client_id"].as_str().unwrap_or_else(|| panic!("{}", client.text)).to_owned();
    let invite = service.post_with("/admin/invitations", &admin, json!({"email": "invited@example.com"})).await;
    let identifiers = BTreeMap::from([
        ("policy_id", policy),
        ("tenant_id", tenant.to_owned()),
        ("user_id", user.clone()),
        ("session_id", first("/admin/sessions").await),
        ("sign_in_id", first("/admin/sign-ins").await),
        ("key_id", admin.split_once('.').unwrap().0.to_owned()),
        ("name", provider.to_owned()),
        ("client_id", client),
        ("identity_id", mine("/auth/me/identities", "identities").await),
        ("device_id", mine("/auth/me/devices", "devices").await),
        ("invitation_id", invite.body["id"].as_str().unwrap().to_owned()),
    ]);
    Side { tenant, user, access, refresh: body["refresh_token"].clone(), admin, identifiers }
}

/// Everything of a tenant that an operation could have changed.
async fn state_of(service: &Service, side: &Side) -> String {
    let mut state = String::new();
    for list in [
        format!("/admin/users/{}", side.user),
        "/admin/providers".to_owned(),
        "/admin/clients".to_owned(),
        "/admin/sessions".to_owned(),
        "/admin/admin-keys".to_owned(),
        "/admin/invitations".to_owned(),
        "/admin/audit".to_owned(),
    ] {
        let answer = service.get_with(&list, &side.admin).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        state.push_str(&answer.text);
    }
    state
}

#[tokio::test]
async fn a_credential_of_one_tenant_opens_nothing_in_another() {
    let World { service, own, foreign } = world().await;
    let before = state_of(&service, &foreign).await;
    for operation in operations() {
        let place = format!("{} {}", operation.method, operation.path);
        match operation.security.as_deref() {
            Some("bearer") => {
                let path = filled(&operation.path, &foreign.identifiers);
                // Where the body may hold another credential, this is about the one of the header.
                let body = operation.open.then_some(Value::Null);
                let answer = call(&service, &operation, &path, Some(&own.access), Some(foreign.tenant), body).await;
                assert_eq!(
                    (answer.status, answer.error()),
                    (401, "invalid_access_token"),
                    "{place}: {}",
                    answer.text
                );
                if operation.path.contains('{') {
                    let answer = call(&service, &operation, &path, Some(&own.access), None, None).await;
                    assert!(matches!(answer.status, 403 | 404), "{place}: {}", answer.text);
                }
            }
            Some("adminKey") => {
                let path = filled(&operation.path, &foreign.identifiers);
                let crossed = call(&service, &operation, &path, Some(&own.admin), Some(foreign.tenant), None).await;
                assert_eq!(
                    (crossed.status, crossed.error()),
                    (403, "admin_scope_insufficient"),
                    "{place}: {}",
                    crossed.text
                );
                let answer = call(&service, &operation, &path, Some(&own.access), None, None).await;
                assert_eq!(answer.error(), "invalid_admin_key", "{place}: {}", answer.text);
                if operation.path.contains('{') {
                    let answer = call(&service, &operation, &path, Some(&own.admin), None, None).await;
                    assert!(matches!(answer.status, 403 | 404), "{place}: {}", answer.text);
                }
            }
            // It may stand in the body as well: see `open_operation`.
            Some("client") => {}
            Some(other) => panic!("{place}: what is {other}? Give the matrix a row for it"),
            None => {}
        }
        if operation.open {
            open_operation(&service, &operation, &own, &foreign).await;
        }
    }
    assert_eq!(state_of(&service, &foreign).await, before);
    let refreshed = service
        .http()
        .post(service.url("/auth/refresh"))
        .header("x-tenant-id", foreign.tenant)
        .json(&json!({"refresh_token": foreign.refresh}));
    service.send(refreshed).await.signed_in();
}

async fn form(service: &Service, path: &str, tenant: &str, fields: &[(&str, &str)]) -> Answer {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    let body = body.extend_pairs(fields).finish();
    let request = service.http().post(service.url(path)).header("x-tenant-id", tenant);
    service.send(request.header("content-type", "application/x-www-form-urlencoded").body(body)).await
}

/// Operations that take their credential in the body, or none.
async fn open_operation(service: &Service, operation: &Operation, own: &Side, foreign: &Side) {
    let place = format!("{} {}", operation.method, operation.path);
    let send =
        async |body: Value| call(service, operation, &operation.path, None, Some(own.tenant), Some(body)).await;
    match operation.id.as_str() {
        "signInWithIdToken" => {
            let body = json!({"id_token": service.issuer.token().sign(), "provider": "elsewhere"});
            send(body).await.expect(404, "unknown_provider");
        }
        "refresh" => {
            send(json!({"refresh_token": foreign.refresh})).await.expect(400, "invalid_refresh_token");
        }
        "logout" => {
            // A refresh token that opens nothing is fine; the end of the test shows that it still does elsewhere.
            assert_eq!(send(json!({"refresh_token": foreign.refresh})).await.status, 200);
        }
        // Challenges have a test of their own in tests/it/mfa: a_challenge_is_bound_to_device_tenant_and_method.
        "verifyMfaChallenge" => {}
        "issueToken" | "introspectToken" | "revokeToken" => {
            let fields = [("client_id", "own-app"), ("grant_type", "refresh_token"), ("token", "x")];
            let refresh = foreign.refresh.as_str().unwrap();
            let there = form(service, &operation.path, foreign.tenant, &fields).await;
            there.expect(401, "invalid_client");
            let fields = [("client_id", "own-app"), ("grant_type", "refresh_token"), ("refresh_token", refresh)];
            let here =
                form(service, &operation.path, own.tenant, &[&fields[..], &[("token", refresh)]].concat()).await;
            // Revoking a token that opens nothing is fine; the end of the test shows that it still does elsewhere.
            assert!(matches!(here.status, 200 | 400), "{place}: {}", here.text);
            assert_eq!(here.status == 200, operation.id == "revokeToken", "{place}: {}", here.text);
        }
        "backchannelLogout" => {
            let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
            let token = service.issuer.token().header("typ", "logout+jwt").claim("events", event).sign();
            // tests/it/oauth/backchannel.rs shows that one tenant's provider ends nothing in another.
            let told = form(service, &operation.path, "third", &[("logout_token", &token)]).await;
            told.expect(404, "unknown_tenant");
        }
        "pushSecurityEvent" => {
            let token =
                service.issuer.token().header("typ", "secevent+jwt").claim("events", json!({"x": {}})).sign();
            // tests/it/oauth/security_events.rs shows that one tenant's provider ends nothing in another.
            let request = service.http().post(service.url(&operation.path)).header("x-tenant-id", "third");
            let told = service.send(request.header("content-type", "application/secevent+jwt").body(token)).await;
            told.expect(404, "unknown_tenant");
        }
        "getOpenidConfiguration" | "getServerMetadata" => {}
        // Messages with codes are bound as answers to challenges are, by the same look-up in the store.
        "sendMfaCode" => {}
        "issueNonce" | "healthLive" | "healthReady" | "metrics" | "getJwks" => {}
        other => panic!("{place}: {other} takes no credential; give the matrix a row that says why that is fine"),
    }
}

#[tokio::test]
async fn a_key_of_all_tenants_finds_nothing_of_one_tenant_in_another() {
    let World { service, own, foreign } = world().await;
    let root = service.admin_key(Role::Admin, None).await;
    for operation in operations() {
        let names_a_row = operation.path.contains('{') && operation.path != "/admin/tenants/{tenant_id}";
        if operation.security.as_deref() != Some("adminKey") || !names_a_row {
            continue;
        }
        let path = filled(&operation.path, &foreign.identifiers);
        let answer = call(&service, &operation, &path, Some(&root), Some(own.tenant), None).await;
        assert_eq!(answer.status, 404, "{} {}: {}", operation.method, operation.path, answer.text);
    }
}

#[tokio::test]
async fn a_viewer_changes_nothing_and_an_editor_neither_tenants_nor_keys_nor_plugins() {
    let World { service, foreign, .. } = world().await;
    let (viewer, editor) =
        (service.admin_key(Role::Viewer, None).await, service.admin_key(Role::Editor, None).await);
    let before = state_of(&service, &foreign).await;
    let only_admins = ["/admin/tenants", "/admin/keys", "/admin/admin-keys", "/admin/plugins"];
    for operation in operations() {
        if operation.security.as_deref() != Some("adminKey") {
            continue;
        }
        let place = format!("{} {}", operation.method, operation.path);
        let path = filled(&operation.path, &foreign.identifiers);
        let held_back = only_admins.iter().any(|p| operation.path.starts_with(p));
        let keys = operation.path.starts_with("/admin/admin-keys");
        let answer = call(&service, &operation, &path, Some(&viewer), Some(foreign.tenant), None).await;
        let refused = answer.error() == "admin_role_insufficient";
        assert_eq!(refused, operation.method != "GET" || keys, "{place} by a viewer: {}", answer.text);
        if operation.method != "GET" && held_back {
            let answer = call(&service, &operation, &path, Some(&editor), Some(foreign.tenant), None).await;
            assert_eq!(answer.error(), "admin_role_insufficient", "{place} by an editor: {}", answer.text);
        }
        let answer = call(&service, &operation, &path, None, Some(foreign.tenant), None).await;
        assert_eq!(answer.error(), "missing_admin_key", "{place}: {}", answer.text);
    }
    assert_eq!(state_of(&service, &foreign).await, before);
}
