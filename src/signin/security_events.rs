//! A provider tells of what happened to an account, by a security event token (RFC 8417) with events of RISC or
//! CAEP: some of them end the sessions that came from the subject.
//!
//! The token goes through the same checks of signature, issuer and audience as an ID token. It cannot be taken for
//! one: its type is `secevent+jwt`, which is demanded here and refused there. A subject is an issuer and a subject
//! (RFC 9493 section 3.2.5) and nothing else: an e-mail address or a telephone number ends nothing.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::checks::{CHECKS, Found, Input, needed_text};
use super::error::SignInError;
use super::key::VerificationKey;
use super::pipeline::Pipeline;
use super::provider::Provider;
use super::token::UnverifiedToken;
use super::trace::Check;
use super::verify::{Expected, VerifyError, check_algorithm};
use crate::clock::UnixTime;
use crate::ids::TenantId;
use crate::session::ports::UpstreamEnd;

/// What a security event token is checked for like an ID token, by the same rows. It need not expire (RFC 8417
/// section 2.2); when it says that it does, that is checked as well.
const SHARED: [Check; 6] =
    [Check::Algorithm, Check::Signature, Check::Issuer, Check::UpstreamTenant, Check::Audience, Check::IssuedAt];

/// How old a token may be: a transmitter that could not reach this server tries again (RFC 8935 section 2.4).
const MAX_AGE: Duration = Duration::from_secs(86_400);

/// Events after which no session that came from the subject is to go on.
const ENDING: [&str; 8] = [
    "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
    "https://schemas.openid.net/secevent/risc/event-type/account-credential-change-required",
    "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
    "https://schemas.openid.net/secevent/risc/event-type/account-purged",
    "https://schemas.openid.net/secevent/risc/event-type/credential-compromise",
    "https://schemas.openid.net/secevent/risc/event-type/sessions-revoked",
    "https://schemas.openid.net/secevent/oauth/event-type/token-revoked",
    "https://schemas.openid.net/secevent/oauth/event-type/tokens-revoked",
];

/// What a provider told.
#[derive(Debug)]
pub struct ToldEvents {
    /// The provider.
    pub provider: Arc<str>,
    /// What is to end; none for events that are only taken note of.
    pub ends: Vec<UpstreamEnd>,
}

impl Pipeline {
    /// What a security event token of a configured provider tells. A token may come twice, which is no fault (RFC
    /// 8935 section 2.2): it ends what began before it was issued, so the second time there is nothing left.
    ///
    /// # Errors
    /// As for an ID token; nothing is to end then.
    pub async fn verify_security_events(
        &self,
        tenant: &TenantId,
        raw: &str,
    ) -> Result<Vec<ToldEvents>, SignInError> {
        let now = self.clock.now();
        let token = UnverifiedToken::parse_security_event(raw)?;
        let mut told = Vec::new();
        for provider in self.speakers(tenant, &token)? {
            let (kid, algorithm) = (token.unverified_kid(), token.algorithm());
            check_algorithm(algorithm, &provider)?;
            let key = self.keys.find_key(&provider, kid, algorithm).await?;
            let ends = verify(&token, &key, &provider, now)?;
            told.push(ToldEvents { provider: Arc::clone(&provider.name), ends });
        }
        Ok(told)
    }
}

fn verify(
    token: &UnverifiedToken,
    key: &VerificationKey,
    provider: &Provider,
    now: UnixTime,
) -> Result<Vec<UpstreamEnd>, VerifyError> {
    let claims = token.claims();
    let expected = Expected::default();
    let input =
        Input { claims, token: Some(token), hashed_by: None, key: Some(key), provider, expected: &expected, now };
    let mut found = Found::default();
    let expires = claims.contains_key("exp");
    for row in CHECKS.iter().filter(|row| SHARED.contains(&row.check) || (expires && row.check == Check::Expiry)) {
        (row.run)(&input, &mut found)?;
    }
    let absent = |claim| VerifyError::Claim { claim, problem: "absent" };
    let issuer: Arc<str> = found.issuer.ok_or_else(|| absent("iss"))?.into();
    let issued_at = found.issued_at.ok_or_else(|| absent("iat"))?;
    if now.since(issued_at) > MAX_AGE.saturating_add(provider.clock_leeway) {
        return Err(VerifyError::Claim { claim: "iat", problem: "more than a day ago" });
    }
    needed_text(claims, "jti", 256)?;
    let events = claims.get("events").and_then(Value::as_object).filter(|events| !events.is_empty());
    let wrong = VerifyError::Claim { claim: "events", problem: "not an object of events, each an object" };
    let Some(events) = events.filter(|events| events.values().all(Value::is_object)) else { return Err(wrong) };
    let mut subjects: Vec<&str> = Vec::new();
    for (_, event) in events.iter().filter(|(kind, _)| ENDING.contains(&kind.as_str())) {
        subjects.extend(find_subject(claims, event, &issuer).filter(|subject| !subjects.contains(subject)));
    }
    let end = |subject: &str| UpstreamEnd {
        tenant: provider.tenant.clone(),
        provider: Arc::clone(&provider.name),
        issuer: Arc::clone(&issuer),
        subject: Some(subject.into()),
        session: None,
        begun_until: Some(issued_at.plus(provider.clock_leeway)),
    };
    Ok(subjects.into_iter().map(end).collect())
}

/// The subject, when it is one of the very issuer that speaks: `sub_id` of the token, or `subject` of the event in
/// older drafts. Of a complex one (SSF 1.0 section 3.3) the user counts: all its sessions rather than too few.
fn find_subject<'a>(claims: &'a Map<String, Value>, event: &'a Value, issuer: &str) -> Option<&'a str> {
    let identifier = claims.get("sub_id").or_else(|| event.get("subject"))?;
    let identifier = identifier.get("user").unwrap_or(identifier);
    let format = identifier.get("format").or_else(|| identifier.get("subject_type"))?.as_str()?;
    let ours = matches!(format, "iss_sub" | "iss-sub") && identifier.get("iss")?.as_str()? == issuer;
    identifier.get("sub")?.as_str().filter(|subject| ours && (1..=255).contains(&subject.len()))
}
