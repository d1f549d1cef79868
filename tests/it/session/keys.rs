//! Signing keys and the master key: rotation by schedule and by command, several nodes, crashes.

use std::process::{Command, Output};
use std::time::Duration;

use countersign::admin::audit::Author;
use countersign::clock::Clock;
use countersign::secret::SystemEntropy;
use countersign::session::rotation::Rotate;
use serde_json::{Value, json};

use crate::support::service::{Service, Setup};

const DAY: Duration = Duration::from_secs(86_400);

fn kid(token: &Value) -> String {
    let header = token.as_str().unwrap().split('.').next().unwrap();
    let header = data_encoding::BASE64URL_NOPAD.decode(header.as_bytes()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

async fn published(service: &Service) -> Vec<String> {
    let set = service.send(service.http().get(service.url("/.well-known/jwks.json"))).await;
    let keys = set.body["keys"].as_array().unwrap().clone();
    keys.iter().map(|k| k["kid"].as_str().unwrap().to_owned()).collect()
}

async fn sign_in(service: &Service) -> Value {
    service.sign_in(&service.issuer.token().sign()).await.signed_in().clone()
}

async fn me(service: &Service, body: &Value) -> crate::support::service::Answer {
    service.get_with("/auth/me", body["access_token"].as_str().unwrap()).await
}

/// What a command tells about a store whose server may run.
fn command(service: &Service, words: &[&str]) -> Output {
    let config = service.dir.path().join("countersign.toml");
    Command::new(env!("CARGO_BIN_EXE_countersign")).args(words).arg("--config").arg(config).output().unwrap()
}

fn listed(service: &Service) -> Vec<Value> {
    let output = command(service, &["keys", "list", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn by_schedule_the_next_key_is_published_before_it_signs_and_the_old_one_kept_until_its_tokens_are_over() {
    let service = Service::start_with(Setup::tokens("rotate_signing_key_every = \"30d\"")).await;
    let keys = service.keys();
    let first = kid(&sign_in(&service).await["access_token"]);
    assert_eq!(published(&service).await, std::slice::from_ref(&first));

    service.clock.advance(29 * DAY);
    keys.look().await.unwrap();
    let both = published(&service).await;
    assert_eq!(both.len(), 2, "published a day before");
    let body = sign_in(&service).await;
    assert_eq!(kid(&body["access_token"]), first, "and does not sign yet");
    keys.look().await.unwrap();
    assert_eq!(published(&service).await, both, "one is enough");

    service.clock.advance(DAY);
    let by_second = sign_in(&service).await;
    assert_eq!(kid(&by_second["access_token"]), both[1]);
    let still = sign_in(&service).await;
    keys.look().await.unwrap();
    assert_eq!(published(&service).await, both);
    service.clock.advance(Duration::from_secs(600));
    assert_eq!(me(&service, &still).await.status, 200);

    service.clock.advance(DAY);
    keys.look().await.unwrap();
    assert_eq!(published(&service).await, [both[1].clone()]);
}

#[tokio::test]
async fn a_command_rotates_and_a_running_server_follows_without_a_restart() {
    let service = Service::start().await;
    let body = sign_in(&service).await;
    let first = kid(&body["access_token"]);
    // The command has the machine's clock, which is not the server's: only the rows count for both.
    let output = command(&service, &["keys", "rotate", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(listed(&service).len(), 2);
    service.keys().look().await.unwrap();
    let both = published(&service).await;
    assert_eq!((both.len(), both.contains(&first)), (2, true));
    assert_eq!(me(&service, &body).await.status, 200);
}

#[tokio::test]
async fn of_many_nodes_that_find_a_rotation_due_one_makes_the_key_and_all_sign_with_it() {
    let service = Service::start_with(Setup::tokens("rotate_signing_key_every = \"1d\"")).await;
    let other = service.beside(Setup::tokens("rotate_signing_key_every = \"1d\"")).await;
    service.clock.advance(DAY);
    let looks = (0..10).map(|n| if n % 2 == 0 { service.keys().look() } else { other.keys().look() });
    for look in futures_util::future::join_all(looks).await {
        look.unwrap();
    }
    service.keys().look().await.unwrap();
    other.keys().look().await.unwrap();
    let here = published(&service).await;
    assert_eq!((here.len(), published(&other).await), (2, here.clone()));
    service.clock.advance(DAY / 2);
    let (one, two) = (sign_in(&service).await, sign_in(&other).await);
    assert_eq!(kid(&one["access_token"]), here[1]);
    assert_eq!(kid(&two["access_token"]), here[1]);
    assert_eq!(me(&other, &one).await.status, 200);
    assert_eq!(me(&service, &two).await.status, 200);
}

#[tokio::test]
async fn a_compromised_key_opens_nothing_any_more_and_sessions_go_on_with_the_new_one() {
    let service = Service::start().await;
    let body = sign_in(&service).await;
    let author = Author::command_line(None, service.clock.now(), &SystemEntropy);
    let info = service.keys().rotate(Rotate::Compromised, &author).await.unwrap();
    me(&service, &body).await.expect(401, "invalid_access_token");
    let again = service.post("/auth/refresh", json!({"refresh_token": body["refresh_token"]})).await;
    assert_eq!(kid(&again.signed_in()["access_token"]), info.id.to_string());
    assert_eq!(published(&service).await, [info.id.to_string()]);
    assert_eq!(me(&service, &again.body).await.status, 200);
}

#[tokio::test]
async fn of_rotations_in_one_millisecond_the_last_one_counts() {
    let service = Service::start().await;
    let author = Author::command_line(None, service.clock.now(), &SystemEntropy);
    for _ in 0..12 {
        let info = service.keys().rotate(Rotate::Now, &author).await.unwrap();
        assert_eq!(info.state.as_str(), "active");
        assert_eq!(kid(&sign_in(&service).await["access_token"]), info.id.to_string());
        assert_eq!(published(&service).await.len(), service.keys().list().await.unwrap().len());
    }
    let active = service.keys().list().await.unwrap().into_iter().filter(|key| key.state.as_str() == "active");
    assert_eq!(active.count(), 1);
}

#[tokio::test]
async fn another_algorithm_in_the_configuration_comes_with_a_key_that_is_published_first() {
    let service = Service::start().await;
    let first = sign_in(&service).await;
    let service = service.restart(Setup::tokens("signing_algorithm = \"ES256\"")).await;
    let still = sign_in(&service).await;
    assert_eq!(kid(&still["access_token"]), kid(&first["access_token"]));
    service.clock.advance(Duration::from_secs(600));
    let body = sign_in(&service).await;
    assert_ne!(kid(&body["access_token"]), kid(&first["access_token"]));
    for body in [&first, &body] {
        assert_eq!(me(&service, body).await.status, 200);
    }
}

#[tokio::test]
async fn the_master_key_is_changed_with_everything_that_it_seals_and_not_while_a_server_runs() {
    let service = Service::start().await;
    let body = sign_in(&service).await;
    let enrolment = service.post_with("/auth/me/mfa/totp", body["access_token"].as_str().unwrap(), json!({})).await;
    assert_eq!(enrolment.status, 200, "{}", enrolment.text);
    let refused = command(&service, &["keys", "rotate-master"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop it first"));

    let service = service.stop().await;
    let file = service.dir.path().join("keys/master.key");
    let before = std::fs::read(&file).unwrap();
    let changed = command(&service, &["keys", "rotate-master"]);
    assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
    assert_ne!(std::fs::read(&file).unwrap(), before);
    assert!(!service.dir.path().join("keys/master.key.next").exists());

    let service = service.start_again(Setup::default()).await;
    assert_eq!(me(&service, &body).await.status, 200);
    let code = totp(enrolment.body["secret"].as_str().unwrap(), service.clock.now_s());
    let confirm = json!({"factor_id": enrolment.body["factor_id"], "code": code});
    let confirmed = service.post_with("/auth/me/mfa/totp/confirm", body["access_token"].as_str().unwrap(), confirm);
    assert_eq!(confirmed.await.status, 200);
}

#[tokio::test]
async fn a_change_of_the_master_key_that_was_broken_off_is_finished_or_taken_back_at_the_next_start() {
    let service = Service::start().await;
    let body = sign_in(&service).await;
    let (file, next) = ("keys/master.key", "keys/master.key.next");
    let service = service.stop().await;
    let (file, next) = (service.dir.path().join(file), service.dir.path().join(next));
    let old = std::fs::read(&file).unwrap();

    // Before the transaction: the next key is there, and nothing is sealed with it.
    std::fs::copy(&file, &next).unwrap();
    std::fs::write(&next, data_encoding::BASE64.encode(&[9; 32])).unwrap();
    let service = service.start_again(Setup::default()).await;
    assert_eq!(me(&service, &body).await.status, 200);
    assert!(!next.exists());
    assert_eq!(std::fs::read(&file).unwrap(), old);

    // After the transaction, before the rename: everything is sealed with the next key.
    let service = service.stop().await;
    assert!(command(&service, &["keys", "rotate-master"]).status.success());
    let new = std::fs::read(&file).unwrap();
    std::fs::rename(&file, &next).unwrap();
    std::fs::copy(&next, &file).unwrap();
    std::fs::write(&file, &old).unwrap();
    let service = service.start_again(Setup::default()).await;
    assert_eq!(me(&service, &body).await.status, 200);
    assert!(!next.exists());
    assert_eq!(std::fs::read(&file).unwrap(), new);
}

fn totp(secret: &str, now_s: i64) -> String {
    let secret = data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    countersign::mfa::totp::code_at(
        &countersign::secret::Secret::new(secret),
        countersign::clock::UnixTime::from_secs(now_s),
    )
    .unwrap()
}
