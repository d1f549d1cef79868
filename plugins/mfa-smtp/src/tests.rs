use countersign_plugin_sdk::abi::{CS_DECLINED, CS_INVALID, CS_REJECT, CS_TIMEOUT, CS_UNAVAILABLE};
use countersign_plugin_sdk::testkit::FakeHost;

use super::*;

fn config() -> Value {
    json!({ "host": "127.0.0.1", "port": 1, "tls": "none", "from": "Example <no-reply@example.com>", "product": "A & B" })
}

fn with(name: &str, value: Value) -> Value {
    let mut config = config();
    config[name] = value;
    config
}

fn refused(config: Value) -> String {
    FakeHost::new().secret("p", "hunter2-hunter2").create::<Smtp>(config).err().expect("refused")
}

fn templates(own: Value) -> Result<Templates, PluginError> {
    Templates::new(serde_json::from_value(own).unwrap(), "en", "A & B".to_owned())
}

fn order() -> Value {
    json!({
        "tenant": "default", "user": { "id": "usr_1", "locale": "sv" }, "method": "email",
        "destination": "ada@example.com", "delivery_id": "ZGVsaXZlcnk", "code": "123456", "expires_in_s": 300,
        "deadline_ms": 1_000
    })
}

#[test]
fn the_language_of_the_user_is_taken_then_its_parent_then_the_configured_one() {
    let templates = templates(json!({ "nl": { "subject": "x", "text": "{code} nl", "html": "{code}" } })).unwrap();
    let subject = |locale: Option<&str>| templates.render(locale, "123456", 300).subject;
    assert_eq!(subject(Some("de-AT")), "A & B: Ihr Anmeldecode");
    assert_eq!(subject(Some("SV_se")), "A & B: din inloggningskod");
    assert_eq!(subject(Some("nl-BE")), "x");
    for other in [None, Some(""), Some("xx"), Some("deutsch"), Some("{code}")] {
        assert_eq!(subject(other), "A & B: your sign-in code");
    }
}

#[test]
fn code_and_minutes_stand_in_both_parts_and_html_is_escaped() {
    for language in ["de", "en", "fr", "sv"] {
        let text = templates(json!({})).unwrap().render(Some(language), "004711", 299);
        assert!(text.text.contains("004711") && text.html.contains("004711"));
        assert!(
            text.text.contains("A & B")
                && text.html.contains("A &amp; B")
                && text.text.contains("4 Min") | text.text.contains("4 min")
        );
        assert!(!text.subject.contains("004711"));
    }
}

#[test]
fn a_template_that_hides_the_code_or_knows_other_words_is_refused() {
    for (subject, text, html) in [
        ("s", "no code", "{code}"),
        ("s", "{code}", "no code"),
        ("s", "{code} {user}", "{code}"),
        ("s", "{code} {", "{code}"),
        ("a\nBcc: x@example.com", "{code}", "{code}"),
    ] {
        let own = json!({ "nl": { "subject": subject, "text": text, "html": html } });
        let error = templates(own).err().unwrap();
        assert!(error.message().contains("config.templates.nl"), "{error}");
    }
}

#[test]
fn a_message_has_two_parts_and_the_identifier_of_its_delivery() {
    let text = templates(json!({})).unwrap().render(None, "123456", 300);
    let from: Mailbox = "Example <no-reply@example.com>".parse().unwrap();
    let message = message::build(&from, "ada@example.com".parse().unwrap(), "ZGVsaXZlcnk", text).unwrap();
    let written = String::from_utf8(message.formatted()).unwrap();
    for part in
        ["Message-ID: <ZGVsaXZlcnk@example.com>", "Auto-Submitted: auto-generated", "text/plain", "text/html"]
    {
        assert!(written.contains(part), "{part} is not in {written}");
    }
}

#[test]
fn a_configuration_that_would_send_in_the_clear_or_not_at_all_is_refused() {
    for (config, needle) in [
        (with("host", "smtp.example.com".into()), "on this machine"),
        (with("tls", "opportunistic".into()), "config"),
        (with("from", "nobody".into()), "config.from"),
        (with("user", "mailer".into()), "go together"),
        (with("password_secret", "p".into()), "go together"),
        (with("locale", "xx".into()), "config.locale"),
        (with("hosts", "x".into()), "unknown field"),
    ] {
        let message = refused(config);
        assert!(message.contains(needle) && !message.contains("hunter2"), "{message}");
    }
    let mut other_ca = with("tls", "starttls".into());
    other_ca["ca_pem"] = "no certificate".into();
    assert!(refused(other_ca).contains("config.ca_pem"));
}

#[test]
fn what_cannot_be_sent_is_told_apart() {
    let status = |host: FakeHost, order: Value| {
        let plugin = host.create::<Smtp>(config()).unwrap();
        plugin.begin(&order).unwrap_err().status
    };
    let with = |name: &str, value: Value| {
        let mut order = order();
        order[name] = value;
        order
    };
    // Nothing listens at port 1.
    assert_eq!(status(FakeHost::new(), order()), CS_UNAVAILABLE);
    assert_eq!(status(FakeHost::new().remaining_ms(10), order()), CS_TIMEOUT);
    assert_eq!(status(FakeHost::new(), with("method", "sms".into())), CS_DECLINED);
    assert_eq!(status(FakeHost::new(), with("code", Value::Null)), CS_INVALID);
    for address in ["ada", "ada@example.com\r\nRCPT TO:<eve@example.com>", "", "a@b@c"] {
        assert_eq!(status(FakeHost::new(), with("destination", address.into())), CS_REJECT, "{address}");
    }
}
