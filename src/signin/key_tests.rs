//! Which keys of a set are read, and which one a token gets.

use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::key::{KeySet, UnusableKey};
use super::ports::KeyError;
use super::provider::SignatureAlgorithm as A;

fn b64(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

fn rsa() -> Value {
    let public = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let modulus = public.public_key().modulus().big_endian_without_leading_zero().to_vec();
    json!({"kty": "RSA", "kid": "r", "n": b64(&modulus), "e": "AQAB"})
}

fn ed25519() -> Value {
    let pair = Ed25519KeyPair::generate().expect("a key");
    json!({"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": b64(pair.public_key().as_ref())})
}

fn p256() -> Value {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let point = pair.public_key().as_ref();
    json!({"kty": "EC", "crv": "P-256", "kid": "p", "x": b64(&point[1..33]), "y": b64(&point[33..])})
}

fn with(mut key: Value, member: &str, value: impl Into<Value>) -> Value {
    key[member] = value.into();
    key
}

fn set(keys: &[Value]) -> (KeySet, Vec<(usize, UnusableKey)>) {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).expect("a key set")
}

fn left_out(key: Value) -> Option<UnusableKey> {
    let shown = key.to_string();
    let (keys, mut skipped) = set(&[key]);
    assert_eq!(keys.len() + skipped.len(), 1, "{shown}");
    skipped.pop().map(|(_, why)| why)
}

/// A number of so many bits, all of them set.
fn modulus(bits: usize) -> String {
    let mut bytes = vec![0xff; bits.div_ceil(8)];
    bytes[0] >>= bytes.len() * 8 - bits;
    b64(&bytes)
}

#[test]
fn rsa_moduli_are_2048_to_8192_bits_and_odd() {
    for (bits, fits) in [(512, false), (1024, false), (2047, false), (2048, true), (8192, true), (8193, false)] {
        let why = left_out(with(rsa(), "n", modulus(bits)));
        assert_eq!(why, (!fits).then_some(UnusableKey::Size { bits }), "{bits}");
    }
    let mut even = vec![0xff; 256];
    even[255] = 0xfe;
    assert_eq!(left_out(with(rsa(), "n", b64(&even))), Some(UnusableKey::Malformed("n")));
    for empty in ["", "AAAA"] {
        assert_eq!(left_out(with(rsa(), "n", empty)), Some(UnusableKey::Size { bits: 0 }));
    }
}

#[test]
fn leading_zeros_of_an_rsa_key_change_nothing() {
    let plain = rsa();
    let bytes = BASE64URL_NOPAD.decode(plain["n"].as_str().expect("a text").as_bytes()).expect("base64url");
    let padded = with(with(plain.clone(), "n", b64(&[&[0, 0], &bytes[..]].concat())), "e", b64(&[0, 1, 0, 1]));
    let (keys, skipped) = set(&[plain, padded]);
    assert_eq!((keys.len(), skipped), (1, vec![(1, UnusableKey::Repeated)]));
    let short = [&[0u8; 200][..], &[0xff; 128]].concat();
    assert_eq!(left_out(with(rsa(), "n", b64(&short))), Some(UnusableKey::Size { bits: 1024 }));
}

#[test]
fn absurd_exponents_are_refused() {
    let two_to_33_less_one = b64(&[1, 0xff, 0xff, 0xff, 0xff]);
    for fine in [b64(&[3]), b64(&[17]), b64(&[1, 0, 1]), two_to_33_less_one] {
        assert_eq!(left_out(with(rsa(), "e", fine.as_str())), None, "{fine}");
    }
    let odd_256_bytes = b64(&[0xff; 256]);
    for absurd in [
        b64(&[]),
        b64(&[0]),
        b64(&[1]),
        b64(&[0, 0, 1]),
        b64(&[2]),
        b64(&[1, 0, 0]),
        b64(&[2, 0, 0, 0, 1]),
        odd_256_bytes,
    ] {
        assert_eq!(left_out(with(rsa(), "e", absurd.as_str())), Some(UnusableKey::Malformed("e")), "{absurd}");
    }
    assert_eq!(left_out(with(rsa(), "e", 65537)), Some(UnusableKey::Malformed("e")));
}

#[test]
fn a_key_with_any_private_member_is_refused() {
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        for key in [rsa(), p256(), ed25519()] {
            assert_eq!(left_out(with(key, member, "AQAB")), Some(UnusableKey::NotPublic), "{member}");
        }
    }
    assert_eq!(left_out(json!({"kty": "oct", "kid": "s", "k": "c2VjcmV0"})), Some(UnusableKey::NotPublic));
    assert_eq!(left_out(json!({"kty": "oct", "kid": "s"})), Some(UnusableKey::Unsupported));
}

#[test]
fn a_key_for_another_use_or_another_algorithm_is_refused() {
    for (member, value, why) in [
        ("use", json!("enc"), UnusableKey::OtherUse),
        ("use", json!(["sig"]), UnusableKey::Malformed("use")),
        ("key_ops", json!(["sign"]), UnusableKey::OtherUse),
        ("key_ops", json!([]), UnusableKey::OtherUse),
        ("key_ops", json!("verify"), UnusableKey::Malformed("key_ops")),
        ("key_ops", json!(["verify", "verify"]), UnusableKey::Malformed("key_ops")),
        ("alg", json!("RSA-OAEP"), UnusableKey::OtherUse),
        ("alg", json!("HS256"), UnusableKey::OtherUse),
        ("alg", json!("none"), UnusableKey::OtherUse),
        ("alg", json!("ES256"), UnusableKey::Malformed("alg")),
        ("alg", json!("EdDSA"), UnusableKey::Malformed("alg")),
        ("alg", json!(256), UnusableKey::Malformed("alg")),
        ("kid", json!(7), UnusableKey::Malformed("kid")),
        ("issuer", json!(["https://a.example"]), UnusableKey::Malformed("issuer")),
        ("issuer", json!(null), UnusableKey::Malformed("issuer")),
    ] {
        assert_eq!(left_out(with(rsa(), member, value.clone())), Some(why), "{member} {value}");
    }
    for (member, value) in [("use", json!("sig")), ("key_ops", json!(["verify"])), ("alg", json!("PS384"))] {
        assert_eq!(left_out(with(rsa(), member, value)), None, "{member}");
    }
    assert_eq!(left_out(with(p256(), "alg", "ES384")), Some(UnusableKey::Malformed("alg")));
}

#[test]
fn certificates_beside_a_key_are_passed_over() {
    let key = with(with(rsa(), "x5c", json!(["not a certificate"])), "x5u", "https://evil.example/cert");
    assert_eq!(left_out(with(key, "x5t", "AAAA")), None);
}

#[test]
fn a_point_off_its_curve_and_a_coordinate_of_another_length_are_refused() {
    let honest = p256();
    let swapped = with(with(honest.clone(), "x", honest["y"].clone()), "y", honest["x"].clone());
    assert_eq!(left_out(swapped), Some(UnusableKey::Malformed("x")));
    assert_eq!(left_out(with(p256(), "x", b64(&[0; 32]))), Some(UnusableKey::Malformed("x")));
    for size in [0, 31, 33, 64] {
        assert_eq!(left_out(with(p256(), "x", b64(&vec![1; size]))), Some(UnusableKey::Malformed("x")), "{size}");
        assert_eq!(left_out(with(p256(), "y", b64(&vec![1; size]))), Some(UnusableKey::Malformed("y")), "{size}");
        assert_eq!(
            left_out(with(ed25519(), "x", b64(&vec![1; size]))),
            Some(UnusableKey::Malformed("x")),
            "{size}"
        );
    }
    assert_eq!(left_out(with(ed25519(), "x", "not base64!")), Some(UnusableKey::Malformed("x")));
    for (key, curve) in [(p256(), "P-521"), (p256(), "secp256k1"), (ed25519(), "X25519"), (ed25519(), "Ed448")] {
        assert_eq!(left_out(with(key, "crv", curve)), Some(UnusableKey::Unsupported), "{curve}");
    }
}

#[test]
fn two_keys_with_one_id_are_told_apart_by_their_algorithm_or_not_at_all() {
    let (keys, _) = set(&[with(rsa(), "kid", "k"), with(ed25519(), "kid", "k")]);
    assert!(keys.choose(Some("k"), A::Rs256).is_ok());
    assert!(keys.choose(Some("k"), A::EdDsa).is_ok());
    assert!(matches!(keys.choose(Some("k"), A::Es256), Err(KeyError::Unfit { .. })));
    let (keys, _) = set(&[ed25519(), ed25519()]);
    assert!(matches!(keys.choose(Some("e"), A::EdDsa), Err(KeyError::Ambiguous { fitting: 2 })));
    let twin = ed25519();
    let (keys, skipped) = set(&[twin.clone(), with(twin, "use", "sig")]);
    assert_eq!((keys.len(), skipped.len()), (1, 1));
    assert!(keys.choose(Some("e"), A::EdDsa).is_ok(), "the same key twice is one key");
}

#[test]
fn without_an_id_exactly_one_key_must_fit() {
    let (keys, _) = set(&[rsa(), p256(), ed25519()]);
    for algorithm in [A::Rs256, A::Es256, A::EdDsa] {
        assert!(keys.choose(None, algorithm).is_ok(), "{algorithm}");
    }
    assert!(matches!(keys.choose(None, A::Es384), Err(KeyError::NoKeyId { fitting: 0 })));
    let (keys, _) = set(&[rsa(), with(rsa(), "kid", "other")]);
    assert!(matches!(keys.choose(None, A::Rs256), Err(KeyError::NoKeyId { fitting: 2 })));
    assert!(matches!(keys.choose(Some(""), A::Rs256), Err(KeyError::UnknownKey)));
}

#[test]
fn a_key_that_names_its_issuer_is_for_that_issuer_alone() {
    const TEMPLATE: &str = "https://a.example/{tenantid}/v2.0";
    const T1: &str = "https://a.example/t1/v2.0";
    for (named, issuer, tid, fits) in [
        (None, T1, None, true),
        (Some(T1), T1, None, true),
        (Some(T1), T1, Some("t2"), true),
        (Some(T1), "https://a.example/t2/v2.0", Some("t2"), false),
        (Some(T1), "https://a.example/t1/v2.0/", None, false),
        (Some(T1), "HTTPS://a.example/t1/v2.0", None, false),
        (Some(""), T1, Some("t1"), false),
        (Some(TEMPLATE), T1, Some("t1"), true),
        (Some(TEMPLATE), T1, Some("t2"), false),
        (Some(TEMPLATE), T1, None, false),
        (Some(TEMPLATE), TEMPLATE, None, false),
        (Some(TEMPLATE), "https://b.example/t1/v2.0", Some("t1"), false),
        (Some(TEMPLATE), "https://a.example/t1", Some("t1"), false),
    ] {
        let key = named.map_or_else(ed25519, |named| with(ed25519(), "issuer", named));
        let chosen = set(&[key]).0.choose(Some("e"), A::EdDsa).expect("a usable key");
        assert_eq!(chosen.is_for(issuer, tid), fits, "{named:?} {issuer} {tid:?}");
    }
    let twin = ed25519();
    let (keys, skipped) = set(&[with(twin.clone(), "issuer", T1), with(twin, "issuer", TEMPLATE)]);
    assert_eq!((keys.len(), skipped.len()), (2, 0));
    assert!(matches!(keys.choose(Some("e"), A::EdDsa), Err(KeyError::Ambiguous { fitting: 2 })));
}
