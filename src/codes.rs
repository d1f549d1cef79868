//! The stable words of every refusal. Their numbers, HTTP statuses and meanings stand in one exhaustive
//! match in `http::problem`: a new word does not compile without a row there.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// A refusal, as clients tell it apart. A word never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word, in snake case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

codes! {
    /// The body cannot be read as what the operation takes.
    MalformedRequest = "malformed_request",
    /// A refresh token was used a second time.
    RefreshTokenReused = "refresh_token_reused",
    /// The request has no ID token.
    MissingIdToken = "missing_id_token",
    /// The ID token is no compact JWS.
    MalformedIdToken = "malformed_id_token",
    /// Several providers accept the ID token.
    AmbiguousProvider = "ambiguous_provider",
    /// The refresh token opens nothing.
    InvalidRefreshToken = "invalid_refresh_token",
    /// The code is wrong.
    InvalidMfaCode = "invalid_mfa_code",
    /// The user has not answered on the device yet.
    MfaPending = "mfa_pending",
    /// The challenge has expired or died.
    ChallengeExpired = "challenge_expired",
    /// The challenge was answered.
    ChallengeUsed = "challenge_used",
    /// The challenge is not known.
    InvalidChallenge = "invalid_challenge",
    /// The challenge takes other methods.
    MfaMethodNotAllowed = "mfa_method_not_allowed",
    /// No factor waits for confirmation under this id.
    UnknownFactor = "unknown_factor",
    /// No access token.
    MissingAccessToken = "missing_access_token",
    /// The access token is not valid.
    InvalidAccessToken = "invalid_access_token",
    /// The ID token has expired.
    IdTokenExpired = "id_token_expired",
    /// The access token has expired.
    AccessTokenExpired = "access_token_expired",
    /// The session has ended.
    SessionEnded = "session_ended",
    /// The signature is not the provider's.
    IdTokenSignatureInvalid = "id_token_signature_invalid",
    /// The algorithm is not one of the provider's.
    IdTokenAlgorithmNotAllowed = "id_token_algorithm_not_allowed",
    /// A header member is not accepted.
    IdTokenHeaderRefused = "id_token_header_refused",
    /// The token is of another kind.
    IdTokenTypeRefused = "id_token_type_refused",
    /// The token is encrypted.
    IdTokenEncrypted = "id_token_encrypted",
    /// A claim is absent or malformed.
    IdTokenClaimInvalid = "id_token_claim_invalid",
    /// Another issuer.
    IdTokenIssuerMismatch = "id_token_issuer_mismatch",
    /// Another tenant of the provider.
    IdTokenTenantNotAllowed = "id_token_tenant_not_allowed",
    /// Another audience.
    IdTokenAudienceMismatch = "id_token_audience_mismatch",
    /// Another authorized party.
    IdTokenAzpMismatch = "id_token_azp_mismatch",
    /// Not valid yet.
    IdTokenNotYetValid = "id_token_not_yet_valid",
    /// Issued too long ago.
    IdTokenTooOld = "id_token_too_old",
    /// The nonce rule is not met.
    IdTokenNonceMismatch = "id_token_nonce_mismatch",
    /// The access token does not fit `at_hash`.
    IdTokenAtHashMismatch = "id_token_at_hash_mismatch",
    /// Used before.
    IdTokenReplayed = "id_token_replayed",
    /// No provider accepts the token.
    NoProviderFits = "no_provider_fits",
    /// The key is not known.
    UnknownKey = "unknown_key",
    /// The token names no key.
    KeyIdMissing = "key_id_missing",
    /// The key does not fit the algorithm.
    KeyUnfit = "key_unfit",
    /// Several keys have the token's key id.
    KeyAmbiguous = "key_ambiguous",
    /// Denied by policy.
    SignInDenied = "sign_in_denied",
    /// Nobody has this identity.
    UserNotProvisioned = "user_not_provisioned",
    /// The account is disabled.
    AccountDisabled = "account_disabled",
    /// The account is locked.
    AccountLocked = "account_locked",
    /// The mapping or a plugin refuses the identity.
    IdentityRejected = "identity_rejected",
    /// The mapping failed.
    MappingFailed = "mapping_failed",
    /// The account waits for its invitation to be accepted.
    AccountPending = "account_pending",
    /// The operation needs a session that began a moment ago.
    FreshSessionNeeded = "fresh_session_needed",
    /// The link token opens nothing for this user.
    InvalidLinkToken = "invalid_link_token",
    /// No such identity of this user.
    UnknownIdentity = "unknown_identity",
    /// No such open invitation.
    UnknownInvitation = "unknown_invitation",
    /// An invitation for the same is open.
    AlreadyInvited = "already_invited",
    /// The old password is wrong.
    InvalidPassword = "invalid_password",
    /// The new password is not what the tenant asks for.
    PasswordUnacceptable = "password_unacceptable",
    /// The user has no local password.
    NoLocalPassword = "no_local_password",
    /// Too many wrong passwords.
    PasswordLocked = "password_locked",
    /// Too many passwords are being checked.
    PasswordCheckBusy = "password_check_busy",
    /// No such device of this user.
    UnknownDevice = "unknown_device",
    /// The device may not be trusted now.
    DeviceTrustNotAllowed = "device_trust_not_allowed",
    /// The identity is linked to another account.
    IdentityTaken = "identity_taken",
    /// The last identity that the user can sign in with.
    LastIdentity = "last_identity",
    /// The session may not enrol a factor.
    EnrolmentNotAllowed = "enrolment_not_allowed",
    /// No such address.
    NotFound = "not_found",
    /// No such tenant.
    UnknownTenant = "unknown_tenant",
    /// No such provider.
    UnknownProvider = "unknown_provider",
    /// Another method.
    MethodNotAllowed = "method_not_allowed",
    /// Another account holds the address.
    AccountExists = "account_exists",
    /// Two sign-ins met twice.
    SignInConflict = "sign_in_conflict",
    /// The body is too large.
    BodyTooLarge = "body_too_large",
    /// The body is of another type.
    UnsupportedMediaType = "unsupported_media_type",
    /// Too many wrong codes.
    MfaLocked = "mfa_locked",
    /// Too many requests from one network.
    TooManyRequests = "too_many_requests",
    /// The cursor is not one of this list.
    InvalidCursor = "invalid_cursor",
    /// No admin key.
    MissingAdminKey = "missing_admin_key",
    /// The admin key opens nothing.
    InvalidAdminKey = "invalid_admin_key",
    /// Too many admin keys were wrong.
    TooManyAdminKeys = "too_many_admin_keys",
    /// The admin key's role is too low.
    AdminRoleInsufficient = "admin_role_insufficient",
    /// The admin key is for another tenant.
    AdminScopeInsufficient = "admin_scope_insufficient",
    /// The settings break a rule.
    InvalidSettings = "invalid_settings",
    /// No such client.
    UnknownClient = "unknown_client",
    /// The provider is disabled.
    ProviderDisabled = "provider_disabled",
    /// The configuration file says what it is.
    ManagedByConfig = "managed_by_config",
    /// There is one of this name.
    AlreadyExists = "already_exists",
    /// The tenant holds something.
    TenantNotEmpty = "tenant_not_empty",
    /// No such user.
    UnknownUser = "unknown_user",
    /// No such sign-in.
    UnknownSignIn = "unknown_sign_in",
    /// No such session.
    UnknownSession = "unknown_session",
    /// No such admin key.
    UnknownAdminKey = "unknown_admin_key",
    /// The files make no usable bundle of policies.
    PolicyUnusable = "policy_unusable",
    /// The bundle is not signed as it has to be.
    PolicySignatureRefused = "policy_signature_refused",
    /// The bundle does not pass what stands before an activation.
    PolicyNotPassed = "policy_not_passed",
    /// No bundle has this identifier here.
    UnknownPolicy = "unknown_policy",
    /// Nothing was activated before.
    PolicyNothingBefore = "policy_nothing_before",
    /// No decision is kept under this identifier.
    UnknownDecision = "unknown_decision",
    /// A defect of the server.
    InternalError = "internal_error",
    /// The provider's keys or a plugin are out of reach.
    ProviderUnavailable = "provider_unavailable",
    /// The provider's verifier refuses the ID token.
    IdTokenRejected = "id_token_rejected",
    /// Too many messages were sent.
    TooManyMessages = "too_many_messages",
    /// No channel delivers now.
    ChannelUnavailable = "channel_unavailable",
    /// The store is out of reach.
    StoreUnavailable = "store_unavailable",
    /// The request took too long.
    RequestTimeout = "request_timeout",
    /// A request of the OAuth endpoints is not well formed.
    InvalidRequest = "invalid_request",
    /// The client is not known or did not prove who it is.
    InvalidClient = "invalid_client",
    /// The refresh token is not good for this client.
    InvalidGrant = "invalid_grant",
    /// The client may not do this.
    UnauthorizedClient = "unauthorized_client",
    /// The grant type is not known.
    UnsupportedGrantType = "unsupported_grant_type",
    /// The audience is not one of the client's.
    InvalidTarget = "invalid_target",
    /// There are no scopes.
    InvalidScope = "invalid_scope",
    /// The DPoP proof proves nothing.
    InvalidDpopProof = "invalid_dpop_proof",
    /// The access token is bound to a key.
    DpopProofRequired = "dpop_proof_required",
    /// A second factor is asked for.
    MfaRequired = "mfa_required",
}
