//! Verifies ID tokens of LINE Login, whose algorithm depends on how the channel is used: HS256 with the channel secret
//! for web login, ES256 with a published key for native apps, the LINE SDK and LIFF. README.md beside this crate
//! says when the preset `line` is enough.
//!
//! A secret vouches for its own channel only: the audience must be the channel whose secret fits. Issuer, times, nonce and
//! `at_hash` are checked by the server.

use std::collections::BTreeMap;

use countersign_plugin_jws::{Jws, Key, KeyStore, Lookup, Padding};
use countersign_plugin_sdk::serde_json::{self, Value};
use countersign_plugin_sdk::{
    Call, Config, Host, HttpRequest, Object, Outcome, Plugin, PluginError, Verified, Verifier, VerifyRequest,
    export,
};
use serde::Deserialize;

const KEYS_URL: &str = "https://api.line.me/oauth2/v2.1/certs";
const KEYS_TTL_S: u64 = 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// By channel id.
    channels: BTreeMap<String, ChannelSettings>,
    keys_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelSettings {
    /// Name of the channel secret: web login. Absent: no HS256 for this channel.
    secret: Option<String>,
    /// Native apps, SDK and LIFF: ES256.
    #[serde(default)]
    native: bool,
}

struct Channel {
    id: String,
    secret: Option<Key>,
    native: bool,
}

struct Line {
    channels: Vec<Channel>,
    keys_url: String,
    keys: KeyStore,
}

impl Plugin for Line {
    fn create(host: &Host, config: Config) -> Result<Self, PluginError> {
        let settings: Settings =
            serde_json::from_value(Value::Object(config)).map_err(|e| PluginError::new(format!("config: {e}")))?;
        let mut channels = Vec::new();
        for (id, channel) in settings.channels {
            if channel.secret.is_none() && !channel.native {
                return Err(PluginError::new(format!(
                    "config: channel {id} has neither a secret nor native = true"
                )));
            }
            let secret = channel.secret.map(|name| Key::hs256(&host.secret(&name)?)).transpose()?;
            channels.push(Channel { id, secret, native: channel.native });
        }
        if channels.is_empty() {
            return Err(PluginError::new("config: there is no channel"));
        }
        let keys_url = settings.keys_url.unwrap_or_else(|| KEYS_URL.to_owned());
        Ok(Self { channels, keys_url, keys: KeyStore::default() })
    }
}

impl Verifier for Line {
    fn verify(&self, call: &Call<'_>, request: VerifyRequest) -> Outcome {
        let Some(token) = Jws::split(&request.token, Padding::Forbidden) else { return Outcome::Declined };
        let algorithm = token.unverified_header("alg").unwrap_or_default();
        if !matches!(algorithm, "HS256" | "ES256") {
            return Outcome::Declined;
        }
        if token.is_critical() {
            return Outcome::Reject("critical_header".to_owned());
        }
        let (claims, may): (Object, fn(&Channel) -> bool) = if algorithm == "HS256" {
            let mut secrets = self.channels.iter().filter_map(|c| Some((c, c.secret.as_ref()?)));
            let Some((channel, claims)) = secrets.find_map(|(c, key)| Some((c, token.verify(key).ok()?.1))) else {
                return Outcome::Reject("bad_signature".to_owned());
            };
            if claims.get("aud").and_then(Value::as_str) != Some(&channel.id) {
                return Outcome::Reject("wrong_channel".to_owned());
            }
            (claims, |channel| channel.secret.is_some())
        } else {
            let Some(kid) = token.unverified_header("kid").filter(|kid| kid.len() <= 256) else {
                return Outcome::Reject("unknown_key".to_owned());
            };
            let key = match self.keys.find(kid, request.time_unix_s, || fetch_keys(call, &self.keys_url)) {
                Ok(Some(key)) => key,
                Ok(None) => return Outcome::Reject("unknown_key".to_owned()),
                Err(error) => return Outcome::Unavailable(error.message().to_owned()),
            };
            match token.verify(&key) {
                Ok((_, claims)) => (claims, |channel| channel.native),
                Err(fault) => return Outcome::Reject(fault.code().to_owned()),
            }
        };
        let audience = claims.get("aud").and_then(Value::as_str);
        if !self.channels.iter().any(|c| Some(c.id.as_str()) == audience && may(c)) {
            return Outcome::Reject("wrong_channel".to_owned());
        }
        Outcome::json(Verified { alg: algorithm.to_owned(), claims })
    }
}

fn fetch_keys(call: &Call<'_>, url: &str) -> Result<Lookup, PluginError> {
    let answer = call.fetch(&HttpRequest::get(url))?;
    let set: Value = answer.json()?;
    let set = set.get("keys").and_then(Value::as_array);
    let set = set.ok_or_else(|| PluginError::new("the key set has no keys"))?;
    let key = |jwk: &Value| Some((jwk.get("kid")?.as_str()?.to_owned(), Key::es256_jwk(jwk)?));
    let ttl_s = answer.max_age_s().unwrap_or(KEYS_TTL_S);
    Ok(Lookup::Found { keys: set.iter().filter_map(key).collect(), ttl_s })
}

export!(
    Line: [verifier],
    id = "countersign.line",
    vendor = "Countersign",
    requests = { http = ["api.line.me"], secrets = ["line_channel_secret"] }
);

#[cfg(test)]
mod tests;
