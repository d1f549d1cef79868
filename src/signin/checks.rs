//! Every check of a parsed ID token against its provider, one row each, in the order in which they are run.
//!
//! [`verify`](super::verify::verify) runs the rows to the first that fails. The trace runs the very same rows
//! to the end, and asks each what it expected and saw. So there is one function for each check, whoever asks.
//!
//! What a row shows is redacted: no nonce, hash, subject or other claim; `iss`, `aud`, `azp` shortened, times
//! as distances from now.

use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Map, Value};

use super::key::VerificationKey;
use super::provider::{IssuerRule, NoncePolicy, Provider, SignatureAlgorithm};
use super::token::{UnverifiedToken, audiences};
use super::trace::Check;
use super::verify::{Expected, NonceProblem, VerifyError, check_algorithm};
use crate::clock::UnixTime;
use crate::secret::{same, sha256};

/// 9999-12-31T23:59:59Z: a later NumericDate is absurd.
const LAST_SECOND: i64 = 253_402_300_799;

/// What the rows look at. `key` is absent in a trace whose key could not be had; no signature is valid then.
/// `token` is absent when a verifier of the provider read it: the rows of the claims alone are run then.
pub(super) struct Input<'a> {
    pub claims: &'a Map<String, Value>,
    pub token: Option<&'a UnverifiedToken>,
    /// An algorithm with the hash that `at_hash` is made with.
    pub hashed_by: Option<SignatureAlgorithm>,
    pub key: Option<&'a VerificationKey>,
    pub provider: &'a Provider,
    pub expected: &'a Expected<'a>,
    pub now: UnixTime,
}

/// What the rows read on the way: a [`VerifiedToken`](super::verify::VerifiedToken) is made of it.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub issuer: Option<&'a str>,
    pub audiences: Vec<&'a str>,
    pub client_id: Option<&'a str>,
    pub subject: Option<&'a str>,
    pub jti: Option<&'a str>,
    pub issued_at: Option<UnixTime>,
    pub expires_at: Option<UnixTime>,
    pub auth_time: Option<UnixTime>,
}

/// What a row expected and saw, for people.
pub(super) struct Shown {
    pub expected: String,
    pub seen: String,
    /// There was nothing to check: neither the provider's rules nor the request ask for it.
    pub idle: bool,
}

/// One check.
pub(super) struct Row {
    pub check: Check,
    /// The checks without which this one has nothing to look at.
    pub needs: &'static [Check],
    pub run: for<'a> fn(&Input<'a>, &mut Found<'a>) -> Result<(), VerifyError>,
    pub show: fn(&Input<'_>) -> Shown,
}

/// All of them: OpenID Connect Core section 3.1.3.7, the signature first.
pub(super) static CHECKS: [Row; 15] = [
    Row {
        check: Check::Algorithm,
        needs: &[],
        run: |input, _| match input.token {
            Some(token) => check_algorithm(token.algorithm(), input.provider),
            None => Err(VerifyError::BadSignature),
        },
        show: show_algorithm,
    },
    Row { check: Check::Signature, needs: &[Check::Key], run: check_signature, show: show_signature },
    Row { check: Check::Issuer, needs: &[], run: check_issuer, show: show_issuer },
    Row { check: Check::UpstreamTenant, needs: &[Check::Issuer], run: check_upstream_tenant, show: show_tenant },
    Row { check: Check::Audience, needs: &[], run: check_audience, show: show_audience },
    Row { check: Check::AuthorizedParty, needs: &[Check::Audience], run: check_party, show: show_party },
    Row { check: Check::Expiry, needs: &[], run: check_expiry, show: show_expiry },
    Row { check: Check::IssuedAt, needs: &[], run: check_issued_at, show: |i| show_past(i, "iat", false) },
    Row { check: Check::NotBefore, needs: &[], run: check_not_before, show: |i| show_past(i, "nbf", true) },
    Row { check: Check::AuthTime, needs: &[], run: check_auth_time, show: |i| show_past(i, "auth_time", true) },
    Row { check: Check::Age, needs: &[Check::IssuedAt], run: check_age, show: show_age },
    Row { check: Check::Nonce, needs: &[], run: check_nonce, show: show_nonce },
    Row { check: Check::AccessTokenHash, needs: &[], run: check_access_token_hash, show: show_access_token_hash },
    Row { check: Check::Subject, needs: &[], run: check_subject, show: show_subject },
    Row { check: Check::TokenId, needs: &[], run: check_token_id, show: show_token_id },
];

/// Where the rows begin that look at claims alone.
pub(super) const FIRST_OF_CLAIMS: usize = 2;

fn check_signature<'a>(input: &Input<'a>, _: &mut Found<'a>) -> Result<(), VerifyError> {
    let token = input.token.ok_or(VerifyError::BadSignature)?;
    let valid = |key: &VerificationKey| key.verifies(token.algorithm(), token.signing_input(), token.signature());
    if input.key.is_some_and(valid) { Ok(()) } else { Err(VerifyError::BadSignature) }
}

fn check_issuer<'a>(input: &Input<'a>, found: &mut Found<'a>) -> Result<(), VerifyError> {
    let claims = input.claims;
    let rule = &input.provider.issuer;
    let seen = needed_text(claims, "iss", 1024)?;
    let ours = match rule {
        IssuerRule::Exact(issuers) => issuers.iter().any(|i| i == seen),
        IssuerRule::PerTenant { prefix, suffix, .. } => {
            let tid = needed_text(claims, "tid", 256)?;
            seen.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_suffix(suffix.as_str())) == Some(tid)
        }
    };
    if !ours {
        return Err(VerifyError::Issuer { seen: shortened(seen), allowed: rule.shown() });
    }
    if let Some(key) = input.key.filter(|key| key.issuer().is_some()) {
        check_issuer_of_key(key, claims, seen)?;
    }
    found.issuer = Some(seen);
    Ok(())
}

/// A key that names its issuer is for that issuer's tokens alone: one key set may serve several.
fn check_issuer_of_key(key: &VerificationKey, claims: &Map<String, Value>, seen: &str) -> Result<(), VerifyError> {
    if key.is_for(seen, optional_text(claims, "tid", 256)?) {
        return Ok(());
    }
    let allowed = shortened(key.issuer().unwrap_or_default());
    Err(VerifyError::IssuerOfKey { seen: shortened(seen), allowed })
}

/// The allow-list of a `{tenantid}` template. That `tid` and `iss` name the same tenant was checked there.
fn check_upstream_tenant<'a>(input: &Input<'a>, _: &mut Found<'a>) -> Result<(), VerifyError> {
    let IssuerRule::PerTenant { allowed_tenant_ids, .. } = &input.provider.issuer else { return Ok(()) };
    let tid = needed_text(input.claims, "tid", 256)?;
    if allowed_tenant_ids.iter().any(|a| a == tid) {
        Ok(())
    } else {
        Err(VerifyError::UpstreamTenant { allowed: allowed_tenant_ids.len() })
    }
}

/// Step 3 of OpenID Connect Core section 3.1.3.7: one audience is ours.
fn check_audience<'a>(input: &Input<'a>, found: &mut Found<'a>) -> Result<(), VerifyError> {
    let seen = audiences(input.claims)
        .ok_or(VerifyError::Claim { claim: "aud", problem: "absent, or neither a text nor a list of texts" })?;
    let Some(ours) = seen.iter().copied().find(|a| input.provider.knows_client(a)) else {
        return Err(VerifyError::Audience {
            seen: shortened(&seen.join(", ")),
            allowed: input.provider.client_ids.len(),
        });
    };
    found.client_id = Some(ours);
    found.audiences = seen;
    Ok(())
}

/// Steps 3 to 5: further audiences are ours too, or an authorized party that we know vouches for them; an
/// `azp` is always one that we know.
fn check_party<'a>(input: &Input<'a>, found: &mut Found<'a>) -> Result<(), VerifyError> {
    let provider = input.provider;
    let known = |p: &str| provider.knows_client(p) || provider.authorized_parties.iter().any(|a| a == p);
    let all_ours = found.client_id.is_some() && found.audiences.iter().all(|a| provider.knows_client(a));
    match optional_text(input.claims, "azp", 1024)? {
        Some(p) if !known(p) => Err(VerifyError::AuthorizedParty { seen: shortened(p) }),
        None if !all_ours => Err(VerifyError::AuthorizedParty { seen: "(none)".to_owned() }),
        _ => Ok(()),
    }
}

fn check_expiry<'a>(input: &Input<'a>, found: &mut Found<'a>) -> Result<(), VerifyError> {
    let at = needed_date(input.claims, "exp")?;
    if input.now >= at.plus(input.provider.clock_leeway) {
        return Err(VerifyError::Expired { late_s: input.now.as_secs() - at.as_secs() });
    }
    found.expires_at = Some(at);
    Ok(())
}

fn check_issued_at<'a>(input: &Input<'a>, found: &mut Found<'a>) -> Result<(), VerifyError> {
    let at = needed_date(input.claims, "iat")?;
    check_not_ahead("iat", at, input)?;
    found.issued_at = Some(at);
    Ok(())
}

fn check_not_before<'a>(input: &Input<'a>, _: &mut Found<'a>) -> Result<(), VerifyError> {
    match date(input.claims, "nbf")? {
        Some(at) => check_not_ahead("nbf", at, input),
        None => Ok(()),
    }
}

fn check_auth_time<'a>(input: &Input<'a>, found: &mut Found<'a>) -> Result<(), VerifyError> {
    let Some(at) = date(input.claims, "auth_time")? else { return Ok(()) };
    check_not_ahead("auth_time", at, input)?;
    found.auth_time = Some(at);
    Ok(())
}

fn check_not_ahead(claim: &'static str, at: UnixTime, input: &Input<'_>) -> Result<(), VerifyError> {
    let leeway = input.provider.clock_leeway;
    if at <= input.now.plus(leeway) {
        return Ok(());
    }
    let early_s = at.as_secs() - input.now.as_secs();
    Err(VerifyError::NotYetValid { claim, early_s, leeway_s: leeway.as_secs() })
}

fn check_age<'a>(input: &Input<'a>, _: &mut Found<'a>) -> Result<(), VerifyError> {
    let at = needed_date(input.claims, "iat")?;
    let most = input.provider.max_token_age;
    if input.now.since(at) <= most + input.provider.clock_leeway {
        return Ok(());
    }
    Err(VerifyError::TooOld { age_s: input.now.as_secs() - at.as_secs(), allowed_s: most.as_secs() })
}

fn check_nonce<'a>(input: &Input<'a>, _: &mut Found<'a>) -> Result<(), VerifyError> {
    let carried = optional_text(input.claims, "nonce", 1024)?;
    let problem = match (input.provider.nonce, input.expected.nonce, carried) {
        (NoncePolicy::Forbidden, None, None) | (NoncePolicy::Optional, None, _) => return Ok(()),
        (NoncePolicy::Forbidden, ..) => NonceProblem::Forbidden,
        (_, None, _) => NonceProblem::RequestLacksIt,
        (_, Some(_), None) => NonceProblem::TokenLacksIt,
        (_, Some(raw), Some(carried)) => {
            if nonce_matches(raw, carried) {
                return Ok(());
            }
            NonceProblem::Differs
        }
    };
    Err(VerifyError::Nonce(problem))
}

/// The token may carry the nonce itself, or its SHA-256 in hex (Apple and Google SDKs) or base64url.
fn nonce_matches(raw: &str, carried: &str) -> bool {
    let hash = sha256(raw.as_bytes());
    let forms = [raw.to_owned(), HEXLOWER.encode(&hash), BASE64URL_NOPAD.encode(&hash)];
    forms.iter().fold(false, |found, form| found | same(form.as_bytes(), carried.as_bytes()))
}

/// OpenID Connect Core section 3.1.3.6: the left half of the hash that the signature algorithm names.
fn check_access_token_hash<'a>(input: &Input<'a>, _: &mut Found<'a>) -> Result<(), VerifyError> {
    use SignatureAlgorithm as A;
    use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
    let Some(access_token) = input.expected.access_token else { return Ok(()) };
    let Some(carried) = optional_text(input.claims, "at_hash", 128)? else {
        return Err(VerifyError::AccessTokenHash("is absent, so it does not cover"));
    };
    let unknown = VerifyError::AccessTokenHash("is of an unknown kind, so it does not cover");
    let hash = match input.hashed_by.ok_or(unknown)? {
        A::Rs256 | A::Ps256 | A::Es256 => &SHA256,
        A::Rs384 | A::Ps384 | A::Es384 => &SHA384,
        A::Rs512 | A::Ps512 | A::EdDsa => &SHA512,
    };
    let full = digest(hash, access_token.as_bytes());
    let half = BASE64URL_NOPAD.encode(&full.as_ref()[..full.as_ref().len() / 2]);
    if same(half.as_bytes(), carried.as_bytes()) {
        Ok(())
    } else {
        Err(VerifyError::AccessTokenHash("does not fit"))
    }
}

/// `sub` is at most 255 ASCII characters (OpenID Connect Core section 2).
fn check_subject<'a>(input: &Input<'a>, found: &mut Found<'a>) -> Result<(), VerifyError> {
    let subject = needed_text(input.claims, "sub", 255)?;
    if !subject.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(VerifyError::Claim { claim: "sub", problem: "not printable ASCII" });
    }
    found.subject = Some(subject);
    Ok(())
}

fn check_token_id<'a>(input: &Input<'a>, found: &mut Found<'a>) -> Result<(), VerifyError> {
    found.jti = optional_text(input.claims, "jti", 256)?;
    Ok(())
}

pub(super) fn needed_text<'a>(
    claims: &'a Map<String, Value>,
    claim: &'static str,
    most: usize,
) -> Result<&'a str, VerifyError> {
    optional_text(claims, claim, most)?.ok_or(VerifyError::Claim { claim, problem: "absent" })
}

pub(super) fn optional_text<'a>(
    claims: &'a Map<String, Value>,
    claim: &'static str,
    most: usize,
) -> Result<Option<&'a str>, VerifyError> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Err(VerifyError::Claim { claim, problem: "empty" }),
        Some(Value::String(text)) if text.len() > most => Err(VerifyError::Claim { claim, problem: "too long" }),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(VerifyError::Claim { claim, problem: "not a text" }),
    }
}

fn needed_date(claims: &Map<String, Value>, claim: &'static str) -> Result<UnixTime, VerifyError> {
    date(claims, claim)?.ok_or(VerifyError::Claim { claim, problem: "absent" })
}

/// A NumericDate (RFC 7519 section 2), whole seconds only: a text, a fraction, a negative or an absurd
/// number is refused rather than taken for absent.
fn date(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<UnixTime>, VerifyError> {
    match claims.get(claim) {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(s) if (0..=LAST_SECOND).contains(&s) => Ok(Some(UnixTime::from_secs(s))),
            Some(_) => Err(VerifyError::Claim { claim, problem: "not a time between 1970 and 9999" }),
            None => Err(VerifyError::Claim { claim, problem: "not a whole number of seconds" }),
        },
    }
}

/// A claim as an error message may show it: at most 64 characters, control characters escaped.
pub(super) fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().count() > 64 {
        shown.push('…');
    }
    shown
}

fn shown(expected: impl Into<String>, seen: impl Into<String>) -> Shown {
    Shown { expected: expected.into(), seen: seen.into(), idle: false }
}

/// A claim whose value is not shown.
fn presence(claims: &Map<String, Value>, claim: &str) -> &'static str {
    match claims.get(claim) {
        None => "none",
        Some(Value::String(_)) => "a text",
        Some(Value::Number(_)) => "a number",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "true or false",
        Some(Value::Array(_)) => "a list",
        Some(Value::Object(_)) => "an object",
    }
}

/// A claim that error texts show as well.
fn open_text(claims: &Map<String, Value>, claim: &str) -> String {
    match claims.get(claim) {
        Some(Value::String(text)) => shortened(text),
        _ => presence(claims, claim).to_owned(),
    }
}

fn seconds(claims: &Map<String, Value>, claim: &'static str, now: UnixTime) -> String {
    match date(claims, claim) {
        Ok(Some(at)) => match at.as_secs() - now.as_secs() {
            ahead if ahead > 0 => format!("{ahead} s from now"),
            ago => format!("{} s ago", -ago),
        },
        _ => presence(claims, claim).to_owned(),
    }
}

fn leeway(input: &Input<'_>) -> u64 {
    Duration::as_secs(&input.provider.clock_leeway)
}

fn show_algorithm(input: &Input<'_>) -> Shown {
    let names: Vec<&str> = input.provider.algorithms.iter().map(|a| a.name()).collect();
    shown(format!("one of {}", names.join(", ")), input.token.map_or("none", |t| t.algorithm().name()))
}

fn show_signature(input: &Input<'_>) -> Shown {
    let kid = input.token.and_then(UnverifiedToken::unverified_kid);
    let kid = kid.map_or_else(|| "no kid".to_owned(), |k| format!("kid {}", shortened(k)));
    let algorithm = input.token.map_or("none", |t| t.algorithm().name());
    shown("valid for the provider's key", format!("{algorithm}, {kid}"))
}

fn show_issuer(input: &Input<'_>) -> Shown {
    let expected = match &input.provider.issuer {
        IssuerRule::Exact(issuers) => issuers.join(" or "),
        rule @ IssuerRule::PerTenant { .. } => format!("{} with the token's tid", rule.shown()),
    };
    shown(expected, open_text(input.claims, "iss"))
}

fn show_tenant(input: &Input<'_>) -> Shown {
    let seen = presence(input.claims, "tid");
    match &input.provider.issuer {
        IssuerRule::Exact(_) => Shown { idle: true, ..shown("nothing: the issuer is exact", seen) },
        IssuerRule::PerTenant { allowed_tenant_ids, .. } => {
            shown(format!("one of {} allowed tenants", allowed_tenant_ids.len()), seen)
        }
    }
}

fn show_audience(input: &Input<'_>) -> Shown {
    let seen = match audiences(input.claims) {
        Some(list) => shortened(&list.join(", ")),
        None => presence(input.claims, "aud").to_owned(),
    };
    shown(format!("one of {} client ids", input.provider.client_ids.len()), seen)
}

fn show_party(input: &Input<'_>) -> Shown {
    let more = input.provider.authorized_parties.len();
    let expected = format!("none, a client id, or one of {more} authorized parties");
    shown(expected, open_text(input.claims, "azp"))
}

fn show_expiry(input: &Input<'_>) -> Shown {
    let seen = seconds(input.claims, "exp", input.now);
    shown(format!("not passed, {} s leeway", leeway(input)), seen)
}

fn show_past(input: &Input<'_>, claim: &'static str, optional: bool) -> Shown {
    let claims = input.claims;
    let expected = format!("{}not ahead, {} s leeway", if optional { "none, or " } else { "" }, leeway(input));
    Shown { idle: optional && !claims.contains_key(claim), ..shown(expected, seconds(claims, claim, input.now)) }
}

fn show_age(input: &Input<'_>) -> Shown {
    let most = input.provider.max_token_age.as_secs();
    let seen = format!("issued {}", seconds(input.claims, "iat", input.now));
    shown(format!("at most {most} s old, {} s leeway", leeway(input)), seen)
}

fn show_nonce(input: &Input<'_>) -> Shown {
    let carried = input.claims.contains_key("nonce");
    let expected = match input.provider.nonce {
        NoncePolicy::Optional => "equal, or its SHA-256, when the request brings one",
        NoncePolicy::Required => "one in the request, equal or its SHA-256 in the token",
        NoncePolicy::ServerIssued => "one of this server in the request, equal or its SHA-256 in the token",
        NoncePolicy::Forbidden => "none",
    };
    let there = |yes: bool| if yes { "one" } else { "none" };
    let requested = input.expected.nonce.is_some();
    let idle = !requested && matches!(input.provider.nonce, NoncePolicy::Optional | NoncePolicy::Forbidden);
    let seen = format!("{} in the request, {} in the token", there(requested), there(carried));
    Shown { idle, ..shown(expected, seen) }
}

fn show_access_token_hash(input: &Input<'_>) -> Shown {
    let seen = presence(input.claims, "at_hash");
    match input.expected.access_token {
        None => Shown { idle: true, ..shown("nothing: the request brings no access token", seen) },
        Some(_) => shown("the hash of the access token in the request", seen),
    }
}

fn show_subject(input: &Input<'_>) -> Shown {
    shown("1 to 255 printable ASCII characters", presence(input.claims, "sub"))
}

fn show_token_id(input: &Input<'_>) -> Shown {
    let claims = input.claims;
    Shown {
        idle: !claims.contains_key("jti"),
        ..shown("none, or a text of at most 256 bytes", presence(claims, "jti"))
    }
}
