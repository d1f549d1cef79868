//! Tokens that a proxy puts into a header of each request it lets through: Cloudflare Access, Google Identity-Aware
//! Proxy, AWS Application Load Balancer, AWS Verified Access. README.md beside this crate has a lock entry for each.
//!
//! The first two are ordinary tokens whose keys stand where discovery does not look: `provider.locate_keys`, and
//! the server checks them itself. The last two are none: padded base64, no audience, no time of issue. So
//! `provider.verify` checks their signature, and gives the server an audience that the signature covers.

use countersign_plugin_jws::{Jws, Key, KeyStore, Lookup, Padding};
use countersign_plugin_sdk::serde_json::{self, Value};
use countersign_plugin_sdk::{
    Call, Config, Host, HttpRequest, KeyLocator, KeyRequest, Keys, Object, Outcome, Plugin, PluginError, Verified,
    Verifier, VerifyRequest, export,
};

mod settings;

use settings::Settings;

/// Both AWS services: their tokens are good for so long.
const AWS_LIFETIME_S: i64 = 120;
/// An AWS key id names one key for ever.
const AWS_KEY_TTL_S: u64 = 3600;
const KEY_SET_TTL_S: u64 = 3600;

struct HeaderToken {
    settings: Settings,
    keys: KeyStore,
}

impl Plugin for HeaderToken {
    fn create(_host: &Host, config: Config) -> Result<Self, PluginError> {
        let settings: Settings =
            serde_json::from_value(Value::Object(config)).map_err(|e| PluginError::new(format!("config: {e}")))?;
        settings.check()?;
        Ok(Self { settings, keys: KeyStore::default() })
    }
}

impl KeyLocator for HeaderToken {
    fn locate_keys(&self, call: &Call<'_>, request: KeyRequest) -> Outcome {
        let Some(url) = self.settings.key_set_url() else {
            return Outcome::Invalid("tokens of AWS need the hook provider.verify".to_owned());
        };
        let Some(kid) = request.kid else { return Outcome::Declined };
        let answer = match call.fetch(&HttpRequest::get(url)) {
            Ok(answer) => answer,
            Err(error) => return Outcome::Unavailable(error.message().to_owned()),
        };
        let set: Value = match answer.json() {
            Ok(set) => set,
            Err(error) => return Outcome::Unavailable(error.message().to_owned()),
        };
        let Some(keys) = set.get("keys").and_then(Value::as_array) else {
            return Outcome::Unavailable("the key set has no keys".to_owned());
        };
        if !keys.iter().any(|key| key.get("kid").and_then(Value::as_str) == Some(&kid)) {
            return Outcome::Declined;
        }
        let ttl_s = answer.max_age_s().unwrap_or(KEY_SET_TTL_S);
        // The certificates that Cloudflare adds are the same keys again.
        Outcome::json(Keys { jwks: Some(serde_json::json!({ "keys": keys })), ttl_s, ..Keys::default() })
    }
}

impl Verifier for HeaderToken {
    fn verify(&self, call: &Call<'_>, request: VerifyRequest) -> Outcome {
        let Some(aws) = self.settings.aws() else {
            return Outcome::Invalid("only tokens of AWS need the hook provider.verify".to_owned());
        };
        let Some(token) = Jws::split(&request.token, Padding::Allowed) else { return Outcome::Declined };
        if token.unverified_header("alg") != Some(aws.algorithm) {
            return Outcome::Declined;
        }
        if token.is_critical() {
            return Outcome::Reject("critical_header".to_owned());
        }
        // Each load balancer of a region signs with the same keys, those of strangers too. So this one first, though
        // it is not verified yet: who is another's makes no request.
        if token.unverified_header("signer") != Some(aws.signer) {
            return Outcome::Reject("wrong_signer".to_owned());
        }
        // It becomes a part of an address.
        let fits = |kid: &&str| {
            (1..=64).contains(&kid.len()) && kid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let Some(kid) = token.unverified_header("kid").filter(fits).map(str::to_owned) else {
            return Outcome::Reject("malformed".to_owned());
        };
        let url = format!("{}/{kid}", aws.keys_url);
        let key = self.keys.find(&kid, request.time_unix_s, || fetch_pem(call, &url, &kid, aws.algorithm));
        let key = match key {
            Ok(Some(key)) => key,
            Ok(None) => return Outcome::Reject("unknown_key".to_owned()),
            Err(error) => return Outcome::Unavailable(error.message().to_owned()),
        };
        match token.verify(&key) {
            Ok((header, claims)) => match given_claims(&aws, &header, claims) {
                Some(claims) => Outcome::json(Verified { alg: aws.algorithm.to_owned(), claims }),
                None => Outcome::Reject("malformed".to_owned()),
            },
            Err(fault) => Outcome::Reject(fault.code().to_owned()),
        }
    }
}

fn fetch_pem(call: &Call<'_>, url: &str, kid: &str, algorithm: &str) -> Result<Lookup, PluginError> {
    let answer = call.fetch(&HttpRequest::get(url))?;
    match answer.status {
        200 => {}
        // A bucket without such a file answers with 403.
        403 | 404 => return Ok(Lookup::Unknown),
        status => return Err(PluginError::new(format!("the key's address answered with status {status}"))),
    }
    let key =
        Key::ecdsa_pem(algorithm, &answer.body).ok_or_else(|| PluginError::new("the key is no public key"))?;
    Ok(Lookup::Found { keys: vec![(kid.to_owned(), key)], ttl_s: AWS_KEY_TTL_S })
}

/// The claims, with those that the signed header holds instead: issuer, expiry, and whom the token is for. The
/// user's own claims come from the user-info endpoint of somebody else and must not take their place.
fn given_claims(aws: &settings::Aws<'_>, header: &Object, mut claims: Object) -> Option<Object> {
    let exp = header.get("exp")?.as_i64()?;
    let issuer = header.get("iss")?.as_str()?;
    if claims.get("iss").is_some_and(|iss| iss != issuer) {
        return None;
    }
    let audience = match aws.client_in_header {
        true => header.get("client")?.as_str()?,
        false => aws.signer,
    };
    claims.insert("iss".to_owned(), issuer.into());
    claims.insert("aud".to_owned(), audience.into());
    claims.insert("exp".to_owned(), exp.into());
    claims.insert("iat".to_owned(), exp.checked_sub(AWS_LIFETIME_S)?.into());
    // Of the user's sign-in with the issuer, if of anything: none of these speaks of this token.
    for name in ["azp", "nbf", "nonce", "jti", "at_hash", "c_hash", "s_hash"] {
        claims.remove(name);
    }
    Some(claims)
}

export!(
    HeaderToken: [keys, verifier],
    id = "countersign.header_token",
    vendor = "Countersign",
    requests = { http = ["www.gstatic.com"] }
);

#[cfg(test)]
mod tests;
