//! The OAuth endpoints: token (RFC 6749, RFC 8693), introspection (RFC 7662), revocation (RFC 7009), metadata
//! (RFC 8414), and the back-channel logout of providers.

use std::sync::Arc;

use data_encoding::BASE64;
use poem::Request;
use poem::http::header;
use poem_openapi::auth::Basic;
use poem_openapi::param::Header;
use poem_openapi::{OpenApi, SecurityScheme};
use serde_json::{Map, Value};

use super::form::{Form, decode};
use super::oauth_dto::{Introspection, LogoutToken, ServerMetadata, TokenForm, TokenQuestion, TokenResponse};
use super::oauth_error::{ChallengeDetails, OAuthDetails, in_oauth_form, refusal, under};
use super::ops::NoRefusals;
use super::problem::Problem;
use super::reply::{Refusals, Reply};
use super::text::Text;
use super::{State, Tag, client, dto};
use crate::codes::ErrorCode as E;
use crate::ids::TenantId;
use crate::people::passwords::PasswordStatus;
use crate::session::clients::{Client, ClientGrant, proves};
use crate::session::issue::IssuedTokens;
use crate::session::ports::SessionUser;
use crate::session::refresh::Asker;
use crate::signin::pipeline::Outcome;
use crate::signin::provider::SignatureAlgorithm;
use crate::signin::request::TokenBinding;
use crate::signin::user::UserStatus;

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const REFRESH_TOKEN: &str = "refresh_token";
const ID_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:id_token";
const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";

pub(super) struct OAuthApi(pub Arc<State>);

/// A client's identifier and secret (RFC 6749 section 2.3.1). They may stand in the form instead.
#[derive(SecurityScheme)]
#[oai(ty = "basic", rename = "client")]
struct ClientBasic(#[expect(dead_code, reason = "read from the header itself, escapes included")] Basic);

/// Credentials in the header, or none there.
#[derive(SecurityScheme)]
enum MaybeBasic {
    Client(#[expect(dead_code, reason = "it stands in the document")] ClientBasic),
    #[oai(fallback)]
    None,
}

macro_rules! oauth_refusals {
    ($name:ident: $($code:ident),*) => {
        pub(super) struct $name;
        impl Refusals for $name {
            const OAUTH: bool = true;
            const CODES: &'static [E] = &[
                $(E::$code,)*
                E::UnknownTenant,
                E::BodyTooLarge,
                E::UnsupportedMediaType,
                E::StoreUnavailable,
                E::RequestTimeout,
            ];
        }
    };
}

oauth_refusals!(TokenRefusals: InvalidRequest, InvalidGrant, UnauthorizedClient, UnsupportedGrantType, InvalidTarget,
    InvalidScope, InvalidDpopProof, InvalidClient, MfaRequired, TooManyRequests, ProviderUnavailable);
oauth_refusals!(IntrospectRefusals: InvalidRequest, UnauthorizedClient, InvalidClient);
oauth_refusals!(RevokeRefusals: InvalidRequest, UnauthorizedClient, InvalidClient);
oauth_refusals!(LogoutRefusals: InvalidRequest, ProviderUnavailable);

#[OpenApi]
impl OAuthApi {
    /// Get tokens
    ///
    /// Two grants. `urn:ietf:params:oauth:grant-type:token-exchange` (RFC 8693) takes an ID token of one of the
    /// client's providers through the same path as `POST /auth/id-token/signin`; when a second factor is asked
    /// for, the answer is 403 `mfa_required` with the challenge. `refresh_token` (RFC 6749 section 6) takes a
    /// refresh token that this client got here, as long as it may ask for the session's audience. With a proof in the header `DPoP` (RFC 9449) the tokens are
    /// bound to its key, and `token_type` is `DPoP`.
    #[oai(path = "/oauth/token", method = "post", tag = "Tag::OAuth", operation_id = "issueToken")]
    async fn token(
        &self,
        request: &Request,
        _client: MaybeBasic,
        /// A DPoP proof (RFC 9449 section 4) for this request.
        #[oai(name = "DPoP")]
        _proof: Header<Option<String>>,
        body: Form<TokenForm>,
    ) -> Reply<TokenResponse, TokenRefusals> {
        self.run_token(request, body.0).await.map_err(in_oauth_form).into()
    }

    /// Ask about a token
    ///
    /// For clients with a secret (RFC 7662). An access token of any client of the tenant is told of, a refresh
    /// token to its own client only. What is not good is `active: false`, and nothing else is said of it.
    #[oai(path = "/oauth/introspect", method = "post", tag = "Tag::OAuth", operation_id = "introspectToken")]
    async fn introspect(
        &self,
        request: &Request,
        _client: MaybeBasic,
        body: Form<TokenQuestion>,
    ) -> Reply<Introspection, IntrospectRefusals> {
        self.run_introspect(request, body.0).await.map_err(in_oauth_form).into()
    }

    /// End a token
    ///
    /// Ends the session of an access or refresh token (RFC 7009), and with it all tokens of the session. A token
    /// that opens nothing is fine: it is gone. One of another client is refused.
    #[oai(path = "/oauth/revoke", method = "post", tag = "Tag::OAuth", operation_id = "revokeToken")]
    async fn revoke(
        &self,
        request: &Request,
        _client: MaybeBasic,
        body: Form<TokenQuestion>,
    ) -> Reply<dto::MessageResponse, RevokeRefusals> {
        self.run_revoke(request, body.0).await.map_err(in_oauth_form).into()
    }

    /// Take a provider's word that a session has ended
    ///
    /// OpenID Connect Back-Channel Logout 1.0: register this address at the provider. The logout token is checked
    /// like an ID token, and is good once. Ends the sessions that came from the session or subject it names. The
    /// tenant is the one of the host.
    #[oai(
        path = "/auth/backchannel-logout",
        method = "post",
        tag = "Tag::Session",
        operation_id = "backchannelLogout"
    )]
    async fn backchannel_logout(
        &self,
        request: &Request,
        body: Form<LogoutToken>,
    ) -> Reply<dto::MessageResponse, LogoutRefusals> {
        self.run_logout(request, body.0).await.map_err(in_oauth_form).into()
    }

    /// What this server offers, as OpenID Connect clients ask
    ///
    /// There is no authorization endpoint: users sign in at their providers.
    #[oai(
        path = "/.well-known/openid-configuration",
        method = "get",
        tag = "Tag::OAuth",
        operation_id = "getOpenidConfiguration"
    )]
    async fn openid_configuration(&self) -> Reply<ServerMetadata, NoRefusals> {
        Ok(self.metadata()).into()
    }

    /// What this server offers, as OAuth clients ask
    ///
    /// RFC 8414.
    #[oai(
        path = "/.well-known/oauth-authorization-server",
        method = "get",
        tag = "Tag::OAuth",
        operation_id = "getServerMetadata"
    )]
    async fn server_metadata(&self) -> Reply<ServerMetadata, NoRefusals> {
        Ok(self.metadata()).into()
    }
}

impl OAuthApi {
    async fn run_token(&self, request: &Request, form: TokenForm) -> Result<TokenResponse, Problem> {
        let state = &self.0;
        let tenant = state.admit(request)?.id.clone();
        let client = self.client(request, &tenant, form.client_id.as_ref(), form.client_secret.as_ref())?;
        let grant_type = needed(form.grant_type.as_ref(), "grant_type")?;
        let grant = match grant_type {
            TOKEN_EXCHANGE => ClientGrant::TokenExchange,
            REFRESH_TOKEN => ClientGrant::RefreshToken,
            _ => {
                let text = format!("grant_type must be {TOKEN_EXCHANGE} or {REFRESH_TOKEN}");
                return Err(refusal(E::UnsupportedGrantType, text));
            }
        };
        if !client.may(grant) {
            return Err(refusal(E::UnauthorizedClient, "the client may not use this grant"));
        }
        if form.scope.is_some() {
            return Err(refusal(E::InvalidScope, "access tokens have no scopes here: leave scope out"));
        }
        match grant {
            ClientGrant::TokenExchange => self.exchange(request, client, form).await,
            ClientGrant::RefreshToken => self.refresh(request, tenant, &client, &form).await,
        }
    }

    /// RFC 8693. What the client may not do is refused before anything is looked up or fetched.
    async fn exchange(
        &self,
        request: &Request,
        client: Arc<Client>,
        form: TokenForm,
    ) -> Result<TokenResponse, Problem> {
        if needed(form.subject_token_type.as_ref(), "subject_token_type")? != ID_TOKEN_TYPE {
            return Err(refusal(E::InvalidRequest, format!("subject_token_type must be {ID_TOKEN_TYPE}")));
        }
        needed(form.subject_token.as_ref(), "subject_token")?;
        if form.actor_token.is_some() || form.actor_token_type.is_some() {
            return Err(refusal(E::InvalidRequest, "actor tokens are not taken: nobody acts for a user here"));
        }
        if form.requested_token_type.as_ref().is_some_and(|t| t.0 != ACCESS_TOKEN_TYPE && t.0 != JWT_TYPE) {
            return Err(refusal(E::InvalidRequest, format!("requested_token_type must be {ACCESS_TOKEN_TYPE}")));
        }
        let audience = self.audience(&client, form.audience.as_ref(), form.resource.as_ref())?;
        if form.provider.as_ref().is_some_and(|provider| !client.may_use(&provider.0)) {
            return Err(refusal(E::UnauthorizedClient, "the client may not exchange tokens of this provider"));
        }
        let jkt = self.0.dpop_key(request).await?;
        let sign_in = dto::SignInRequest {
            device_secret: None,
            id_token: form.subject_token,
            provider: form.provider,
            nonce: form.nonce,
            access_token: form.access_token,
            device_id: form.device_id,
            profile: None,
        };
        let binding = TokenBinding { client: Some(client), audience, jkt };
        let outcome = self.0.sign_in(request, sign_in, binding).await.map_err(|p| under(E::InvalidRequest, p))?;
        match outcome {
            Outcome::SignedIn { tokens, user, .. } => {
                Ok(TokenResponse::new(tokens, Some(ACCESS_TOKEN_TYPE), self.0.password_of(&user)))
            }
            challenged @ Outcome::Challenged { .. } => {
                let text = "a second factor is needed: answer the challenge at /auth/mfa/verify-challenge";
                let mut problem = Problem::new(E::MfaRequired, text);
                let challenge = ChallengeDetails::of(challenged.into());
                problem.oauth = Some(Box::new(OAuthDetails { challenge, ..OAuthDetails::default() }));
                Err(problem)
            }
        }
    }

    async fn refresh(
        &self,
        request: &Request,
        tenant: TenantId,
        client: &Client,
        form: &TokenForm,
    ) -> Result<TokenResponse, Problem> {
        let token = needed(form.refresh_token.as_ref(), "refresh_token")?;
        if form.audience.is_some() || form.resource.is_some() {
            return Err(refusal(E::InvalidTarget, "a refresh keeps the audience of its session"));
        }
        let jkt = self.0.dpop_key(request).await?;
        let asker = Asker { client: Some(Arc::clone(&client.id)), jkt };
        let refreshed = self.0.sessions.refresh(tenant, token, asker).await;
        let (living, tokens) =
            refreshed.map_err(|error| under(E::InvalidGrant, self.0.refused(error.code(), &error)))?;
        Ok(TokenResponse::new(tokens, None, self.0.password_of(&living.user)))
    }

    async fn run_introspect(&self, request: &Request, form: TokenQuestion) -> Result<Introspection, Problem> {
        let state = &self.0;
        let (tenant, client, token) = self.asked(request, &form)?;
        if !client.kind.is_confidential() {
            return Err(refusal(E::UnauthorizedClient, "only a client with a secret may ask about tokens"));
        }
        let failed = |error| state.refused(E::StoreUnavailable, &error);
        if let Some((claims, living)) = state.bearer.inspect(&tenant, token).await.map_err(failed)? {
            return Ok(if state.bearer.lets_in(&living) {
                Introspection::of_access(&claims, &living)
            } else {
                Introspection::inactive()
            });
        }
        let found = state.sessions.find_by_refresh(&tenant, token).await.map_err(failed)?;
        let own = found.filter(|(living, _)| {
            living.session.grant.client.as_ref() == Some(&client.id)
                && living.user.status == UserStatus::Active
                && state.bearer.lets_in(living)
        });
        Ok(own.map_or_else(Introspection::inactive, |(living, ends)| {
            Introspection::of_refresh(&living, ends, &state.bearer.issuer.settings.issuer)
        }))
    }

    async fn run_revoke(&self, request: &Request, form: TokenQuestion) -> Result<dto::MessageResponse, Problem> {
        let state = &self.0;
        let (tenant, client, token) = self.asked(request, &form)?;
        let failed = |error| state.refused(E::StoreUnavailable, &error);
        let by_access = state.bearer.inspect(&tenant, token).await.map_err(failed)?.map(|(_, living)| living);
        let living = match by_access {
            Some(living) => Some(living),
            None => state.sessions.find_by_refresh(&tenant, token).await.map_err(failed)?.map(|(living, _)| living),
        };
        if let Some(living) = living {
            check_own(&client, &living)?;
            state.sessions.log_out(&living).await.map_err(failed)?;
        }
        Ok(dto::MessageResponse::new("the token opens nothing any more", state.clock.now()))
    }

    async fn run_logout(&self, request: &Request, form: LogoutToken) -> Result<dto::MessageResponse, Problem> {
        let state = &self.0;
        let tenant = state.tenant(request)?;
        let raw = needed(form.logout_token.as_ref(), "logout_token")?;
        let ended = state.pipeline.verify_logout(&tenant.id, raw).await.map_err(|error| {
            error.log_cause();
            under(E::InvalidRequest, super::sign_in::problem(&error))
        })?;
        let mut sessions = 0;
        for end in ended {
            let provider = Arc::clone(&end.provider);
            let count = state.sessions.end_upstream(end).await;
            let count = count.map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            tracing::info!(tenant.id = %tenant.id, provider.name = %provider, sessions = count, "back-channel logout");
            sessions += count;
        }
        metrics::counter!("countersign_backchannel_logouts_total").increment(1);
        let text = format!("{sessions} sessions have ended");
        Ok(dto::MessageResponse::new(&text, state.clock.now()))
    }

    fn asked<'f>(
        &self,
        request: &Request,
        form: &'f TokenQuestion,
    ) -> Result<(TenantId, Arc<Client>, &'f str), Problem> {
        let tenant = self.0.tenant(request)?.id.clone();
        let client = self.client(request, &tenant, form.client_id.as_ref(), form.client_secret.as_ref())?;
        Ok((tenant, client, needed(form.token.as_ref(), "token")?))
    }

    /// The client that the header or the form proves; never both (RFC 6749 section 2.3).
    fn client(
        &self,
        request: &Request,
        tenant: &TenantId,
        id: Option<&Text>,
        secret: Option<&Text>,
    ) -> Result<Arc<Client>, Problem> {
        let refused = || refusal(E::InvalidClient, "the client is not known, or its secret is not right");
        let mut headers = request.headers().get_all(header::AUTHORIZATION).iter();
        let found = match (headers.next(), headers.next()) {
            (None, _) => {
                let id = id.ok_or_else(|| {
                    refusal(
                        E::InvalidClient,
                        "the request names no client: send Authorization: Basic, or client_id",
                    )
                })?;
                self.registered(tenant, &id.0, secret.map(|s| s.0.as_str()))
            }
            (Some(value), None) => {
                let (name, password) = value.to_str().ok().and_then(basic).ok_or_else(refused)?;
                if secret.is_some() || id.is_some_and(|id| id.0 != name) {
                    let text = "the client must prove itself in the header or in the form, not in both";
                    return Err(refusal(E::InvalidRequest, text));
                }
                self.registered(tenant, &name, Some(&password))
            }
            (Some(_), Some(_)) => return Err(refusal(E::InvalidRequest, "there are two Authorization headers")),
        };
        found.ok_or_else(refused)
    }

    fn registered(&self, tenant: &TenantId, id: &str, secret: Option<&str>) -> Option<Arc<Client>> {
        let client = self.0.bearer.directory.find_client(tenant, id);
        proves(client.as_deref(), secret).then_some(client).flatten()
    }

    /// The audience that is asked for, in the words of RFC 8693 or RFC 8707. This server's own is the default.
    fn audience(
        &self,
        client: &Client,
        audience: Option<&Text>,
        resource: Option<&Text>,
    ) -> Result<Option<Arc<str>>, Problem> {
        let asked = match (audience, resource) {
            (None, None) => return Ok(None),
            (Some(one), None) | (None, Some(one)) => &one.0,
            (Some(one), Some(other)) if one == other => &one.0,
            _ => return Err(refusal(E::InvalidTarget, "audience and resource differ; a token has one audience")),
        };
        if *asked == self.0.bearer.issuer.settings.issuer {
            return Ok(None);
        }
        let own = client.audiences.iter().find(|a| ***a == **asked);
        own.cloned().map(Some).ok_or_else(|| refusal(E::InvalidTarget, "the client may not ask for this audience"))
    }

    fn metadata(&self) -> ServerMetadata {
        let issuer = &self.0.bearer.issuer.settings.issuer;
        let at = |path: &str| format!("{issuer}{path}");
        let texts = |all: &[&str]| all.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
        let authenticated = texts(&["client_secret_basic", "client_secret_post"]);
        ServerMetadata {
            issuer: issuer.clone(),
            token_endpoint: at("/oauth/token"),
            jwks_uri: at("/.well-known/jwks.json"),
            introspection_endpoint: at("/oauth/introspect"),
            revocation_endpoint: at("/oauth/revoke"),
            service_documentation: at("/docs"),
            grant_types_supported: texts(&[TOKEN_EXCHANGE, REFRESH_TOKEN]),
            response_types_supported: Vec::new(),
            subject_types_supported: texts(&["public"]),
            id_token_signing_alg_values_supported: vec![self.0.keys.algorithm.name().to_owned()],
            token_endpoint_auth_methods_supported: texts(&["client_secret_basic", "client_secret_post", "none"]),
            introspection_endpoint_auth_methods_supported: authenticated,
            revocation_endpoint_auth_methods_supported: texts(&[
                "client_secret_basic",
                "client_secret_post",
                "none",
            ]),
            dpop_signing_alg_values_supported: SignatureAlgorithm::ALL.map(|a| a.name().to_owned()).to_vec(),
        }
    }
}

impl TokenResponse {
    fn new(tokens: IssuedTokens, issued_token_type: Option<&str>, password: Option<PasswordStatus>) -> Self {
        Self {
            token_type: tokens.token_type().to_owned(),
            access_token: tokens.access_token,
            issued_token_type: issued_token_type.map(str::to_owned),
            expires_in: tokens.expires_in.as_secs(),
            refresh_token: tokens.refresh_token,
            must_change_password: password.map(|status| status.must_change),
            password_expires_in: password.and_then(|status| status.expires_in_days),
            password_warning: password.and_then(|status| status.warning).map(Into::into),
        }
    }
}

impl Introspection {
    fn of_access(claims: &Map<String, Value>, living: &SessionUser) -> Self {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| claims.get(name).and_then(Value::as_i64);
        let grant = &living.session.grant;
        Self {
            aud: text("aud"),
            exp: number("exp"),
            iat: number("iat"),
            jti: text("jti"),
            token_type: Some(if grant.jkt.is_some() { "DPoP" } else { "Bearer" }.to_owned()),
            ..Self::of_session(living, text("iss").as_deref().unwrap_or_default())
        }
    }

    fn of_refresh(living: &SessionUser, ends: crate::clock::UnixTime, issuer: &str) -> Self {
        Self { exp: Some(ends.as_secs()), ..Self::of_session(living, issuer) }
    }

    fn of_session(living: &SessionUser, issuer: &str) -> Self {
        let grant = &living.session.grant;
        Self {
            active: true,
            iss: Some(issuer.to_owned()),
            sub: Some(living.user.id.to_string()),
            client_id: Some(grant.client_id.to_string()),
            username: living.user.profile.username.clone(),
            sid: Some(living.session.id.to_string()),
            tenant_id: Some(grant.tenant.to_string()),
            auth_time: Some(grant.auth_time.as_secs()),
            acr: grant.acr.clone(),
            amr: Some(grant.amr.clone()).filter(|amr| !amr.is_empty()),
            cnf: grant.jkt.as_ref().map(|jkt| super::oauth_dto::Confirmation { jkt: jkt.to_string() }),
            ..Self::inactive()
        }
    }
}

fn check_own(client: &Client, living: &SessionUser) -> Result<(), Problem> {
    let grant = &living.session.grant;
    if grant.client.as_ref() == Some(&client.id) && grant.client_generation == client.generation {
        return Ok(());
    }
    Err(refusal(E::UnauthorizedClient, "the token was issued to another client"))
}

fn needed<'t>(text: Option<&'t Text>, name: &str) -> Result<&'t str, Problem> {
    text.map(|t| t.0.as_str()).ok_or_else(|| refusal(E::InvalidRequest, format!("{name} is missing")))
}

/// Identifier and secret of `Basic` credentials: each was form-encoded first (RFC 6749 section 2.3.1).
fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = BASE64.decode(credentials.trim().as_bytes()).ok()?;
    let at = bytes.iter().position(|b| *b == b':')?;
    Some((decode(&bytes[..at]).ok()?, decode(&bytes[at + 1..]).ok()?))
}

impl State {
    /// The thumbprint of the key whose proof the request brings in `DPoP`, if it brings one.
    pub(super) async fn dpop_key(&self, request: &Request) -> Result<Option<Arc<str>>, Problem> {
        use crate::session::dpop::{DpopError, ProofOf};
        let proof = match client::dpop_header(request) {
            client::DpopHeader::Absent => return Ok(None),
            client::DpopHeader::Unusable => {
                return Err(Problem::new(E::InvalidDpopProof, "the header DPoP is there twice, or is not ASCII"));
            }
            client::DpopHeader::Proof(proof) => proof,
        };
        let of = ProofOf { method: request.method().as_str(), path: request.uri().path(), access_token: None };
        match self.bearer.dpop.check(proof, of).await {
            Ok(jkt) => Ok(Some(jkt)),
            Err(error @ DpopError::Proof(_)) => Err(Problem::new(E::InvalidDpopProof, error.to_string())),
            Err(DpopError::Store(error)) => Err(self.refused(E::StoreUnavailable, &error)),
        }
    }
}
