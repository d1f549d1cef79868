//! Every check of a token in order, with what was expected and what was seen: for test mode and `token try`.
//!
//! The trace runs the same functions as a sign-in, to the end instead of to the first failure. It decides
//! nothing: the sign-in was refused, or would be, by the walk of [`pipeline`](super::pipeline). A claim check
//! that holds while the signature does not is [`Status::Unproven`], never passed: anybody could have written
//! such claims (RFC 8725 section 3.1).

use std::sync::Arc;

use super::checks::{CHECKS, FIRST_OF_CLAIMS, Found, Input, shortened};
use super::error::SignInError;
use super::key::VerificationKey;
use super::pipeline::Pipeline;
use super::provider::{NoncePolicy, Provider, ReplayPolicy};
use super::request::SignInRequest;
use super::token::UnverifiedToken;
use super::verify::{Expected, NonceProblem, VerifyError, input_of};
use crate::codes::ErrorCode;

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// A check of an ID token.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Check {
            $($(#[$doc])* $name,)*
        }

        impl Check {
            /// All of them, in the order in which they are run.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

checks! {
    /// Size, three parts, base64url, JSON without a member named twice.
    Shape = "shape",
    /// The members of the header.
    Header = "header",
    /// Which configured provider the token is for.
    Provider = "provider",
    /// `alg` is pinned.
    Algorithm = "alg",
    /// The provider's key.
    Key = "key",
    /// The signature.
    Signature = "signature",
    /// `iss`, with `tid` where the issuer is a template.
    Issuer = "iss",
    /// `tid` is let in.
    UpstreamTenant = "tid",
    /// `aud`.
    Audience = "aud",
    /// `azp`.
    AuthorizedParty = "azp",
    /// `exp`.
    Expiry = "exp",
    /// `iat`.
    IssuedAt = "iat",
    /// `nbf`.
    NotBefore = "nbf",
    /// `auth_time`.
    AuthTime = "auth_time",
    /// Time since `iat`.
    Age = "age",
    /// `nonce`.
    Nonce = "nonce",
    /// `at_hash`.
    AccessTokenHash = "at_hash",
    /// `sub`.
    Subject = "sub",
    /// `jti`.
    TokenId = "jti",
    /// The nonce was issued here, for this tenant, and is not spent.
    IssuedNonce = "issued_nonce",
    /// The token was not used before.
    Replay = "replay",
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    Passed,
    /// It would hold, but no valid signature covers what was looked at.
    Unproven,
    /// It does not hold.
    Failed,
    /// It was not run: a check that it needs failed.
    Skipped,
    /// Neither the provider's rules nor the request ask for it.
    NotApplicable,
}

impl Status {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Unproven => "unproven",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::NotApplicable => "not_applicable",
        }
    }
}

/// One check as it went. Holds no token, signature, nonce, address or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Which.
    pub check: Check,
    /// How it ended.
    pub status: Status,
    /// What would be right.
    pub expected: String,
    /// What was there.
    pub seen: String,
    /// The code and text of the refusal, when it failed.
    pub refusal: Option<(ErrorCode, String)>,
}

/// How the walk ended, as far as the last checks are concerned: they look into the store, so a trace must not
/// run them again.
pub(super) struct Ending<'a> {
    /// All checks up to the replay guard passed.
    pub verified: bool,
    /// The refusal.
    pub error: Option<&'a SignInError>,
}

#[derive(Default)]
struct Trace(Vec<Checked>);

impl Trace {
    fn add(
        &mut self,
        check: Check,
        status: Status,
        (expected, seen): (impl Into<String>, impl Into<String>),
        refusal: Option<(ErrorCode, String)>,
    ) {
        self.0.push(Checked { check, status, expected: expected.into(), seen: seen.into(), refusal });
    }

    /// Passed or failed, by a result whose error tells why.
    fn note<E: Into<SignInError>>(
        &mut self,
        check: Check,
        result: Result<(), E>,
        shown: (impl Into<String>, impl Into<String>),
    ) {
        match result {
            Ok(()) => self.add(check, Status::Passed, shown, None),
            Err(error) => self.fail(check, &error.into(), shown),
        }
    }

    fn fail(&mut self, check: Check, error: &SignInError, shown: (impl Into<String>, impl Into<String>)) {
        self.add(check, Status::Failed, shown, Some((error.code(), error.to_string())));
    }

    fn holds(&self, check: Check) -> bool {
        self.0.iter().any(|c| c.check == check && matches!(c.status, Status::Passed | Status::Unproven))
    }

    /// Everything that has no row yet was not run.
    fn skip_rest(mut self) -> Vec<Checked> {
        for check in Check::ALL {
            if !self.0.iter().any(|c| c.check == *check) {
                self.add(*check, Status::Skipped, ("", "not looked at: an earlier check failed"), None);
            }
        }
        self.0
    }
}

impl Pipeline {
    /// All checks of the request's token. Reads keys; writes nothing.
    pub(super) async fn examine(&self, request: &SignInRequest, ending: &Ending<'_>) -> Vec<Checked> {
        let mut trace = Trace::default();
        if let Some(provider) = self.foreign_provider(request) {
            return self.examine_foreign(&provider, request, ending, trace).await;
        }
        let Some(token) = examine_form(request, &mut trace) else { return trace.skip_rest() };
        let Some(provider) = self.examine_provider(request, &token, &mut trace) else { return trace.skip_rest() };
        let expected = Expected::of(request);
        let mut input = Input {
            claims: token.claims(),
            token: Some(&token),
            hashed_by: Some(token.algorithm()),
            key: None,
            provider: &provider,
            expected: &expected,
            now: self.clock.now(),
        };
        let mut found = Found::default();
        let (before_key, after_key) = CHECKS.split_at(1);
        run_rows(before_key, &input, &mut found, &mut trace);
        let key = self.examine_key(&provider, &token, &mut trace).await;
        input.key = key.as_deref();
        run_rows(after_key, &input, &mut found, &mut trace);
        examine_uses(&provider, ending, &mut trace);
        trace.skip_rest()
    }

    /// The provider, when a verifier of its own reads its tokens.
    fn foreign_provider(&self, request: &SignInRequest) -> Option<Arc<Provider>> {
        let tenant = self.resolve_tenant(request).ok()?;
        let (provider, _) = self.receive(&tenant, request).ok()?;
        self.verifiers.verifies(&provider).then_some(provider)
    }

    /// A verifier reads these tokens: it is asked once more for the claims that it vouches for, and the rows of
    /// claims are run on them.
    async fn examine_foreign(
        &self,
        provider: &Provider,
        request: &SignInRequest,
        ending: &Ending<'_>,
        mut trace: Trace,
    ) -> Vec<Checked> {
        let seen = "a verifier of the provider reads its tokens";
        for check in [Check::Shape, Check::Header] {
            trace.add(check, Status::NotApplicable, ("what the verifier takes", seen), None);
        }
        trace.add(Check::Provider, Status::Passed, ("an enabled provider", &*provider.name), None);
        for check in [Check::Algorithm, Check::Key] {
            trace.add(check, Status::NotApplicable, ("what the verifier takes", seen), None);
        }
        let (now, shown) = (self.clock.now(), ("accepted by the verifier", seen));
        if let Some(error @ SignInError::Foreign(_)) = ending.error {
            trace.fail(Check::Signature, error, shown);
            return trace.skip_rest();
        }
        let foreign = match self.verifiers.verify(provider, &request.id_token, now).await {
            Ok(foreign) => foreign,
            Err(error) => {
                trace.fail(Check::Signature, &error.into(), shown);
                return trace.skip_rest();
            }
        };
        trace.add(Check::Signature, Status::Passed, shown, None);
        let expected = Expected::of(request);
        let input = input_of(&foreign, provider, &expected, now);
        run_rows(&CHECKS[FIRST_OF_CLAIMS..], &input, &mut Found::default(), &mut trace);
        examine_uses(provider, ending, &mut trace);
        trace.skip_rest()
    }

    fn examine_provider(
        &self,
        request: &SignInRequest,
        token: &UnverifiedToken,
        trace: &mut Trace,
    ) -> Option<Arc<Provider>> {
        let resolved =
            self.resolve_tenant(request).and_then(|tenant| self.resolve_provider(&tenant, request, token));
        let expected = match &request.provider {
            Some(_) => "the enabled provider that the request names",
            None => "one enabled provider whose issuer and client ids fit",
        };
        let seen = match &resolved {
            Ok(provider) => provider.name.to_string(),
            Err(_) => format!(
                "iss {}, aud {}",
                token.unverified_issuer().map_or_else(|| "none".to_owned(), shortened),
                shortened(&token.unverified_audiences().join(", "))
            ),
        };
        match resolved {
            Ok(provider) => {
                trace.add(Check::Provider, Status::Passed, (expected, seen), None);
                Some(provider)
            }
            Err(error) => {
                trace.fail(Check::Provider, &error, (expected, seen));
                None
            }
        }
    }

    async fn examine_key(
        &self,
        provider: &Provider,
        token: &UnverifiedToken,
        trace: &mut Trace,
    ) -> Option<Arc<VerificationKey>> {
        let kid = token.unverified_kid();
        let shown = (
            format!("a published key that fits {}", token.algorithm()),
            kid.map_or_else(|| "no kid".to_owned(), |k| format!("kid {}", shortened(k))),
        );
        if !trace.holds(Check::Algorithm) {
            trace.add(Check::Key, Status::Skipped, (shown.0, "not asked for: the algorithm is refused"), None);
            return None;
        }
        match self.keys.find_key(provider, kid, token.algorithm()).await {
            Ok(key) => {
                trace.add(Check::Key, Status::Passed, shown, None);
                Some(key)
            }
            Err(error) => {
                trace.fail(Check::Key, &error.into(), shown);
                None
            }
        }
    }
}

fn examine_form(request: &SignInRequest, trace: &mut Trace) -> Option<UnverifiedToken> {
    let shape = ("three parts of base64url, JSON objects without a member named twice", {
        format!("{} bytes, {} parts", request.id_token.len(), request.id_token.split('.').count())
    });
    let header = "a pinned kind of alg, typ JWT or none, nothing that names a key or changes the rules";
    if request.id_token.is_empty() {
        trace.fail(Check::Shape, &SignInError::MissingToken, shape);
        return None;
    }
    match UnverifiedToken::parse(&request.id_token) {
        Ok(token) => {
            trace.add(Check::Shape, Status::Passed, shape, None);
            trace.add(Check::Header, Status::Passed, (header, token.algorithm().name()), None);
            Some(token)
        }
        Err(error) if error.is_of_header() => {
            trace.add(Check::Shape, Status::Passed, (shape.0, shape.1 + ", read up to the header"), None);
            let seen = error.to_string();
            trace.note(Check::Header, Err(error), (header, seen));
            None
        }
        Err(error) => {
            trace.note(Check::Shape, Err(error), shape);
            None
        }
    }
}

fn run_rows<'a>(rows: &[super::checks::Row], input: &Input<'a>, found: &mut Found<'a>, trace: &mut Trace) {
    for row in rows {
        let shown = (row.show)(input);
        if let Some(missing) = row.needs.iter().find(|c| !trace.holds(**c)) {
            let seen = format!("not looked at: \"{}\" does not hold", missing.as_str());
            trace.add(row.check, Status::Skipped, (shown.expected, seen), None);
            continue;
        }
        let of_claims = !matches!(row.check, Check::Algorithm | Check::Signature);
        let result = (row.run)(input, found);
        let shown_pair = (shown.expected, shown.seen);
        match result {
            Err(error) => trace.fail(row.check, &error.into(), shown_pair),
            Ok(()) if shown.idle => trace.add(row.check, Status::NotApplicable, shown_pair, None),
            Ok(()) if of_claims && !trace.holds(Check::Signature) => {
                trace.add(row.check, Status::Unproven, shown_pair, None);
            }
            Ok(()) => trace.add(row.check, Status::Passed, shown_pair, None),
        }
    }
}

/// The two checks that the store decides.
fn examine_uses(provider: &Provider, ending: &Ending<'_>, trace: &mut Trace) {
    let nonce = ("a nonce of this server that nobody used yet", "the one in the request");
    match ending.error {
        _ if provider.nonce != NoncePolicy::ServerIssued => {
            let seen = "nonces of this provider are the application's own";
            trace.add(Check::IssuedNonce, Status::NotApplicable, (nonce.0, seen), None);
        }
        _ if ending.verified => trace.add(Check::IssuedNonce, Status::Passed, nonce, None),
        Some(error @ SignInError::Verify(VerifyError::Nonce(NonceProblem::NotOurs))) => {
            trace.fail(Check::IssuedNonce, error, nonce);
        }
        _ => {}
    }
    let replay = ("not used before", "this token");
    match ending.error {
        _ if !ending.verified => {}
        _ if provider.replay == ReplayPolicy::Allow => {
            let seen = "replay = \"allow\": nobody remembers";
            trace.add(Check::Replay, Status::NotApplicable, (replay.0, seen), None);
        }
        Some(error @ SignInError::Replayed) => trace.fail(Check::Replay, error, replay),
        Some(SignInError::Store(_)) => {}
        _ => trace.add(Check::Replay, Status::Passed, replay, None),
    }
}
