//! A provider tells that a session there has ended (OpenID Connect Back-Channel Logout 1.0).
//!
//! A logout token goes through the same checks of signature, issuer, audience and time as an ID token. It can
//! not be taken for one: it has an event, no nonce, and its type is refused where ID tokens are taken.

use std::sync::Arc;

use serde_json::Value;

use super::error::SignInError;
use super::key::VerificationKey;
use super::pipeline::Pipeline;
use super::provider::Provider;
use super::token::UnverifiedToken;
use super::verify::{
    VerifyError, check_algorithm, check_audience, check_issuer, check_not_ahead, date, needed_text, optional_text,
};
use crate::clock::UnixTime;
use crate::ids::TenantId;
use crate::secret::sha256;
use crate::session::ports::UpstreamEnd;

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
        let issuer = shape.unverified_issuer().unwrap_or_default();
        let audiences = shape.unverified_audiences();
        let mut providers = self.directory.providers(tenant);
        providers.retain(|p| {
            // A provider whose tokens a plugin verifies has no keys here that a logout token could be checked by.
            !self.verifiers.verifies(p) && p.issuer.may_match(issuer) && audiences.iter().any(|a| p.knows_client(a))
        });
        if providers.is_empty() {
            return Err(SignInError::NoProviderFits);
        }
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
}

/// Section 2.6, in its order; gives `jti` and `exp` as well.
fn verify(
    token: &UnverifiedToken,
    key: &VerificationKey,
    provider: &Provider,
    now: UnixTime,
) -> Result<(UpstreamEnd, String, UnixTime), VerifyError> {
    check_algorithm(token.algorithm(), provider)?;
    if !key.verifies(token.algorithm(), token.signing_input(), token.signature()) {
        return Err(VerifyError::BadSignature);
    }
    let claims = token.claims();
    let issuer: Arc<str> = check_issuer(claims, &provider.issuer)?.into();
    check_audience(claims, provider)?;
    let absent = |claim| VerifyError::Claim { claim, problem: "absent" };
    let leeway = provider.clock_leeway;
    let issued_at = date(claims, "iat")?.ok_or_else(|| absent("iat"))?;
    check_not_ahead("iat", Some(issued_at), now, leeway)?;
    let expires_at = date(claims, "exp")?.ok_or_else(|| absent("exp"))?;
    if now >= expires_at.plus(leeway) {
        return Err(VerifyError::Expired { late_s: now.as_secs() - expires_at.as_secs() });
    }
    if now.since(issued_at) > provider.max_token_age + leeway {
        let (age_s, allowed_s) = (now.as_secs() - issued_at.as_secs(), provider.max_token_age.as_secs());
        return Err(VerifyError::TooOld { age_s, allowed_s });
    }
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
    let session = sid.map(|sid| upstream_session(&provider.tenant, &provider.name, &issuer, sid));
    let (tenant, provider) = (provider.tenant.clone(), Arc::clone(&provider.name));
    Ok((UpstreamEnd { tenant, provider, issuer, subject, session }, jti, expires_at))
}
