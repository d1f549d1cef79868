//! What operators and other servers ask: health, metrics, keys.

use std::sync::Arc;

use poem_openapi::payload::PlainText;
use poem_openapi::types::Any;
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
    #[oai(path = "/metrics", method = "get", tag = "Tag::Operations", operation_id = "metrics")]
    async fn metrics(&self) -> MetricsAnswer {
        MetricsAnswer::Ok(PlainText((self.0.render_metrics)()))
    }

    /// The public keys of local access tokens
    ///
    /// A JWK Set (RFC 7517 section 5). Choose by `kid`; expect new keys to appear before they sign.
    #[oai(path = "/.well-known/jwks.json", method = "get", tag = "Tag::Operations", operation_id = "getJwks")]
    async fn jwks(&self) -> JwksAnswer {
        JwksAnswer::Ok(JwkSet(self.0.jwk_set.clone()), "public, max-age=300".to_owned())
    }
}

/// A JWK Set.
struct JwkSet(Value);

impl poem_openapi::payload::Payload for JwkSet {
    const CONTENT_TYPE: &'static str = JSON;

    fn schema_ref() -> poem_openapi::registry::MetaSchemaRef {
        <Any<Value> as poem_openapi::types::Type>::schema_ref()
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
