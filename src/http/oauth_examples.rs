//! Examples of the OAuth endpoints for the document.

use serde_json::{Value, json};

use super::spec::{CHALLENGE, JWT, REFRESH, USER};
use crate::codes::ErrorCode;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ISSUER: &str = "https://id.example.com";
const SESSION: &str = "ses_034xz6kz5ef7g8h9jkmnpqrstv";

/// What a refusal of these endpoints has besides.
pub(super) fn complete(refusal: &mut Value, code: ErrorCode) {
    refusal["error_description"] = refusal["message"].clone();
    match code {
        ErrorCode::InvalidGrant => refusal["reason"] = ErrorCode::RefreshTokenReused.as_str().into(),
        ErrorCode::InvalidRequest => refusal["reason"] = ErrorCode::IdTokenExpired.as_str().into(),
        ErrorCode::MfaRequired => {
            refusal["challenge_token"] = CHALLENGE.into();
            refusal["expires_in"] = 300.into();
            refusal["required_mfa_methods"] = json!(["totp"]);
            refusal["mfa_check_reason"] = "new_device".into();
        }
        _ => {}
    }
}

pub(super) fn request(operation: &str) -> Option<Value> {
    Some(match operation {
        "issueToken" => json!({
            "grant_type": EXCHANGE,
            "client_id": "shop-app",
            "subject_token": JWT,
            "subject_token_type": ID_TOKEN,
            "provider": "google",
        }),
        "introspectToken" | "revokeToken" => {
            json!({"token": REFRESH, "client_id": "shop-web", "client_secret": "the-secret-of-shop-web"})
        }
        "pushSecurityEvent" => JWT.into(),
        "backchannelLogout" => json!({"logout_token": JWT}),
        _ => return None,
    })
}

/// The other form of the body of `pushSecurityEvent`.
pub(super) fn apple_notice() -> Value {
    json!({"payload": JWT})
}

pub(super) fn success(operation: &str) -> Vec<(&'static str, &'static str, Value)> {
    match operation {
        "issueToken" => {
            let tokens = |more: &[(&str, &str)]| {
                let mut tokens = json!({"access_token": JWT, "expires_in": 1800, "refresh_token": REFRESH});
                for (name, value) in more {
                    tokens[*name] = (*value).into();
                }
                tokens
            };
            let exchanged = tokens(&[("issued_token_type", ACCESS_TOKEN), ("token_type", "Bearer")]);
            vec![
                ("exchanged", "Tokens for an ID token", exchanged),
                ("bound", "A refresh of tokens that are bound to a key", tokens(&[("token_type", "DPoP")])),
            ]
        }
        "introspectToken" => {
            let active = json!({
                "active": true,
                "iss": ISSUER,
                "aud": ISSUER,
                "sub": USER,
                "client_id": "shop-app",
                "username": "ada",
                "token_type": "Bearer",
                "iat": 1_768_472_000,
                "exp": 1_768_473_800,
                "jti": "c2VjcmV0LWhhbGY",
                "sid": SESSION,
                "tenant_id": "default",
                "auth_time": 1_768_472_000,
                "amr": ["pwd"],
            });
            vec![("active", "A good access token", active), ("inactive", "Anything else", json!({"active": false}))]
        }
        "getOpenidConfiguration" | "getServerMetadata" => {
            let at = |path: &str| format!("{ISSUER}{path}");
            let metadata = json!({
                "issuer": ISSUER,
                "token_endpoint": at("/oauth/token"),
                "jwks_uri": at("/.well-known/jwks.json"),
                "introspection_endpoint": at("/oauth/introspect"),
                "revocation_endpoint": at("/oauth/revoke"),
                "service_documentation": at("/docs"),
                "grant_types_supported": [EXCHANGE, "refresh_token"],
                "response_types_supported": [],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["EdDSA"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
                "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
                "dpop_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
            });
            vec![("metadata", "Of a server at id.example.com", metadata)]
        }
        _ => Vec::new(),
    }
}
