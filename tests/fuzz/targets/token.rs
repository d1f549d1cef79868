//! The token parser accepts exactly what the oracle accepts, reads it as the oracle does, and says little of the rest.
#![no_main]

use countersign_fuzz::oracle::{base64url, check_message, strict_object};
use countersign_fuzz::signin::token::UnverifiedToken;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
const STEERING: [&str; 8] = ["crit", "b64", "zip", "cty", "jwk", "jku", "x5u", "x5c"];

fuzz_target!(|raw: &str| {
    let expected = expected(raw);
    match (UnverifiedToken::parse(raw), expected) {
        (Ok(token), Some((header, claims))) => {
            assert_eq!(header["alg"], token.algorithm().name());
            assert_eq!(header.get("kid").and_then(Value::as_str), token.unverified_kid());
            assert_eq!(claims.get("iss").and_then(Value::as_str), token.unverified_issuer());
            assert_eq!(audiences(&claims), token.unverified_audiences());
            again(raw, &token);
        }
        (Err(error), None) => check_message(&error.to_string(), raw),
        (Ok(_), None) => panic!("accepted, and should not be"),
        (Err(error), Some(_)) => panic!("refused, and should not be: {error}"),
    }
});

/// The same text is read in the same way; with anything around it, it is no token.
fn again(raw: &str, token: &UnverifiedToken) {
    let second = UnverifiedToken::parse(raw).expect("it was accepted a moment ago");
    assert_eq!(second.algorithm(), token.algorithm());
    assert_eq!(second.unverified_kid(), token.unverified_kid());
    assert_eq!(second.unverified_issuer(), token.unverified_issuer());
    assert_eq!(second.unverified_audiences(), token.unverified_audiences());
    for other in [
        format!("{raw}="),
        format!("{raw}."),
        format!("{raw}\n"),
        format!(" {raw}"),
        format!(".{raw}"),
        raw.replacen('.', "..", 1),
        raw[..raw.rfind('.').expect("three parts") + 1].to_owned(),
    ] {
        assert!(UnverifiedToken::parse(&other).is_err());
    }
}

/// Header and claims of a token that should be accepted.
fn expected(raw: &str) -> Option<(Map<String, Value>, Map<String, Value>)> {
    if raw.len() > 16 * 1024 || raw.matches('.').count() != 2 {
        return None;
    }
    let mut parts = raw.split('.').map(base64url);
    let (header, payload, signature) = (parts.next()??, parts.next()??, parts.next()??);
    let (header, claims) = (strict_object(&header)?, strict_object(&payload)?);
    let fine = ALGORITHMS.contains(&header.get("alg")?.as_str()?)
        && STEERING.iter().all(|member| !header.contains_key(*member))
        && header.get("typ").is_none_or(|typ| typ.as_str().is_some_and(|t| t.to_ascii_uppercase() == "JWT"))
        && header.get("kid").is_none_or(|kid| kid.as_str().is_some_and(|k| k.len() <= 256))
        && !signature.is_empty();
    fine.then_some((header, claims))
}

fn audiences(claims: &Map<String, Value>) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) if many.iter().all(Value::is_string) => {
            many.iter().filter_map(Value::as_str).collect()
        }
        _ => Vec::new(),
    }
}
