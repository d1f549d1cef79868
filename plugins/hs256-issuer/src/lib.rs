//! Verifies ID tokens that an issuer signs with a shared secret (HMAC with SHA-256, RFC 7518 section 3.2).
//! The server itself takes no symmetric algorithm: whoever can check such a token can also make one.
//!
//! ```toml
//! hooks = ["provider.verify"]
//! bind = ["legacy"]
//! grants = { secrets = ["legacy_hs256"] }
//! config = { secret = "legacy_hs256" }      # 32 bytes at least
//! ```
//!
//! A token of another algorithm is declined. Issuer, audience, times and nonce are checked by the server.

use aws_lc_rs::hmac;
use countersign_plugin_sdk::serde_json::{self, Value};
use countersign_plugin_sdk::{
    Call, Config, Host, Object, Outcome, Plugin, PluginError, Verified, Verifier, VerifyRequest, export,
};
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;

/// RFC 7518 section 3.2: a key of at least the size of the hash.
const SHORTEST_SECRET_BYTES: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    secret: String,
}

struct Hs256 {
    key: hmac::Key,
}

impl Plugin for Hs256 {
    fn create(host: &Host, config: Config) -> Result<Self, PluginError> {
        let settings: Settings =
            serde_json::from_value(Value::Object(config)).map_err(|e| PluginError::new(format!("config: {e}")))?;
        let secret = host.secret(&settings.secret)?;
        if secret.len() < SHORTEST_SECRET_BYTES {
            return Err(PluginError::new(format!("secret {} has fewer than 32 bytes", settings.secret)));
        }
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret) })
    }
}

fn object(part: &str) -> Option<Object> {
    serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).ok()?).ok()
}

impl Verifier for Hs256 {
    fn verify(&self, _call: &Call<'_>, request: VerifyRequest) -> Outcome {
        let Some((signed, signature)) = request.token.rsplit_once('.') else { return Outcome::Declined };
        let Some((header, payload)) = signed.split_once('.') else { return Outcome::Declined };
        let Some(header) = object(header) else { return Outcome::Declined };
        if header.get("alg").and_then(Value::as_str) != Some("HS256") {
            return Outcome::Declined;
        }
        if header.contains_key("crit") {
            return Outcome::Reject("critical_header".to_owned());
        }
        let Ok(signature) = BASE64URL_NOPAD.decode(signature.as_bytes()) else {
            return Outcome::Reject("malformed".to_owned());
        };
        // In constant time.
        if hmac::verify(&self.key, signed.as_bytes(), &signature).is_err() {
            return Outcome::Reject("bad_signature".to_owned());
        }
        match object(payload) {
            Some(claims) => Outcome::json(Verified { alg: "HS256".to_owned(), claims }),
            None => Outcome::Reject("malformed".to_owned()),
        }
    }
}

export!(
    Hs256: [verifier],
    id = "countersign.hs256_issuer",
    vendor = "Countersign",
    requests = { secrets = ["hs256_secret"] }
);

#[cfg(test)]
mod tests {
    use countersign_plugin_sdk::abi::{CS_DECLINED, CS_REJECT};
    use countersign_plugin_sdk::serde_json::json;
    use countersign_plugin_sdk::testkit::{FakeHost, Refused, TestPlugin};

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn plugin() -> TestPlugin<Hs256> {
        FakeHost::new().secret("s", SECRET).create(json!({ "secret": "s" })).unwrap()
    }

    fn token(header: Value, secret: &str) -> String {
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", encode(&header), encode(&json!({ "sub": "s-1" })));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
        format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
    }

    fn verify(token: &str) -> Result<Value, Refused> {
        plugin().verify(&json!({
            "tenant": "default", "provider": { "id": "legacy" }, "client_ids": ["app"], "token": token,
            "time_unix_s": 0, "deadline_ms": 250
        }))
    }

    #[test]
    fn the_claims_of_a_genuine_token_are_given() {
        let verified = verify(&token(json!({ "alg": "HS256" }), SECRET)).unwrap();
        assert_eq!(verified, json!({ "alg": "HS256", "claims": { "sub": "s-1" } }));
    }

    #[test]
    fn what_is_not_genuine_is_rejected_and_what_is_not_mine_is_declined() {
        let status = |token: &str| verify(token).unwrap_err().status;
        let good = token(json!({ "alg": "HS256" }), SECRET);
        assert_eq!(status(&token(json!({ "alg": "HS256" }), "another secret")), CS_REJECT);
        assert_eq!(status(&token(json!({ "alg": "HS256", "crit": ["x"] }), SECRET)), CS_REJECT);
        assert_eq!(status(&good[..good.len() - 4]), CS_REJECT);
        for other in ["", "a.b", "opaque", &token(json!({ "alg": "RS256" }), SECRET), &token(json!({}), SECRET)] {
            assert_eq!(status(other), CS_DECLINED, "{other}");
        }
    }

    #[test]
    fn a_short_or_absent_secret_is_refused() {
        let short = FakeHost::new().secret("s", "short").create::<Hs256>(json!({ "secret": "s" }));
        assert!(short.err().unwrap().contains("32 bytes"));
        let absent = FakeHost::new().create::<Hs256>(json!({ "secret": "s" }));
        assert!(absent.err().unwrap().contains("not granted"));
    }
}
