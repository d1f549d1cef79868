//! Shapes of the OAuth endpoints. Forms and answers that hold tokens are not printable.

use poem_openapi::Object;

use super::dto::PasswordWarning;
use super::text::Text;

/// A request for tokens. Which parameters count depends on `grant_type`.
#[derive(Object)]
#[oai(rename = "oauth.TokenRequest", skip_serializing_if_is_none)]
pub struct TokenForm {
    /// `urn:ietf:params:oauth:grant-type:token-exchange` or `refresh_token`.
    pub grant_type: Option<Text>,
    /// The client, unless it stands in the header.
    pub client_id: Option<Text>,
    /// Its secret, unless it stands in the header. A public client has none.
    pub client_secret: Option<Text>,
    /// Exchange: the ID token of the provider.
    pub subject_token: Option<Text>,
    /// Exchange: `urn:ietf:params:oauth:token-type:id_token`.
    pub subject_token_type: Option<Text>,
    /// Exchange: `urn:ietf:params:oauth:token-type:access_token`, or absent.
    pub requested_token_type: Option<Text>,
    /// Exchange: one of the client's audiences. Absent: this server itself.
    pub audience: Option<Text>,
    /// Exchange: the same as an address (RFC 8707).
    pub resource: Option<Text>,
    /// Not supported: there are no scopes.
    pub scope: Option<Text>,
    /// Not supported: nobody acts for a user.
    pub actor_token: Option<Text>,
    /// Not supported.
    pub actor_token_type: Option<Text>,
    /// Exchange: the provider's name in the tenant. Absent: found among the client's by `iss` and `aud`.
    pub provider: Option<Text>,
    /// Exchange: the raw nonce of the sign-in at the provider.
    pub nonce: Option<Text>,
    /// Exchange: the provider's access token, for `at_hash`.
    pub access_token: Option<Text>,
    /// Exchange: a stable identifier of the device or installation, at most 256 bytes.
    pub device_id: Option<Text>,
    /// Refresh: the refresh token.
    pub refresh_token: Option<Text>,
}

/// Tokens (RFC 6749 section 5.1, RFC 8693 section 2.2.1).
#[derive(Object)]
#[oai(rename = "oauth.TokenResponse", skip_serializing_if_is_none)]
pub struct TokenResponse {
    /// An RFC 9068 access token.
    pub access_token: String,
    /// Exchange: `urn:ietf:params:oauth:token-type:access_token`.
    pub issued_token_type: Option<String>,
    /// `Bearer`, or `DPoP` when the tokens are bound to a key.
    pub token_type: String,
    /// Seconds until the access token expires.
    pub expires_in: u64,
    /// Good for one refresh. Absent when the policy gives none.
    pub refresh_token: Option<String>,
    /// The user's local password must be changed. Absent without one, as the two members below.
    pub must_change_password: Option<bool>,
    /// Days until the user's local password ends.
    pub password_expires_in: Option<i64>,
    /// How near that is.
    pub password_warning: Option<PasswordWarning>,
}

/// A token to be asked about or ended.
#[derive(Object)]
#[oai(rename = "oauth.TokenQuestion", skip_serializing_if_is_none)]
pub struct TokenQuestion {
    /// An access or refresh token of this server.
    pub token: Option<Text>,
    /// Passed over: both kinds are looked for.
    pub token_type_hint: Option<Text>,
    /// The client, unless it stands in the header.
    pub client_id: Option<Text>,
    /// Its secret, unless it stands in the header.
    pub client_secret: Option<Text>,
}

/// What is known of a token (RFC 7662 section 2.2). All but `active` is absent when it is not good.
#[derive(Object)]
#[oai(rename = "oauth.Introspection", skip_serializing_if_is_none)]
pub struct Introspection {
    /// Whether the token is good now.
    pub active: bool,
    /// The audience of an access token.
    pub aud: Option<String>,
    /// The client that it was issued to.
    pub client_id: Option<String>,
    /// When it expires, in seconds since 1970.
    pub exp: Option<i64>,
    /// When it was issued, in seconds since 1970.
    pub iat: Option<i64>,
    /// The issuer.
    pub iss: Option<String>,
    /// Its identifier.
    pub jti: Option<String>,
    /// The user, `usr_…`.
    pub sub: Option<String>,
    /// The user name.
    pub username: Option<String>,
    /// `Bearer` or `DPoP`, for an access token.
    pub token_type: Option<String>,
    /// The session, `ses_…`.
    pub sid: Option<String>,
    /// The tenant.
    pub tenant_id: Option<String>,
    /// When the user proved who they are, in seconds since 1970.
    pub auth_time: Option<i64>,
    /// The provider's context class.
    pub acr: Option<String>,
    /// How the user proved it (RFC 8176).
    pub amr: Option<Vec<String>>,
    /// The key that it is bound to (RFC 9449 section 6.2).
    pub cnf: Option<Confirmation>,
}

impl Introspection {
    /// A token that is not good.
    #[must_use]
    pub fn inactive() -> Self {
        Self {
            active: false,
            aud: None,
            client_id: None,
            exp: None,
            iat: None,
            iss: None,
            jti: None,
            sub: None,
            username: None,
            token_type: None,
            sid: None,
            tenant_id: None,
            auth_time: None,
            acr: None,
            amr: None,
            cnf: None,
        }
    }
}

/// The key that a token is bound to.
#[derive(Object)]
#[oai(rename = "oauth.Confirmation")]
pub struct Confirmation {
    /// Its thumbprint (RFC 7638).
    pub jkt: String,
}

/// A provider's logout token.
#[derive(Object)]
#[oai(rename = "oauth.LogoutRequest", skip_serializing_if_is_none)]
pub struct LogoutToken {
    /// As OpenID Connect Back-Channel Logout 1.0 section 2.4 says.
    pub logout_token: Option<Text>,
}

/// RFC 8414 section 2.
#[derive(Debug, Object)]
#[oai(rename = "oauth.ServerMetadata")]
pub struct ServerMetadata {
    /// `iss` of access tokens.
    pub issuer: String,
    /// Where tokens are issued.
    pub token_endpoint: String,
    /// Where the public keys are.
    pub jwks_uri: String,
    /// RFC 7662.
    pub introspection_endpoint: String,
    /// RFC 7009.
    pub revocation_endpoint: String,
    /// For people.
    pub service_documentation: String,
    /// Token exchange and refresh.
    pub grant_types_supported: Vec<String>,
    /// None: there is no authorization endpoint.
    pub response_types_supported: Vec<String>,
    /// `public`.
    pub subject_types_supported: Vec<String>,
    /// What new signing keys are for.
    pub id_token_signing_alg_values_supported: Vec<String>,
    /// How clients prove themselves at the token endpoint.
    pub token_endpoint_auth_methods_supported: Vec<String>,
    /// The same for introspection.
    pub introspection_endpoint_auth_methods_supported: Vec<String>,
    /// The same for revocation.
    pub revocation_endpoint_auth_methods_supported: Vec<String>,
    /// Algorithms of DPoP proofs (RFC 9449 section 5.1).
    pub dpop_signing_alg_values_supported: Vec<String>,
}
