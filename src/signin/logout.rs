//! A provider tells that a session there has ended (OpenID Connect Back-Channel Logout 1.0).
//!
//! A logout token goes through the same checks of signature, issuer, audience and time as an ID token. It can
//! not be taken for one: it has an event, no nonce, and its type is refused where ID tokens are taken.

use std::sync::Arc;

use serde_json::Value;

use super::checks::{CHECKS, Found, Input, needed_text, optional_text};
use super::error::SignInError;
use super::key::VerificationKey;
use super::pipeline::Pipeline;
use super::provider::{Provider, identity_issuer};
use super::token::UnverifiedToken;
use super::trace::Check;
use super::verify::{Expected, VerifyError, check_algorithm};
use crate::clock::UnixTime;
use crate::ids::TenantId;
use crate::secret::sha256;
use crate::session::ports::UpstreamEnd;

/// What a logout token is checked for like an ID token, by the same rows.
const SHARED: [Check; 8] = [
    Check::Algorithm,
    Check::Signature,
    Check::Issuer,
    Check::UpstreamTenant,
    Check::Audience,
    Check::Expiry,
    Check::IssuedAt,
    Check::Age,
];

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// The digest that one session of a provider is remembered by.
#[must_use]
pub fn upstream_session(tenant: &TenantId, provider: &str, issuer: &str, sid: &str) -> [u8; 32] {
    digest(&["upstream session", tenant.as_str(), provider, issuer, sid])
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut input = Vec::with_capacity(256);
    for part in parts {
        input.extend_from_slice(&(part.len() as u64).to_be_bytes());
        input.extend_from_slice(part.as_bytes());
    }
    sha256(&input)
}

impl Pipeline {
    /// What a logout token of a configured provider says has ended. The token is spent.
    ///
    /// # Errors
    /// As for an ID token; nothing has ended then.
    pub async fn verify_logout(&self, tenant: &TenantId, raw: &str) -> Result<Vec<UpstreamEnd>, SignInError> {
        let now = self.clock.now();
        let shape = UnverifiedToken::parse_logout(raw)?;
        let providers = self.speakers(tenant, &shape)?;
        let mut ended = Vec::with_capacity(providers.len());
        for provider in providers {
            let (kid, algorithm) = (shape.unverified_kid(), shape.algorithm());
            check_algorithm(algorithm, &provider)?;
            let key = self.keys.find_key(&provider, kid, algorithm).await?;
            let (end, jti, expires_at) = verify(&shape, &key, &provider, now)?;
            let spent = digest(&["logout", tenant.as_str(), &provider.name, &end.issuer, &jti]);
            if !self.replays.remember(spent, expires_at.plus(provider.clock_leeway), now).await? {
                return Err(SignInError::Replayed);
            }
            ended.push(end);
        }
        Ok(ended)
    }

    /// The providers that may have signed a token which is no ID token.
    pub(super) fn speakers(
        &self,
        tenant: &TenantId,
        token: &UnverifiedToken,
    ) -> Result<Vec<Arc<Provider>>, SignInError> {
        let issuer = token.unverified_issuer().unwrap_or_default();
        let audiences = token.unverified_audiences();
        let mut providers = self.directory.providers(tenant);
        providers.retain(|p| {
            // A provider whose tokens a plugin verifies has no keys here that the token could be checked by.
            !self.verifiers.verifies(p) && p.issuer.may_match(issuer) && audiences.iter().any(|a| p.knows_client(a))
        });
        if providers.is_empty() { Err(SignInError::NoProviderFits) } else { Ok(providers) }
    }
}

/// Section 2.6, in its order; gives `jti` and `exp` as well.
fn verify(
    token: &UnverifiedToken,
    key: &VerificationKey,
    provider: &Provider,
    now: UnixTime,
) -> Result<(UpstreamEnd, String, UnixTime), VerifyError> {
    let claims = token.claims();
    let expected = Expected::default();
    let input =
        Input { claims, token: Some(token), hashed_by: None, key: Some(key), provider, expected: &expected, now };
    let mut found = Found::default();
    for row in CHECKS.iter().filter(|row| SHARED.contains(&row.check)) {
        (row.run)(&input, &mut found)?;
    }
    let absent = |claim| VerifyError::Claim { claim, problem: "absent" };
    let issuer: Arc<str> = found.issuer.ok_or_else(|| absent("iss"))?.into();
    let expires_at = found.expires_at.ok_or_else(|| absent("exp"))?;
    let event = claims.get("events").and_then(|events| events.get(EVENT));
    if !event.is_some_and(Value::is_object) {
        return Err(VerifyError::Claim { claim: "events", problem: "not that of a back-channel logout" });
    }
    if claims.contains_key("nonce") {
        return Err(VerifyError::Claim { claim: "nonce", problem: "there, so this is no logout token" });
    }
    let subject = optional_text(claims, "sub", 255)?.map(Arc::from);
    let sid = optional_text(claims, "sid", 1024)?;
    if subject.is_none() && sid.is_none() {
        return Err(absent("sub"));
    }
    let jti = needed_text(claims, "jti", 256)?.to_owned();
    let issuer = identity_issuer(&issuer);
    let session = sid.map(|sid| upstream_session(&provider.tenant, &provider.name, &issuer, sid));
    let (tenant, provider) = (provider.tenant.clone(), Arc::clone(&provider.name));
    let end = UpstreamEnd { tenant, provider, issuer, subject, session, begun_until: None };
    Ok((end, jti, expires_at))
}
