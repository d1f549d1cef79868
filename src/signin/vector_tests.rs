//! Test vectors of others (`tests/vectors/README.md`) through parser, key set and signature check.
//!
//! A vector that is valid must pass and an invalid one must not, whatever refuses it. Valid vectors of what is
//! deliberately not accepted (symmetric algorithms, ES512, a key published for another algorithm) are named, and
//! all counts are asserted, so that nothing is passed over in silence.

use std::collections::BTreeMap;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};

use super::key::KeySet;
use super::provider::SignatureAlgorithm;
use super::token::{TokenShapeError, UnverifiedToken};

/// Whether a JWS of this text passes the signature step with these keys, and else what stopped it.
///
/// The vectors sign any text, ID tokens are JSON objects. So the payload is looked at for its encoding alone, and
/// the parser sees the true header and signature around an empty object.
fn signature_step(keys: &KeySet, jws: &str) -> Result<(), String> {
    match UnverifiedToken::parse(jws) {
        Ok(_) | Err(TokenShapeError::Json { part: "payload", .. }) => {}
        Err(other) => return Err(other.to_string()),
    }
    let (message, signature) = jws.rsplit_once('.').expect("the parser saw three parts");
    let (header, payload) = message.split_once('.').expect("the parser saw three parts");
    BASE64URL_NOPAD.decode(payload.as_bytes()).expect("the parser read the payload's bytes");
    let token = UnverifiedToken::parse(&format!("{header}.e30.{signature}")).map_err(|e| e.to_string())?;
    let key = keys.choose(token.unverified_kid(), token.algorithm()).map_err(|e| e.to_string())?;
    if key.verifies(token.algorithm(), message.as_bytes(), signature) {
        Ok(())
    } else {
        Err("signature".to_owned())
    }
}

fn key_set(keys: &Value) -> KeySet {
    let document = if keys["keys"].is_array() { keys.clone() } else { json!({ "keys": [keys] }) };
    KeySet::parse(document.to_string().as_bytes()).expect("a key set").0
}

/// The outcome of a whole file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    valid_accepted: usize,
    invalid_refused: usize,
    /// Valid and refused, by the reason.
    not_supported: BTreeMap<&'static str, Vec<u64>>,
}

fn run(file: &str) -> Tally {
    let file: Value = serde_json::from_str(file).expect("JSON");
    let (mut tally, mut seen) = (Tally::default(), 0);
    for group in file["testGroups"].as_array().expect("groups") {
        // Keys of symmetric algorithms stand under `private` alone: also with them nothing is accepted.
        let published = if group["public"].is_object() { &group["public"] } else { &group["private"] };
        let keys = key_set(published);
        for test in group["tests"].as_array().expect("tests") {
            seen += 1;
            let id = test["tcId"].as_u64().expect("an id");
            let outcome = signature_step(&keys, test["jws"].as_str().expect("a text"));
            match (test["result"].as_str().expect("a result"), &outcome) {
                ("valid", Ok(())) => tally.valid_accepted += 1,
                ("invalid", Err(_)) => tally.invalid_refused += 1,
                ("valid", Err(why)) => {
                    let reason = not_supported(published, test["jws"].as_str().unwrap_or_default());
                    let reason = reason.unwrap_or_else(|| panic!("{id} is valid and was refused: {why}"));
                    tally.not_supported.entry(reason).or_default().push(id);
                }
                (result, _) => panic!("{id} is {result} and was accepted"),
            }
        }
    }
    assert_eq!(file["numberOfTests"], seen);
    tally
}

/// Why a valid vector is refused on purpose.
fn not_supported(keys: &Value, jws: &str) -> Option<&'static str> {
    let header = BASE64URL_NOPAD.decode(jws.split('.').next()?.as_bytes()).unwrap_or_default();
    let header: Value = serde_json::from_slice(&header).unwrap_or_default();
    match header["alg"].as_str() {
        Some("ES512") => Some("ES512"),
        Some("PS384") if keys["alg"] == "PS256" => Some("the key is published for another algorithm"),
        // Two vectors have a header that is no base64url at all.
        Some("HS256" | "HS384" | "HS512") | None if is_symmetric(keys) => Some("symmetric"),
        _ => None,
    }
}

fn is_symmetric(keys: &Value) -> bool {
    let one = |key: &Value| key["kty"] == "oct";
    keys["keys"].as_array().map_or_else(|| one(keys), |all| all.iter().all(one))
}

#[test]
fn wycheproof_json_web_signatures_are_accepted_and_refused_as_they_should() {
    let tally = run(include_str!("../../tests/vectors/json_web_signature_test.json"));
    let symmetric = vec![1, 348, 352, 357, 358, 359, 372, 373, 376, 377];
    let expected = BTreeMap::from([
        ("ES512", vec![347, 351]),
        ("symmetric", symmetric),
        ("the key is published for another algorithm", vec![346, 350]),
    ]);
    assert_eq!(tally.not_supported, expected);
    assert_eq!((tally.valid_accepted, tally.invalid_refused), (32, 355));
}

#[test]
fn wycheproof_json_web_keys_that_are_unfit_verify_nothing() {
    let tally = run(include_str!("../../tests/vectors/json_web_key_test.json"));
    assert_eq!(tally.not_supported, BTreeMap::from([("symmetric", vec![2, 13, 14, 15])]));
    assert_eq!((tally.valid_accepted, tally.invalid_refused), (1, 21));
}

#[test]
fn the_examples_of_the_rfcs_verify_and_break_with_any_flipped_bit() {
    let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/rfc.json")).expect("JSON");
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for vector in vectors.as_array().expect("a list") {
        let text = |name: &str| vector[name].as_str().unwrap_or_default();
        let keys = key_set(&vector["jwk"]);
        let outcome = signature_step(&keys, text("jws"));
        assert_eq!(outcome.is_err(), vector["refused"].is_string(), "{}: {outcome:?}", text("source"));
        if outcome.is_err() {
            refused.push((text("source"), text("refused")));
            continue;
        }
        accepted.push(text("source"));
        let (message, signature) = text("jws").rsplit_once('.').expect("three parts");
        let (header, payload) = message.split_once('.').expect("three parts");
        for (part, name) in [(header, "header"), (payload, "payload"), (signature, "signature")] {
            let bytes = BASE64URL_NOPAD.decode(part.as_bytes()).expect("base64url");
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 1 << (at % 8);
                let other = BASE64URL_NOPAD.encode(&other);
                let jws = match name {
                    "header" => format!("{other}.{payload}.{signature}"),
                    "payload" => format!("{header}.{other}.{signature}"),
                    _ => format!("{message}.{other}"),
                };
                assert!(signature_step(&keys, &jws).is_err(), "{}: byte {at} of the {name}", text("source"));
            }
        }
    }
    assert_eq!(accepted, ["RFC 7515 A.2", "RFC 7515 A.3", "RFC 7520 4.1", "RFC 7520 4.2", "RFC 8037 A.4"]);
    let expected = [
        ("RFC 7515 A.1", "HS256"),
        ("RFC 7515 A.4", "ES512"),
        ("RFC 7515 A.5", "none"),
        ("RFC 7520 4.3", "ES512"),
        ("RFC 7520 4.4", "HS256"),
    ];
    assert_eq!(refused, expected);
}

/// The signature step under the forms of RFC 7518 section 3.4 and RFC 8037 section 3.1, without a token around it: the
/// files for JSON Web Signature have no Ed25519 and little ECDSA. Gives how many were accepted and refused.
fn run_raw(file: &str, algorithm: SignatureAlgorithm) -> (usize, usize) {
    let file: Value = serde_json::from_str(file).expect("JSON");
    let hex = |value: &Value| HEXLOWER.decode(value.as_str().expect("hex").as_bytes()).expect("hex");
    let (mut accepted, mut refused) = (0, 0);
    for group in file["testGroups"].as_array().expect("groups") {
        let public = &group["publicKey"];
        let jwk = match algorithm {
            SignatureAlgorithm::EdDsa => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64URL_NOPAD.encode(&hex(&public["pk"]))})
            }
            _ => {
                let point = hex(&public["uncompressed"]);
                let (x, y) = point[1..].split_at(point.len() / 2);
                let curve = if algorithm == SignatureAlgorithm::Es256 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "x": BASE64URL_NOPAD.encode(x), "y": BASE64URL_NOPAD.encode(y)})
            }
        };
        let key = key_set(&jwk).choose(None, algorithm).expect("a usable key");
        for test in group["tests"].as_array().expect("tests") {
            let verified = key.verifies(algorithm, &hex(&test["msg"]), &BASE64URL_NOPAD.encode(&hex(&test["sig"])));
            assert_eq!(verified, test["result"] == "valid", "{}: {}", test["tcId"], test["comment"]);
            *if verified { &mut accepted } else { &mut refused } += 1;
        }
    }
    assert_eq!(file["numberOfTests"], accepted + refused);
    (accepted, refused)
}

#[test]
fn wycheproof_signatures_of_ed25519_and_both_curves_are_accepted_and_refused_as_they_should() {
    let ed25519 = include_str!("../../tests/vectors/ed25519_test.json");
    assert_eq!(run_raw(ed25519, SignatureAlgorithm::EdDsa), (88, 63));
    let p256 = include_str!("../../tests/vectors/ecdsa_secp256r1_sha256_p1363_test.json");
    assert_eq!(run_raw(p256, SignatureAlgorithm::Es256), (173, 89));
    let p384 = include_str!("../../tests/vectors/ecdsa_secp384r1_sha384_p1363_test.json");
    assert_eq!(run_raw(p384, SignatureAlgorithm::Es384), (193, 87));
}
