use countersign_plugin_sdk::abi::{CS_DECLINED, CS_INVALID, CS_REJECT, CS_TIMEOUT, CS_UNAVAILABLE};
use countersign_plugin_sdk::testkit::{FakeHost, Refused, TestPlugin};

use super::*;

const URL: &str = "https://hooks.example.com/codes";
/// 24 bytes.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

fn host() -> FakeHost {
    FakeHost::new().secret("one", SECRET).secret("two", OTHER)
}

fn plugin(host: &FakeHost) -> TestPlugin<Webhook> {
    host.create(json!({ "endpoints": { "*": { "url": URL, "secrets": ["one"] } } })).unwrap()
}

fn begin(plugin: &TestPlugin<Webhook>) -> Result<Value, Refused> {
    plugin.begin(&order())
}

fn order() -> Value {
    json!({
        "tenant": "default", "user": { "id": "usr_1", "locale": "sv" }, "method": "sms",
        "destination": "+46701234567", "delivery_id": "ZGVsaXZlcnk", "code": "123456", "expires_in_s": 300,
        "deadline_ms": 10_000
    })
}

fn status(host: &FakeHost) -> i32 {
    begin(&plugin(host)).unwrap_err().status
}

#[test]
fn the_signature_is_that_of_the_published_example() {
    // The example of the Standard Webhooks specification, version 1.0.0 (CC0).
    let endpoint = Endpoint { url: URL.to_owned(), keys: vec![read_key("s", SECRET.as_bytes()).unwrap()] };
    let signature = endpoint.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn a_code_is_handed_over_with_identifier_time_and_signature() {
    let host = host().answers("POST", URL, 202, r#"{"reference": "m-1"}"#);
    assert_eq!(begin(&plugin(&host)).unwrap(), json!({ "reference": "m-1" }));
    let request = host.requests().remove(0);
    let body: Value = serde_json::from_str(request.body.as_deref().unwrap()).unwrap();
    assert_eq!((&body["type"], &body["timestamp"]), (&json!("mfa.code"), &json!("2026-01-01T00:00:00Z")));
    assert_eq!((&body["data"]["code"], &body["data"]["destination"]), (&json!("123456"), &json!("+46701234567")));
    assert_eq!(request.headers["webhook-id"], "ZGVsaXZlcnk");
    assert_eq!(request.headers["idempotency-key"], "ZGVsaXZlcnk");
    assert_eq!(request.headers["webhook-timestamp"], "1767225600");
    assert!(request.headers["webhook-signature"].starts_with("v1,"));
}

#[test]
fn two_secrets_give_two_signatures() {
    let host = host().answers("POST", URL, 204, "");
    let config = json!({ "endpoints": { "default": { "url": URL, "secrets": ["one", "two"] } } });
    let plugin: TestPlugin<Webhook> = host.create(config).unwrap();
    assert_eq!(begin(&plugin).unwrap(), json!({}));
    let signatures = host.requests()[0].headers["webhook-signature"].clone();
    let signatures: Vec<&str> = signatures.split(' ').collect();
    assert!(signatures.len() == 2 && signatures[0] != signatures[1], "{signatures:?}");
}

#[test]
fn a_passing_failure_is_tried_again_with_the_same_identifier_and_body() {
    let host = host().answers("POST", URL, 503, "").answers("POST", URL, 409, "").answers("POST", URL, 200, "");
    assert_eq!(begin(&plugin(&host)).unwrap(), json!({}));
    let requests = host.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|r| r.body == requests[0].body && r.headers == requests[0].headers));
}

#[test]
fn it_is_tried_three_times_and_not_more() {
    let mut host = host();
    for _ in 0..5 {
        host = host.answers("POST", URL, 500, "");
    }
    assert_eq!(status(&host), CS_UNAVAILABLE);
    assert_eq!(host.requests().len(), 3);
}

#[test]
fn a_refusal_is_final_and_so_is_what_the_endpoint_does_not_understand() {
    for (answer, expected) in [
        (410, CS_REJECT),
        (422, CS_REJECT),
        (400, CS_UNAVAILABLE),
        (401, CS_UNAVAILABLE),
        (404, CS_UNAVAILABLE),
        (302, CS_UNAVAILABLE),
    ] {
        let host = host().answers("POST", URL, answer, "");
        assert_eq!((status(&host), host.requests().len()), (expected, 1), "{answer}");
    }
}

#[test]
fn it_stops_when_the_call_has_no_time_left_or_not_enough_to_wait() {
    let late = host().remaining_ms(50);
    assert_eq!((status(&late), late.requests().len()), (CS_TIMEOUT, 0));
    let short = host().remaining_ms(250).answers("POST", URL, 503, "");
    assert_eq!((status(&short), short.requests().len()), (CS_UNAVAILABLE, 1));
    let told_to_wait = json!([{
        "request": { "method": "POST", "url": URL },
        "response": { "status": 429, "headers": { "retry-after": "3600" } }
    }]);
    let busy = host().recording(&told_to_wait.to_string());
    assert_eq!((status(&busy), busy.requests().len()), (CS_UNAVAILABLE, 1));
}

#[test]
fn a_tenant_without_an_endpoint_is_declined_and_an_order_without_a_code_is_wrong() {
    let host = host();
    let config = json!({ "endpoints": { "acme": { "url": URL, "secrets": ["one"] } } });
    let plugin: TestPlugin<Webhook> = host.create(config).unwrap();
    assert_eq!(begin(&plugin).unwrap_err().status, CS_DECLINED);
    let mut order = order();
    order["tenant"] = "acme".into();
    order["code"] = Value::Null;
    assert_eq!(plugin.begin(&order).unwrap_err().status, CS_INVALID);
    assert!(host.requests().is_empty());
}

#[test]
fn a_configuration_that_could_not_sign_is_refused_and_no_secret_is_told() {
    let short = "whsec_c2hvcnQ=";
    let host = host().secret("short", short).secret("plain", "0123456789abcdef0123456789abcdef");
    for secrets in [json!(["short"]), json!(["plain"]), json!(["absent"]), json!([]), json!(["one", "two", "one"])]
    {
        let config = json!({ "endpoints": { "*": { "url": URL, "secrets": secrets } } });
        let message = host.create::<Webhook>(config).err().unwrap();
        assert!(message.contains("secret") && !message.contains("c2hvcnQ"), "{message}");
    }
    assert!(host.create::<Webhook>(json!({ "endpoints": {} })).is_err());
    assert!(host.create::<Webhook>(json!({ "endpoint": {} })).is_err());
}

fn push() -> Value {
    let mut order = order();
    order["method"] = "push".into();
    for absent in ["code", "destination"] {
        order.as_object_mut().unwrap().remove(absent);
    }
    order
}

fn question(code: &str) -> Value {
    json!({
        "tenant": "default", "user": { "id": "usr_1", "locale": "sv" }, "method": "push", "delivery_id": "ZGVsaXZlcnk",
        "reference": "p-1", "code": code, "deadline_ms": 10_000
    })
}

#[test]
fn a_push_is_asked_for_without_address_and_code() {
    let host = host().answers("POST", URL, 202, r#"{"reference": "p-1"}"#);
    assert_eq!(plugin(&host).begin(&push()).unwrap(), json!({ "reference": "p-1" }));
    let body: Value = serde_json::from_str(host.requests()[0].body.as_deref().unwrap()).unwrap();
    assert_eq!((&body["type"], &body["data"]["method"]), (&json!("mfa.push"), &json!("push")));
    assert!(body["data"].get("code").is_none() && body["data"].get("destination").is_none(), "{body}");
}

#[test]
fn what_came_of_a_push_is_asked_each_time_anew() {
    for (status, answer, expected) in [
        (200, r#"{"status": "approved"}"#, Ok(json!({}))),
        (200, r#"{"status": "pending"}"#, Err(CS_DECLINED)),
        (200, r#"{"status": "denied"}"#, Err(CS_REJECT)),
        (200, r#"{"status": "fine"}"#, Err(CS_UNAVAILABLE)),
        (200, "approved", Err(CS_UNAVAILABLE)),
        (404, r#"{"status": "approved"}"#, Err(CS_UNAVAILABLE)),
    ] {
        let host = host().answers("POST", URL, status, answer);
        let told = plugin(&host).verify_code(&question("42"));
        assert_eq!(told.map_err(|refused| refused.status), expected, "{answer}");
        let request = host.requests().remove(0);
        let body: Value = serde_json::from_str(request.body.as_deref().unwrap()).unwrap();
        assert_eq!(body["type"], "mfa.push_status");
        assert_eq!((&body["data"]["reference"], &body["data"]["code"]), (&json!("p-1"), &json!("42")));
        assert_ne!(request.headers["webhook-id"], "ZGVsaXZlcnk", "it is no repetition of the push");
    }
    let mut code = question("123456");
    code["method"] = "email".into();
    assert_eq!(plugin(&host()).verify_code(&code).unwrap_err().status, CS_INVALID);
}
