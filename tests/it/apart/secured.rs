//! As in production: nothing is fetched without TLS, and loopback by grant alone; several plugins in one lock file.

use std::sync::Arc;

use data_encoding::BASE64;
use serde_json::json;
use tempfile::TempDir;

use super::{APART, start};
use crate::sign_in::mfa_webhook::{KEY, Receiver, is_signed};
use crate::sign_in::plugin_ports::DEMAND;
use crate::sign_in::provider_plugins::Publisher;
use crate::support::issuer::TestKey;
use crate::support::plugins::{Bench, HEADER_TOKEN, MFA_WEBHOOK};
use crate::support::service::Setup;
use crate::support::tls::Tls;

const ISSUER: &str = "https://idp.example";

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_pushes_go_over_tls_and_to_loopback_by_grant_alone() {
    let tls = Tls::new();
    let key = Arc::new(TestKey::new_p256());
    let publisher = Publisher::start(json!({ "keys": [key.jwk("iap-1")] }).to_string()).await;
    let receiver = Receiver::default();
    let (keys_url, codes_url) =
        (tls.before(&publisher.url).await, tls.before(&receiver.clone().start().await).await);
    for (networks, is_granted) in [("", false), (", networks = [\"127.0.0.0/8\"]", true)] {
        let bench = Bench::new();
        let trusted = bench.path("trusted.pem");
        std::fs::write(&trusted, &tls.certificate_pem).unwrap();
        bench.secret("mfa_webhook", &format!("whsec_{}", BASE64.encode(KEY)));
        let header = bench.rust(HEADER_TOKEN, "countersign.header_token").hooks(&["provider.locate_keys"]);
        let header = header.with("bind = [\"iap\"]\ndeadline_ms = 10000").with(APART);
        let header = header.with(&format!("grants = {{ http = [\"127.0.0.1\"]{networks} }}"));
        let header = header.with(&format!("config = {{ kind = \"google_iap\", keys_url = \"{keys_url}\" }}"));
        let push = bench.rust(MFA_WEBHOOK, "countersign.mfa_webhook").hooks(&["mfa.begin", "mfa.verify"]);
        let push = push.with("method = \"push\"\ndeadline_ms = 10000").with(APART);
        let push =
            push.with(&format!("grants = {{ http = [\"127.0.0.1\"], secrets = [\"mfa_webhook\"]{networks} }}"));
        let push = push.with(&format!(
            "config = {{ endpoints = {{ default = {{ url = \"{codes_url}\", secrets = [\"mfa_webhook\"] }} }} }}"
        ));
        let policies = TempDir::new().unwrap();
        let mut setup = Setup::with_policies(policies.path(), &[("risk/_default.rhai", DEMAND)]);
        setup.trusted = Some(trusted);
        setup.more_config = format!(
            "[[providers]]\ntenant = \"default\"\nname = \"iap\"\nissuer = \"{ISSUER}\"\nclient_ids = [\"app\"]\nalgorithms = [\"ES256\"]\n"
        );
        let (program, _bench) = start(bench.lock(&header), &push, setup).await;
        let sign_in = async || {
            let token = program.issuer.token().claim("iss", ISSUER).claim("aud", "app");
            program.sign_in_by("iap", &token.key("ES256", "iap-1", &key).sign()).await
        };
        if !is_granted {
            sign_in().await.expect(503, "provider_unavailable");
            continue;
        }
        sign_in().await.signed_in();
        let challenged = sign_in().await;
        let challenge = &challenged.challenged()["challenge_token"];
        let body = json!({"challenge_token": challenge, "mfa_method": "push", "code": ""});
        assert_eq!(program.post("/auth/mfa/challenge", body.clone()).await.status, 200);
        receiver.answers.lock().unwrap().push_back(json!({"status": "approved"}).to_string());
        program.post("/auth/mfa/verify-challenge", body).await.signed_in();
        let received = receiver.received();
        assert!(received.len() == 2 && received.iter().all(is_signed));
        assert_eq!(program.children().len(), 2, "one for each");
    }
}
