//! What operators and other servers ask: health, metrics, keys.

use std::sync::Arc;

use poem_openapi::payload::PlainText;
use poem_openapi::registry::{MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::Value;

use super::body::JSON;
use super::reply::{Refusals, Reply};
use super::{State, Tag};
use crate::codes::ErrorCode as E;

pub(super) struct OpsApi(pub Arc<State>);

/// The server runs.
#[derive(Debug, Object)]
#[oai(rename = "dto.Health")]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// Metrics as Prometheus reads them.
#[derive(ApiResponse)]
enum MetricsAnswer {
    /// The text exposition format, version 0.0.4.
    #[oai(status = 200)]
    Ok(PlainText<String>),
}

pub(super) struct NoRefusals;
impl Refusals for NoRefusals {
    const CODES: &'static [E] = &[E::RequestTimeout];
}

pub(super) struct ReadyRefusals;
impl Refusals for ReadyRefusals {
    const CODES: &'static [E] = &[E::StoreUnavailable, E::RequestTimeout];
}

#[OpenApi]
impl OpsApi {
    /// Whether the process runs
    ///
    /// Asks nothing else: for a supervisor that restarts a hung process.
    #[oai(path = "/health/live", method = "get", tag = "Tag::Operations", operation_id = "healthLive")]
    async fn live(&self) -> Reply<Health, NoRefusals> {
        Ok(Health { status: "ok".to_owned() }).into()
    }

    /// Whether sign-ins can be served
    ///
    /// The store answers. Says nothing of providers: one that is out of reach does not stop the others.
    #[oai(path = "/health/ready", method = "get", tag = "Tag::Operations", operation_id = "healthReady")]
    async fn ready(&self) -> Reply<Health, ReadyRefusals> {
        let answer = self.0.ready.check().await;
        answer
            .map(|()| Health { status: "ok".to_owned() })
            .map_err(|error| self.0.refused(E::StoreUnavailable, &error))
            .into()
    }

    /// Metrics in the text format of Prometheus
    ///
    /// Counts and times of this process. Names no user and no token.
    #[oai(path = "/metrics", method = "get", tag = "Tag::Operations", operation_id = "metrics")]
    async fn metrics(&self) -> MetricsAnswer {
        MetricsAnswer::Ok(PlainText((self.0.render_metrics)()))
    }

    /// The public keys of local access tokens
    ///
    /// A JWK Set (RFC 7517 section 5). Choose by `kid`; expect new keys to appear before they sign.
    #[oai(path = "/.well-known/jwks.json", method = "get", tag = "Tag::Operations", operation_id = "getJwks")]
    async fn jwks(&self) -> JwksAnswer {
        JwksAnswer::Ok(JwkSet(self.0.keys.ring.jwk_set()), "public, max-age=300".to_owned())
    }
}

/// A JWK Set (RFC 7517 section 5).
#[derive(Debug, Object)]
#[oai(rename = "dto.JWKSet")]
pub struct JwkSetShape {
    /// The keys.
    pub keys: Vec<JwkShape>,
}

/// A public key (RFC 7517 section 4). Which members describe it depends on `kty`.
#[derive(Debug, Object)]
#[oai(rename = "dto.JWK", skip_serializing_if_is_none)]
pub struct JwkShape {
    /// The key's type, such as `OKP`.
    pub kty: String,
    /// The identifier that tokens name.
    pub kid: String,
    /// `sig`.
    #[oai(rename = "use")]
    pub purpose: String,
    /// The one algorithm that the key is for.
    pub alg: String,
    /// The curve, for `OKP` and `EC`.
    pub crv: Option<String>,
    /// The public key or its first coordinate in base64url, for `OKP` and `EC`.
    pub x: Option<String>,
    /// The second coordinate in base64url, for `EC`.
    pub y: Option<String>,
    /// The modulus in base64url, for `RSA`.
    pub n: Option<String>,
    /// The exponent in base64url, for `RSA`.
    pub e: Option<String>,
}

/// The set as the core made it; [`JwkSetShape`] describes it.
struct JwkSet(Value);

impl poem_openapi::payload::Payload for JwkSet {
    const CONTENT_TYPE: &'static str = JSON;

    fn schema_ref() -> MetaSchemaRef {
        JwkSetShape::schema_ref()
    }

    fn register(registry: &mut Registry) {
        JwkSetShape::register(registry);
    }
}

impl poem::IntoResponse for JwkSet {
    fn into_response(self) -> poem::Response {
        poem::Response::builder().content_type(JSON).body(self.0.to_string())
    }
}

#[derive(ApiResponse)]
enum JwksAnswer {
    /// The keys.
    #[oai(status = 200)]
    Ok(JwkSet, #[oai(header = "Cache-Control")] String),
}
