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

/// A mail server that answers each line, but only after a while.
fn slow_server(pause: std::time::Duration) -> u16 {
    use std::io::{BufRead, BufReader, Write};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut answer = "220 slow.example ready";
        loop {
            std::thread::sleep(pause);
            if stream.write_all(format!("{answer}\r\n").as_bytes()).is_err() {
                return;
            }
            let Some(Ok(line)) = lines.next() else { return };
            answer = if line.starts_with("DATA") { "354 go on" } else { "250 fine" };
            if answer == "354 go on" {
                std::thread::sleep(pause);
                let _ = stream.write_all(b"354 go on\r\n");
                while lines.next().is_some_and(|line| line.is_ok_and(|line| line != ".")) {}
                answer = "250 taken";
            }
        }
    });
    port
}

#[test]
fn a_slow_server_does_not_outlast_the_call() {
    let begun = std::time::Instant::now();
    // Six answers: together they take longer than there is time, though none of them does.
    let port = slow_server(std::time::Duration::from_millis(150));
    let plugin = Live::create(with("port", port.into()));
    assert_eq!(plugin.send(600), Outcome::Timeout);
    assert!(begun.elapsed() < std::time::Duration::from_millis(800), "{:?}", begun.elapsed());
    let port = slow_server(std::time::Duration::from_millis(5));
    assert_eq!(Live::create(with("port", port.into())).send(5_000), Outcome::json(json!({})));
}

/// A server with a clock that runs, unlike that of a call of the test kit.
struct Live(Smtp);

impl Live {
    fn create(config: Value) -> Self {
        let Value::Object(config) = config else { unreachable!("it is an object") };
        Self(Smtp::create(&Host::detached(), config).unwrap())
    }

    fn send(&self, total_ms: i64) -> Outcome {
        let text = templates(json!({})).unwrap().render(None, "123456", 300);
        let to = "ada@example.com".parse().unwrap();
        let message = message::build(&self.0.from, to, "ZGVsaXZlcnk", text).unwrap();
        let begun = std::time::Instant::now();
        let left = || total_ms - i64::try_from(begun.elapsed().as_millis()).unwrap();
        outcome(self.0.server.send(&message, &left))
    }
}
