//! Keys that a plugin locates as PEM: certificates and public keys of every kind, and what is neither.

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::KeyPair;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::{Map, Value, json};

use super::plugin_ports::{der, spki};
use crate::support::issuer::{TestKey, shared_rsa};
use crate::support::plugins::Bench;
use crate::support::service::{Service, Setup};

const LONG_AGO: &[u8] = b"200101000000Z";
const FAR_AHEAD: &[u8] = b"491231235959Z";

fn block(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
}

/// A certificate of this key that nobody signed: who publishes it vouches for it. Times are UTCTime.
pub fn certificate(spki: &[u8], from: &[u8], until: &[u8]) -> Vec<u8> {
    let sha256_with_rsa = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00];
    let algorithm = der(0x30, &sha256_with_rsa);
    let name = der(0x30, &[]);
    let validity = der(0x30, &[der(0x17, from), der(0x17, until)].concat());
    let version = der(0xa0, &der(0x02, &[2]));
    let parts = [version, der(0x02, &[1]), algorithm.clone(), name.clone(), validity, name, spki.to_vec()];
    der(0x30, &[der(0x30, &parts.concat()), algorithm, der(0x03, &[0, 1])].concat())
}

pub fn certificate_pem(spki: &[u8]) -> String {
    block("CERTIFICATE", &certificate(spki, LONG_AGO, FAR_AHEAD))
}

/// SubjectPublicKeyInfo as the library writes it.
fn public(key: &TestKey) -> Vec<u8> {
    let der: PublicKeyX509Der<'_> = match key {
        TestKey::Rsa(pair) => pair.public_key().as_der(),
        TestKey::P256(pair) | TestKey::P384(pair) => pair.public_key().as_der(),
        TestKey::Ed25519(pair) => pair.public_key().as_der(),
    }
    .unwrap();
    der.as_ref().to_vec()
}

/// A server whose only keys are these texts of a plugin, by key id.
async fn start(texts: &Map<String, Value>) -> (Service, Bench) {
    let bench = Bench::new();
    let keys = toml::Value::try_from(json!({ "pem": texts, "ttl_s": 600 })).unwrap();
    let entry = bench.misbehaving(&format!("keys = {keys}")).hooks(&["provider.locate_keys"]);
    let bench = bench.lock(&entry.with("bind = [\"acme\"]\ndeadline_ms = 5000"));
    let setup = Setup { plugins_lock: Some(bench.write()), ..Setup::default() };
    (Service::start_with(setup).await, bench)
}

#[tokio::test]
async fn certificates_and_public_keys_of_every_kind_verify_tokens_of_their_own_key_alone() {
    let keys = [
        ("RS256", shared_rsa()),
        ("ES256", TestKey::new_p256().into()),
        ("ES384", TestKey::new_p384().into()),
        ("EdDSA", TestKey::new_ed25519().into()),
    ];
    let mut texts = Map::new();
    for (algorithm, key) in &keys {
        texts.insert(format!("key-{algorithm}"), block("PUBLIC KEY", &public(key)).into());
        texts.insert(format!("certificate-{algorithm}"), certificate_pem(&public(key)).into());
    }
    let (service, _bench) = start(&texts).await;
    for form in ["key", "certificate"] {
        for (algorithm, key) in &keys {
            // Few are asked for in a short time.
            service.clock.advance(Duration::from_secs(11));
            let kid = format!("{form}-{algorithm}");
            let token = service.issuer.token().key(algorithm, &kid, key);
            service.sign_in(&token.sign()).await.signed_in();
            let forged = token.claim("jti", "forged").with_signature(&[7; 64]);
            service.sign_in(&forged).await.expect(401, "id_token_signature_invalid");
            let (other, signer) = if *algorithm == "RS256" { ("ES256", &keys[1].1) } else { ("RS256", &keys[0].1) };
            let confused = service.issuer.token().key(other, &kid, signer).sign();
            service.sign_in(&confused).await.expect(401, "key_unfit");
        }
    }
}

#[tokio::test]
async fn a_pem_text_that_is_no_valid_certificate_or_public_key_is_no_key_and_spoils_no_other() {
    let rsa = public(&shared_rsa());
    let mut small = shared_rsa().jwk("small");
    small["n"] = BASE64URL_NOPAD.encode(&[0xff; 128]).into();
    let small = spki(&small);
    let good = block("PUBLIC KEY", &rsa);
    let (begun, ended) = (b"491230000000Z", b"200102000000Z");
    let of_another_kind = der(0x30, &[der(0x30, &[0x06, 0x03, 0x2b, 0x65, 0x6e]), der(0x03, &[0; 33])].concat());
    let garbage = [
        ("empty", String::new()),
        ("text", "no PEM at all".to_owned()),
        ("json", shared_rsa().jwk("json").to_string()),
        ("bare", BASE64.encode(&rsa)),
        ("unended", good.replace("-----END PUBLIC KEY-----", "")),
        ("two-labels", good.replace("END PUBLIC KEY", "END CERTIFICATE")),
        ("not-base64", good.replace("\nM", "\n!")),
        ("private", block("PRIVATE KEY", &rsa)),
        ("pkcs1", block("RSA PUBLIC KEY", &rsa)),
        ("key-as-certificate", block("CERTIFICATE", &rsa)),
        ("certificate-as-key", block("PUBLIC KEY", &certificate(&rsa, LONG_AGO, FAR_AHEAD))),
        ("short", block("PUBLIC KEY", &rsa[..rsa.len() - 1])),
        ("long", block("PUBLIC KEY", &[&rsa[..], &[0]].concat())),
        ("noise", block("PUBLIC KEY", &[0x5a; 294])),
        ("other-kind", block("PUBLIC KEY", &of_another_kind)),
        ("small", block("PUBLIC KEY", &small)),
        ("small-certificate", certificate_pem(&small)),
        ("not-yet", block("CERTIFICATE", &certificate(&rsa, begun, FAR_AHEAD))),
        ("expired", block("CERTIFICATE", &certificate(&rsa, LONG_AGO, ended))),
    ];
    let mut texts: Map<String, Value> =
        garbage.iter().map(|(kid, text)| ((*kid).to_owned(), json!(text))).collect();
    texts.insert("rsa-1".to_owned(), good.into());
    let (service, _bench) = start(&texts).await;
    for (kid, _) in &garbage {
        service.clock.advance(Duration::from_secs(11));
        let token = service.issuer.token().key("RS256", kid, &shared_rsa()).sign();
        let answer = service.sign_in(&token).await;
        assert_eq!((answer.status, answer.error()), (401, "unknown_key"), "{kid}: {}", answer.text);
    }
    service.clock.advance(Duration::from_secs(11));
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let bare = service.issuer.token().without_header("kid").sign();
    service.sign_in(&bare).await.signed_in();
}
