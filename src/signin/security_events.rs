//! A provider tells of what happened to an account: by a security event token (RFC 8417) with events of RISC or
//! CAEP, or by one of Apple's server-to-server notices. What follows of it is carried out by `session::upstream`.
//!
//! Either goes through the same checks of signature, issuer and audience as an ID token. A security event token
//! cannot be taken for one: its type is `secevent+jwt`, which is demanded here and refused there. Apple's notices
//! have no type of their own, so they are read only of a provider that is configured to send them; they have no
//! `sub`, and ID tokens no `events`. A subject is an issuer and a subject (RFC 9493 section 3.2.5) and nothing
//! else: an e-mail address or a telephone number ends nothing. Google writes its issuer with a slash at the end there,
//! and without one in ID tokens; the one of the configuration counts, and it is the one that is told.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::checks::{CHECKS, Found, Input, needed_text};
use super::error::SignInError;
use super::json;
use super::key::VerificationKey;
use super::pipeline::Pipeline;
use super::provider::{IssuerRule, Notices, Provider, identity_issuer};
use super::token::UnverifiedToken;
use super::trace::Check;
use super::verify::{Expected, VerifyError, check_algorithm};
use crate::clock::UnixTime;
use crate::ids::TenantId;

/// What such a token is checked for like an ID token, by the same rows. It need not expire (RFC 8417
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

/// What a provider told in one token.
#[derive(Debug, Clone)]
pub struct ToldEvents {
    /// The tenant.
    pub tenant: TenantId,
    /// The provider.
    pub provider: Arc<str>,
    /// The issuer, by the name that identities are kept under.
    pub issuer: Arc<str>,
    /// The names that identities of it may be kept under: of a provider with [`Notices::Apple`] all that it has.
    pub issuer_names: Vec<Arc<str>>,
    /// The identifier of the token: unique of its issuer.
    pub jti: String,
    /// When the provider told it.
    pub issued_at: UnixTime,
    /// What began later has nothing to do with it.
    pub begun_until: UnixTime,
    /// From then on the same token is refused for its age.
    pub refused_from: UnixTime,
    /// At least one.
    pub events: Vec<ToldEvent>,
}

/// One event.
#[derive(Debug, Clone)]
pub struct ToldEvent {
    /// Its type: a URI; of Apple's notices `apple:` and the type.
    pub kind: String,
    /// The subject, when one of the very issuer that speaks is named.
    pub subject: Option<Arc<str>>,
    /// What the provider says of it.
    pub details: Map<String, Value>,
    /// What follows for the subject.
    pub effect: Effect,
}

/// What follows of an event for the subject's sessions and identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing.
    Noted,
    /// Its sessions end.
    SessionsEnd,
    /// Its sessions end, and the identity is no longer the user's.
    IdentityGone,
}

/// Reads the events of verified claims, told by this issuer.
type ReadEvents = fn(&Map<String, Value>, &str) -> Result<Vec<ToldEvent>, VerifyError>;

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
        let mut token = UnverifiedToken::parse_security_event(raw)?;
        if self.speakers(tenant, &token).is_err() {
            token.strip_issuer_slash();
        }
        self.told(tenant, &token, |_| true, events_of_token).await
    }

    /// What a notice of Apple tells, of a provider with [`Notices::Apple`].
    ///
    /// # Errors
    /// As for an ID token; nothing is to end then.
    pub async fn verify_apple_notice(&self, tenant: &TenantId, raw: &str) -> Result<Vec<ToldEvents>, SignInError> {
        let token = UnverifiedToken::parse(raw)?;
        self.told(tenant, &token, |provider| provider.notices == Notices::Apple, event_of_notice).await
    }

    async fn told(
        &self,
        tenant: &TenantId,
        token: &UnverifiedToken,
        may_speak: fn(&Provider) -> bool,
        read: ReadEvents,
    ) -> Result<Vec<ToldEvents>, SignInError> {
        let now = self.clock.now();
        let mut speakers = self.speakers(tenant, token)?;
        speakers.retain(|provider| may_speak(provider));
        if speakers.is_empty() {
            return Err(SignInError::NoProviderFits);
        }
        let mut told = Vec::new();
        for provider in speakers {
            let (kid, algorithm) = (token.unverified_kid(), token.algorithm());
            check_algorithm(algorithm, &provider)?;
            let key = self.keys.find_key(&provider, kid, algorithm).await?;
            let (issuer, issued_at) = verify(token, &key, &provider, now)?;
            let claims = token.claims();
            told.push(ToldEvents {
                tenant: provider.tenant.clone(),
                provider: Arc::clone(&provider.name),
                jti: needed_text(claims, "jti", 256)?.to_owned(),
                issued_at,
                begun_until: issued_at.plus(provider.clock_leeway),
                refused_from: issued_at.plus(MAX_AGE).plus(provider.clock_leeway),
                events: read(claims, &issuer)?,
                issuer_names: issuer_names(&provider, &issuer),
                issuer: identity_issuer(&issuer),
            });
        }
        Ok(told)
    }
}

fn issuer_names(provider: &Provider, issuer: &Arc<str>) -> Vec<Arc<str>> {
    let mut names = match (provider.notices, &provider.issuer) {
        (Notices::Apple, IssuerRule::Exact(names)) => names.iter().map(|name| name.as_str().into()).collect(),
        _ => vec![Arc::clone(issuer)],
    };
    let kept_under = identity_issuer(issuer);
    if !names.contains(&kept_under) {
        names.push(kept_under);
    }
    names
}

/// Everything but the events; gives issuer and time.
fn verify(
    token: &UnverifiedToken,
    key: &VerificationKey,
    provider: &Provider,
    now: UnixTime,
) -> Result<(Arc<str>, UnixTime), VerifyError> {
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
    Ok((issuer, issued_at))
}

fn events_of_token(claims: &Map<String, Value>, issuer: &str) -> Result<Vec<ToldEvent>, VerifyError> {
    let wrong = || VerifyError::Claim { claim: "events", problem: "not an object of events, each an object" };
    let events = claims.get("events").and_then(Value::as_object).filter(|events| !events.is_empty());
    let told = events.ok_or_else(wrong)?.iter().map(|(kind, event)| {
        let ends = ENDING.contains(&kind.as_str());
        Ok(ToldEvent {
            kind: kind.clone(),
            subject: find_subject(claims, event, issuer).map(Arc::from),
            details: event.as_object().ok_or_else(wrong)?.clone(),
            effect: if ends { Effect::SessionsEnd } else { Effect::Noted },
        })
    });
    told.collect()
}

/// The subject, when it is one of the very issuer that speaks: `sub_id` of the token, or `subject` of the event in
/// older drafts. Of a complex one (SSF 1.0 section 3.3) the user counts: all its sessions rather than too few.
fn find_subject<'a>(claims: &'a Map<String, Value>, event: &'a Value, issuer: &str) -> Option<&'a str> {
    let identifier = claims.get("sub_id").or_else(|| event.get("subject"))?;
    let identifier = identifier.get("user").unwrap_or(identifier);
    let format = identifier.get("format").or_else(|| identifier.get("subject_type"))?.as_str()?;
    let named = identifier.get("iss")?.as_str()?;
    let is_speaker = named == issuer || named.strip_suffix('/') == Some(issuer);
    let ours = matches!(format, "iss_sub" | "iss-sub") && is_speaker;
    identifier.get("sub")?.as_str().filter(|subject| ours && (1..=255).contains(&subject.len()))
}

/// Apple, "Processing changes for Sign in with Apple accounts": one event, as a JSON text. Apple writes both
/// `account-delete` and `account-deleted`. `event_time` is in seconds in its documentation and in milliseconds
/// elsewhere, so the time is that of `iat`.
fn event_of_notice(claims: &Map<String, Value>, _issuer: &str) -> Result<Vec<ToldEvent>, VerifyError> {
    let wrong = |problem| VerifyError::Claim { claim: "events", problem };
    let text = claims.get("events").and_then(Value::as_str).ok_or_else(|| wrong("not a text"))?;
    let details = json::parse_object(text.as_bytes()).map_err(|_| wrong("not the text of a JSON object"))?;
    let (kind, effect) = match details.get("type").and_then(Value::as_str) {
        Some("consent-revoked") => ("apple:consent-revoked", Effect::SessionsEnd),
        Some("account-delete" | "account-deleted") => ("apple:account-delete", Effect::IdentityGone),
        Some("email-disabled") => ("apple:email-disabled", Effect::Noted),
        Some("email-enabled") => ("apple:email-enabled", Effect::Noted),
        _ => return Err(wrong("of no type that is known")),
    };
    let subject = details.get("sub").and_then(Value::as_str).filter(|sub| (1..=255).contains(&sub.len()));
    let subject = subject.ok_or_else(|| wrong("without a subject"))?.into();
    Ok(vec![ToldEvent { kind: kind.to_owned(), subject: Some(subject), details, effect }])
}
