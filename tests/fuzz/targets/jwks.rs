//! A key set gives public keys of sufficient size and nothing else, and chooses one only when it is the only one.
#![no_main]

use countersign_fuzz::oracle::{base64url, check_message, strict_object};
use countersign_fuzz::signin::key::KeySet;
use countersign_fuzz::signin::provider::SignatureAlgorithm;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

fuzz_target!(|body: &[u8]| {
    let object = strict_object(body);
    let list = object.as_ref().and_then(|o| o.get("keys")).and_then(Value::as_array).filter(|l| l.len() <= 100);
    let (set, skipped, list) = match (KeySet::parse(body), list) {
        (Ok((set, skipped)), Some(list)) => (set, skipped, list),
        (Err(error), None) => return check_message(&error.to_string(), &String::from_utf8_lossy(body)),
        (Ok(_), None) => panic!("accepted, and should not be"),
        (Err(error), Some(_)) => panic!("refused, and should not be: {error}"),
    };
    assert_eq!(set.len() + skipped.len(), list.len(), "each key is usable or left out for a reason");
    assert_eq!(set.is_empty(), set.len() == 0);
    let mut usable = Vec::new();
    for (position, key) in list.iter().enumerate() {
        match skipped.iter().find(|(at, _)| *at == position) {
            Some((_, why)) => check_message(&why.to_string(), &key.to_string()),
            None => {
                let key = key.as_object().expect("a usable key is an object");
                check_usable(key);
                usable.push(key);
            }
        }
    }
    let kids = usable.iter().filter_map(|key| text(key, "kid")).map(Some).chain([None, Some("invented")]);
    for kid in kids {
        for algorithm in SignatureAlgorithm::ALL {
            let fitting = usable
                .iter()
                .filter(|key| kid.is_none_or(|kid| text(key, "kid") == Some(kid)))
                .filter(|key| family(key).contains(&algorithm.name()))
                .filter(|key| text(key, "alg").is_none_or(|only| only == algorithm.name()))
                .count();
            match set.choose(kid, algorithm) {
                Ok(key) => assert!(fitting == 1 && key.fits(algorithm), "{fitting} keys fit {algorithm}"),
                Err(error) => {
                    assert_ne!(fitting, 1, "{error}");
                    check_message(&error.to_string(), kid.unwrap_or_default());
                }
            }
        }
    }
});

fn text<'a>(key: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    key.get(name).and_then(Value::as_str)
}

/// The algorithms that a key of this type and curve can serve (RFC 7518 section 3.1, RFC 8037 section 3.1).
fn family(key: &Map<String, Value>) -> &'static [&'static str] {
    match (text(key, "kty"), text(key, "crv")) {
        (Some("RSA"), _) => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        (Some("EC"), Some("P-256")) => &["ES256"],
        (Some("EC"), Some("P-384")) => &["ES384"],
        (Some("OKP"), Some("Ed25519")) => &["EdDSA"],
        _ => &[],
    }
}

/// A public key for signatures: of a known type, without a private member, and large enough.
fn check_usable(key: &Map<String, Value>) {
    assert!(PRIVATE.iter().all(|member| !key.contains_key(*member)), "a private or symmetric key");
    assert!(key.get("use").is_none_or(|u| u == "sig"), "a key for another use");
    let operations = key.get("key_ops").map(|o| o.as_array().expect("a list").contains(&"verify".into()));
    assert_ne!(operations, Some(false), "a key for other operations");
    let family = family(key);
    assert!(!family.is_empty(), "a key of another type");
    assert!(key.get("alg").is_none_or(|a| SignatureAlgorithm::ALL.iter().any(|known| a == known.name())));
    let bytes = |name: &str| base64url(text(key, name).expect("a needed member")).expect("base64url");
    match family[0] {
        "RS256" => {
            let bits = significant_bits(&bytes("n"));
            assert!((2048..=8192).contains(&bits), "{bits} bits");
            let e = bytes("e");
            assert!(significant_bits(&e) >= 2 && e[e.len() - 1] % 2 == 1, "an exponent that is even or one");
        }
        "ES256" => assert_eq!((bytes("x").len(), bytes("y").len()), (32, 32)),
        "ES384" => assert_eq!((bytes("x").len(), bytes("y").len()), (48, 48)),
        _ => assert_eq!(bytes("x").len(), 32),
    }
}

fn significant_bits(bytes: &[u8]) -> usize {
    let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
    bytes[first..].len() * 8 - bytes.get(first).map_or(0, |b| b.leading_zeros() as usize)
}
