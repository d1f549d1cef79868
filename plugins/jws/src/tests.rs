use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use countersign_plugin_sdk::serde_json::json;
use data_encoding::BASE64;

use super::*;

fn pair() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn token(pair: &EcdsaKeyPair, payload: &str, encode: impl Fn(&[u8]) -> String) -> String {
    let signed = format!("{}.{}", encode(br#"{"alg":"ES256"}"#), encode(payload.as_bytes()));
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", encode(signature.as_ref()))
}

fn jwk(pair: &EcdsaKeyPair) -> Value {
    let point = pair.public_key().as_ref();
    let number = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    json!({ "kty": "EC", "crv": "P-256", "x": number(&point[1..33]), "y": number(&point[33..]) })
}

#[test]
fn padding_is_read_only_where_it_is_allowed_and_the_signature_covers_it() {
    let pair = pair();
    let key = Key::es256_jwk(&jwk(&pair)).unwrap();
    let padded = token(&pair, r#"{"sub":"1"}"#, |b| BASE64URL.encode(b));
    assert!(padded.contains('='));
    assert!(Jws::split(&padded, Padding::Forbidden).is_none());
    let (_, claims) = Jws::split(&padded, Padding::Allowed).unwrap().verify(&key).unwrap();
    assert_eq!(claims["sub"], "1");
    let stripped = padded.replace('=', "");
    let fault = Jws::split(&stripped, Padding::Allowed).unwrap().verify(&key).unwrap_err();
    assert_eq!(fault, JwsFault::BadSignature);
}

#[test]
fn a_key_of_another_kind_or_size_is_no_key() {
    let good = jwk(&pair());
    for (name, value) in [
        ("kty", json!("RSA")),
        ("crv", json!("P-384")),
        ("use", json!("enc")),
        ("alg", json!("RS256")),
        ("x", json!("AAAA")),
        ("y", Value::Null),
    ] {
        let mut bad = good.clone();
        bad[name] = value;
        assert!(Key::es256_jwk(&bad).is_none(), "{bad}");
    }
    assert!(Key::hs256(&[7; 31]).is_err());
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64.encode(b"x"));
    assert!(Key::ecdsa_pem("ES256", &pem).is_none());
}

#[test]
fn what_is_no_token_is_none_and_a_payload_that_is_no_object_gives_no_claims() {
    for text in ["", ".", "..", "a.b", "e30.e30.!", "W10.e30.AA"] {
        assert!(Jws::split(text, Padding::Allowed).is_none(), "{text}");
    }
    let pair = pair();
    let key = Key::es256_jwk(&jwk(&pair)).unwrap();
    let list = token(&pair, "[1]", |b| BASE64URL_NOPAD.encode(b));
    assert_eq!(Jws::split(&list, Padding::Forbidden).unwrap().verify(&key).unwrap_err(), JwsFault::Malformed);
}

fn found(kid: &str) -> Result<Lookup, PluginError> {
    let keys = vec![(kid.to_owned(), Key::hs256(&[7; 32]).unwrap())];
    Ok(Lookup::Found { keys, ttl_s: 600 })
}

#[test]
fn a_key_is_held_for_its_time_and_an_hour_longer_while_its_source_is_away() {
    let store = KeyStore::default();
    let away = || Err(PluginError::new("away"));
    assert!(store.find("a", 0, away).is_err());
    assert!(store.find("a", 0, || found("a")).unwrap().is_some());
    assert!(store.find("a", 599, || panic!("it is held")).unwrap().is_some());
    assert!(store.find("a", 600, away).unwrap().is_some());
    assert!(store.find("a", 600 + 3600, away).is_err());
    assert!(store.find("a", 700, || Ok(Lookup::Unknown)).unwrap().is_none());
    assert!(store.find("a", 701, away).is_err(), "a key that was withdrawn is not used again");
}

#[test]
fn invented_ids_cause_few_requests_and_do_not_drive_out_what_is_held() {
    let store = KeyStore::default();
    store.find("good", 0, || found("good")).unwrap();
    let mut requests = 0;
    for n in 0..100 {
        let _ = store.find(&format!("invented-{n}"), 1, || {
            requests += 1;
            Ok(Lookup::Unknown)
        });
    }
    assert_eq!(requests, 5);
    assert!(store.find("good", 2, || panic!("it is held")).unwrap().is_some());
    assert!(store.find("new", 11, || found("new")).unwrap().is_some());
}
