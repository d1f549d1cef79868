//! The HTTP edge: one file for each tag of the document, shapes in [`dto`], refusals in [`problem`].
//!
//! No rule stands here. Every answer, the library's own rejections included, has the JSON form of the
//! contract and a request identifier.

mod admin;
mod admin_audit;
mod admin_clients;
mod admin_decisions;
mod admin_examples;
mod admin_invitations;
mod admin_keys;
mod admin_people;
mod admin_plugins;
mod admin_policies;
mod admin_policy_dto;
mod admin_providers;
mod admin_sessions;
mod admin_signing_keys;
mod admin_tenants;
mod admin_user_secrets;
mod admin_users;
pub mod body;
mod client;
pub mod docs;
pub mod dto;
mod form;
mod me;
mod me_devices;
mod me_identities;
mod me_password;
mod my_sessions;
mod oauth;
mod oauth_dto;
pub mod oauth_error;
mod oauth_examples;
pub mod ops;
mod people_examples;
mod policy_examples;
pub mod problem;
pub mod provider_settings;
pub mod reply;
mod security_events;
pub mod serve;
mod sign_in;
pub mod spec;
pub mod text;

use std::collections::HashMap;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use ipnet::IpNet;
use poem::endpoint::BoxEndpoint;
use poem::http::{HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, EndpointExt, IntoEndpoint, Request, Response, Route};
use poem_openapi::auth::Bearer;
use poem_openapi::registry::{MetaApi, Registry};
use poem_openapi::{ExtraHeader, OpenApi, OpenApiService, SecurityScheme, Tags};
use serde_json::Value;

use crate::admin::directory::DirectoryService;
use crate::admin::keys::{KeyCheck, KeyError};
use crate::admin::plugins::Plugins;
use crate::admin::ports::AuditLog;
use crate::admin::probe::{ProviderAudit, ProviderProbe};
use crate::admin::users::{SignInLog, UserAdmin};
use crate::clock::Clock;
use crate::codes::ErrorCode;
use crate::ids::RequestId;
use crate::mfa::delivery::CodeSender;
use crate::mfa::enrol::Enrolment;
use crate::mfa::verify::ChallengeVerifier;
use crate::people::devices::DeviceService;
use crate::people::identities::IdentityService;
use crate::people::invitations::InvitationService;
use crate::people::passwords::{PasswordService, PasswordStatus};
use crate::policy::service::PolicyService;
use crate::secret::Entropy;
use crate::session::bearer::{BearerCheck, BearerError, Presented};
use crate::session::ports::SessionUser;
use crate::session::refresh::SessionService;
use crate::session::rotation::KeyKeeper;
use crate::session::upstream::UpstreamEvents;
use crate::signin::error::SignInError;
use crate::signin::facts::Location;
use crate::signin::networks::Networks;
use crate::signin::pipeline::Pipeline;
use crate::signin::ports::StoreError;
use crate::signin::provider::Tenant;
use crate::signin::user::User;
use problem::Problem;

/// How long one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Whether the store answers.
#[async_trait]
pub trait Readiness: Send + Sync {
    /// Asks it.
    async fn check(&self) -> Result<(), StoreError>;
}

/// Where a request claims to come from; believed in development only.
#[derive(Debug, Default)]
pub struct Assumed {
    /// The address.
    pub ip: Option<IpAddr>,
    /// The place.
    pub location: Option<Location>,
}

/// Reads the development headers of a request; only `serve --dev` has one.
pub type Assume = Arc<dyn Fn(&Request) -> Result<Assumed, String> + Send + Sync>;

/// What the operations need.
pub struct State {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The sign-in path.
    pub pipeline: Arc<Pipeline>,
    /// Answers to challenges.
    pub challenges: ChallengeVerifier,
    /// Codes for challenges.
    pub codes: CodeSender,
    /// Refresh and logout.
    pub sessions: SessionService,
    /// What providers tell of accounts.
    pub upstream: UpstreamEvents,
    /// Bearer tokens.
    pub bearer: BearerCheck,
    /// Enrolment of factors.
    pub enrolment: Enrolment,
    /// Identities of signed-in users.
    pub identities: IdentityService,
    /// Invitations.
    pub invitations: InvitationService,
    /// Local passwords.
    pub passwords: PasswordService,
    /// Devices of signed-in users.
    pub devices: DeviceService,
    /// Administration.
    pub admin: Administration,
    /// The life of policies.
    pub policies: PolicyService,
    /// The store's health.
    pub ready: Arc<dyn Readiness>,
    /// Keys of local tokens.
    pub keys: Arc<KeyKeeper>,
    /// Renders metrics.
    pub render_metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// How often each network asked.
    pub networks: Networks,
    /// Proxies whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Places that a request may claim; only in development.
    pub assume: Option<Assume>,
}

/// What the operations under `/admin` need.
pub struct Administration {
    /// Admin keys.
    pub keys: KeyCheck,
    /// The audit log.
    pub audit: Arc<dyn AuditLog>,
    /// Tenants and providers.
    pub directory: Arc<DirectoryService>,
    /// Users and their sessions.
    pub users: Arc<dyn UserAdmin>,
    /// Records of sign-ins.
    pub sign_ins: Arc<dyn SignInLog>,
    /// Asks providers of themselves.
    pub probe: Arc<dyn ProviderProbe>,
    /// Attacks configurations of providers.
    pub audits: Arc<dyn ProviderAudit>,
    /// The plugins of this node.
    pub plugins: Arc<dyn Plugins>,
}

impl State {
    fn tenant(&self, request: &Request) -> Result<Arc<Tenant>, Problem> {
        let (header, host) = (client::tenant_header(request), client::host(request));
        self.pipeline
            .directory
            .find_tenant(header.as_deref(), host.as_deref())
            .ok_or_else(|| Problem::new(ErrorCode::UnknownTenant, "no tenant is served here under this name"))
    }

    /// The tenant of a request that leads to a session, counted for the network that it comes from.
    fn admit(&self, request: &Request) -> Result<Arc<Tenant>, Problem> {
        let tenant = self.tenant(request)?;
        let address = client::address_of(request, &self.trusted_proxies);
        self.networks.admit(&tenant.id, address, self.clock.now()).map_err(|wait| {
            metrics::counter!("countersign_throttled_total", "tenant" => tenant.id.to_string()).increment(1);
            let text = "too many sign-ins, refreshes or answers came from this network";
            Problem::new(ErrorCode::TooManyRequests, text).retry_after(wait.as_millis().div_ceil(1000) as u64)
        })?;
        Ok(tenant)
    }

    /// Counts a refused ID token for its network, when nobody whom the provider knows signed it.
    fn note_refusal(&self, request: &Request, refusal: &SignInError) {
        if let Ok(tenant) = self.tenant(request) {
            let address = client::address_of(request, &self.trusted_proxies);
            self.networks.add_refusal(&tenant.id, address, refusal, self.clock.now());
        }
    }

    async fn signed_in(&self, request: &Request, auth: Option<&BearerAuth>) -> Result<SessionUser, Problem> {
        let tenant = self.tenant(request)?;
        let checked = match auth {
            Some(BearerAuth(bearer)) => {
                let presented = Presented {
                    token: &bearer.token,
                    as_bound: request.data::<client::SentAsBound>().is_some(),
                    proof: match client::dpop_header(request) {
                        client::DpopHeader::Proof(proof) => Some(proof),
                        client::DpopHeader::Absent | client::DpopHeader::Unusable => None,
                    },
                    method: request.method().as_str(),
                    path: request.uri().path(),
                };
                self.bearer.check(&tenant.id, presented).await
            }
            None => Err(BearerError::Missing),
        };
        checked.map_err(|error| self.refused(error.code(), &error))
    }

    /// What a client is told of the user's local password.
    fn password_of(&self, user: &User) -> Option<PasswordStatus> {
        self.passwords.status(&user.tenant, user.password)
    }

    /// A refusal; when its cause lies inside, the cause goes to the log and the text does not tell it.
    fn refused(&self, code: ErrorCode, error: &dyn std::error::Error) -> Problem {
        if code == ErrorCode::StoreUnavailable {
            let mut causes = Vec::new();
            let mut next = Some(error);
            while let Some(cause) = next {
                causes.push(cause.to_string());
                next = cause.source();
            }
            tracing::error!(error = causes.join(": "), "a request was refused for a cause inside");
        }
        Problem::new(code, error.to_string())
    }
}

/// Where an operation stands in the document.
#[derive(Tags)]
enum Tag {
    /// An ID token in; local tokens, a challenge or a refusal out.
    #[oai(rename = "Sign-in")]
    SignIn,
    /// Answers to challenges.
    #[oai(rename = "MFA")]
    Mfa,
    /// Refresh and logout.
    Session,
    /// The same for clients that speak OAuth 2.0.
    #[oai(rename = "OAuth")]
    OAuth,
    /// The signed-in user.
    Me,
    /// Tenants, providers, users, keys, and the record of every change. Takes an admin key.
    Administration,
    /// Health, metrics and keys.
    Operations,
}

/// A local access token.
#[derive(SecurityScheme)]
#[oai(ty = "bearer", bearer_format = "JWT", rename = "bearer")]
struct BearerAuth(Bearer);

/// A local access token, or none.
#[derive(SecurityScheme)]
enum MaybeBearer {
    Bearer(BearerAuth),
    #[oai(fallback)]
    Anonymous,
}

type Apis = (
    sign_in::SignInApi,
    MeApis,
    my_sessions::MySessionsApi,
    oauth::OAuthApi,
    security_events::SecurityEventsApi,
    AdminApis,
    ops::OpsApi,
);
type MeApis =
    (me::MeApi, me_identities::IdentitiesApi, me_password::PasswordApi, me_devices::DevicesApi, PeopleAdminApis);
type PeopleAdminApis = (
    admin_invitations::AdminInvitationsApi,
    admin_user_secrets::AdminUserSecretsApi,
    admin_signing_keys::AdminSigningKeysApi,
    admin_clients::AdminClientsApi,
);
type AdminApis = (
    admin_tenants::AdminTenantsApi,
    admin_providers::AdminProvidersApi,
    admin_users::AdminUsersApi,
    admin_sessions::AdminSessionsApi,
    admin_audit::AdminAuditApi,
    admin_keys::AdminKeysApi,
    admin_policies::AdminPoliciesApi,
    admin_decisions::AdminDecisionsApi,
    admin_decisions::MySignInsApi,
    admin_plugins::AdminPluginsApi,
);

fn me_apis(state: &Arc<State>) -> MeApis {
    let state = || Arc::clone(state);
    let administration = (
        admin_invitations::AdminInvitationsApi(state()),
        admin_user_secrets::AdminUserSecretsApi(state()),
        admin_signing_keys::AdminSigningKeysApi(state()),
        admin_clients::AdminClientsApi(state()),
    );
    (
        me::MeApi(state()),
        me_identities::IdentitiesApi(state()),
        me_password::PasswordApi(state()),
        me_devices::DevicesApi(state()),
        administration,
    )
}

fn admin_apis(state: &Arc<State>) -> AdminApis {
    let state = || Arc::clone(state);
    (
        admin_tenants::AdminTenantsApi(state()),
        admin_providers::AdminProvidersApi(state()),
        admin_users::AdminUsersApi(state()),
        admin_sessions::AdminSessionsApi(state()),
        admin_audit::AdminAuditApi(state()),
        admin_keys::AdminKeysApi(state()),
        admin_policies::AdminPoliciesApi(state()),
        admin_decisions::AdminDecisionsApi(state()),
        admin_decisions::MySignInsApi(state()),
        admin_plugins::AdminPluginsApi(state()),
    )
}

fn described<A: OpenApi>(api: A) -> OpenApiService<A, ()> {
    let tenant = ExtraHeader::new("X-Tenant-ID")
        .description("The tenant. Absent: the one of the host, else `default`. Unknown: 404 `unknown_tenant`.");
    let request_id = ExtraHeader::new("X-Request-Id").description("The request's identifier, `req_…`.");
    OpenApiService::new(api, spec::TITLE, env!("CARGO_PKG_VERSION"))
        .description(spec::DESCRIPTION)
        .license(poem_openapi::LicenseObject::new("Apache-2.0").url("https://www.apache.org/licenses/LICENSE-2.0"))
        .extra_request_header::<Option<String>, _>(tenant)
        .extra_response_header::<String, _>(request_id)
}

/// The whole edge: operations, document and docs page, under `/` and under `base_path`. `development`
/// is what `serve --dev` adds under `/dev`.
pub fn endpoint(
    state: Arc<State>,
    base_path: &str,
    cors_origins: &[String],
    development: Option<BoxEndpoint<'static>>,
) -> BoxEndpoint<'static> {
    let entropy = Arc::clone(&state.entropy);
    let clock = Arc::clone(&state.clock);
    let trusted_proxies = state.trusted_proxies.clone();
    let (me, admin) = (me_apis(&state), admin_apis(&state));
    let apis: Apis = (
        sign_in::SignInApi(Arc::clone(&state)),
        me,
        my_sessions::MySessionsApi(Arc::clone(&state)),
        oauth::OAuthApi(Arc::clone(&state)),
        security_events::SecurityEventsApi(Arc::clone(&state)),
        admin,
        ops::OpsApi(state),
    );
    let service = described(apis);
    let document = spec::document(&service.spec());
    let allow = Arc::new(spec::AllowedMethods::of_document(&document));
    let docs = docs::Docs::new(bundled_page, &document);
    let mut route = Route::new().nest("/", docs.routes(service.into_endpoint()));
    if let Some(development) = development {
        route = route.nest("/dev", development);
    }
    let inner: BoxEndpoint<'static> = if cors_origins.is_empty() {
        route.boxed()
    } else {
        let mut cors = poem::middleware::Cors::new().max_age(600);
        for origin in cors_origins {
            cors = cors.allow_origin(origin);
        }
        route.with(cors).map_to_response().boxed()
    };
    Outermost { inner, clock, entropy, base_path: base_path.to_owned(), allow, trusted_proxies }.boxed()
}

/// Gives every request an identifier, and every answer the form of the contract.
struct Outermost {
    inner: BoxEndpoint<'static>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    base_path: String,
    allow: Arc<spec::AllowedMethods>,
    trusted_proxies: Vec<IpNet>,
}

impl Endpoint for Outermost {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let id = RequestId::generate(self.clock.now(), &*self.entropy);
        self.strip_base_path(&mut request);
        client::unify_scheme(&mut request);
        request.extensions_mut().insert(id);
        let path = request.uri().path().to_owned();
        let unfit = if !client::has_fit_host(&request) {
            Some("the request must have one header Host, with a host in it (RFC 9112 section 3.2)")
        } else if !client::has_one_address(&request, &self.trusted_proxies) {
            Some(
                "Forwarded and X-Forwarded-For tell of different clients; the proxy must write one and drop the other",
            )
        } else {
            None
        };
        let call = async {
            if let Some(text) = unfit {
                return Err(Problem::new(ErrorCode::MalformedRequest, text).into());
            }
            self.inner.call(request).await
        };
        let called = AssertUnwindSafe(tokio::time::timeout(REQUEST_TIME, call)).catch_unwind();
        let mut response = match called.await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(error))) => self.rejected(error, &path),
            Ok(Err(_)) => {
                reply::carry(Problem::new(ErrorCode::RequestTimeout, "the request took longer than 30 s"))
            }
            Err(_) => {
                tracing::error!(request.id = %id, "a request ended in a panic");
                reply::carry(Problem::new(ErrorCode::InternalError, "the request could not be finished"))
            }
        };
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            response = problem.into_response_for(id);
        }
        let headers = response.headers_mut();
        headers.insert(reply::REQUEST_ID, reply::header_value(&id.to_string()));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(response)
    }
}

impl Outermost {
    fn strip_base_path(&self, request: &mut Request) {
        if self.base_path.is_empty() {
            return;
        }
        let Some(rest) = request.uri().path().strip_prefix(self.base_path.as_str()) else { return };
        if !rest.is_empty() && !rest.starts_with('/') {
            return;
        }
        let path = if rest.is_empty() { "/" } else { rest };
        let stripped = match request.uri().query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        if let Ok(uri) = stripped.parse() {
            *request.uri_mut() = uri;
        }
    }

    /// The library's own rejections, in the form of the contract.
    fn rejected(&self, error: poem::Error, path: &str) -> Response {
        use poem_openapi::error as rejected;
        if error.is_from_response() {
            return error.into_response();
        }
        if let Some(problem) = error.downcast_ref::<Problem>() {
            return reply::carry(problem.clone());
        }
        let problem = if error.is::<rejected::AuthorizationError>() {
            if path.starts_with("/admin/") {
                Problem::new(ErrorCode::MissingAdminKey, KeyError::Missing.to_string())
            } else {
                Problem::new(ErrorCode::MissingAccessToken, BearerError::Missing.to_string())
            }
        } else if error.is::<rejected::ContentTypeError>() {
            Problem::new(ErrorCode::UnsupportedMediaType, "the body must have the content type application/json")
        } else {
            match error.status() {
                StatusCode::NOT_FOUND => Problem::new(ErrorCode::NotFound, "there is nothing at this address"),
                StatusCode::METHOD_NOT_ALLOWED => {
                    let text = "the address takes other methods, see the header Allow";
                    let mut problem = Problem::new(ErrorCode::MethodNotAllowed, text);
                    problem.allow = Some(self.allow.of(path));
                    problem
                }
                StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                    ErrorCode::BodyTooLarge,
                    format!("the body is larger than {} bytes", body::BODY_LIMIT_BYTES),
                ),
                StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                    Problem::new(ErrorCode::UnsupportedMediaType, "the body must be application/json")
                }
                status if status.is_client_error() => Problem::new(ErrorCode::MalformedRequest, error.to_string()),
                status => {
                    tracing::error!(status = status.as_u16(), error = %error, "an operation failed inside");
                    Problem::new(ErrorCode::InternalError, "the request could not be finished")
                }
            }
        };
        reply::carry(problem)
    }
}

/// An API that is described and never called: the document is made without a running server.
struct Described<T>(PhantomData<T>);

impl<T: OpenApi + Send + Sync> OpenApi for Described<T> {
    fn meta() -> Vec<MetaApi> {
        T::meta()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn add_routes(self, _routes: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {}
}

fn bundled_page() -> String {
    described(Described::<Apis>(PhantomData)).swagger_ui_html()
}

/// The document that `/openapi.json` serves.
#[must_use]
pub fn openapi_document() -> Value {
    spec::document(&described(Described::<Apis>(PhantomData)).spec())
}
