//! The attacks. Each builds one request from a token that would pass, and states only what differs.

use std::sync::Arc;

use aws_lc_rs::hmac;
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::forge::{Forge, Forged, OTHER_KID, b64};
use super::stage::Stage;
use crate::secret::sha256;
use crate::signin::provider::{IssuerRule, Linking, NoncePolicy, Provider};

/// What the attacker wants.
pub(super) enum Goal {
    /// The token passes all checks.
    Verified,
    /// The identity becomes the victim's.
    Victim,
}

/// One request of an attacker.
pub(super) struct Attempt {
    pub token: String,
    pub nonce: Option<String>,
    pub access_token: Option<String>,
    /// Sent twice; the second counts.
    pub twice: bool,
    pub goal: Goal,
    /// Instead of the provider as it is configured.
    pub provider: Option<Arc<Provider>>,
    pub enabled: bool,
}

impl Attempt {
    /// This token, with the genuine nonce.
    pub(super) fn of(token: Forged<'_>) -> Self {
        Self::raw(token.forge, token.sign())
    }

    fn raw(forge: &Forge<'_>, token: String) -> Self {
        Self {
            token,
            nonce: forge.nonce.clone(),
            access_token: None,
            twice: false,
            goal: Goal::Verified,
            provider: None,
            enabled: true,
        }
    }
}

/// One attack.
pub(super) struct Attack {
    pub name: &'static str,
    /// What stops it, when it succeeds.
    pub mend: &'static str,
    /// The request, or why there is nothing to attack.
    pub build: fn(&Forge<'_>) -> Result<Attempt, &'static str>,
}

/// An attack that no configuration can let through.
const DEFECT: &str = "this is a defect of the server, whatever is configured: report it";

const fn attack(name: &'static str, build: fn(&Forge<'_>) -> Result<Attempt, &'static str>) -> Attack {
    Attack { name, mend: DEFECT, build }
}

const fn weak(
    name: &'static str,
    mend: &'static str,
    build: fn(&Forge<'_>) -> Result<Attempt, &'static str>,
) -> Attack {
    Attack { name, mend, build }
}

fn unsigned(forge: &Forge<'_>, algorithm: &str) -> Result<Attempt, &'static str> {
    let token = forge.token().header("alg", algorithm);
    Ok(Attempt::raw(forge, format!("{}.", token.input())))
}

fn with_header(forge: &Forge<'_>, name: &str, value: Value) -> Result<Attempt, &'static str> {
    Ok(Attempt::of(forge.token().header(name, value)))
}

fn hmac_signed(forge: &Forge<'_>, secret: &[u8]) -> Result<Attempt, &'static str> {
    let token = forge.token().header("alg", "HS256");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), token.input().as_bytes());
    Ok(Attempt::raw(forge, token.with_signature(tag.as_ref())))
}

fn with_claim(forge: &Forge<'_>, name: &str, value: Value) -> Result<Attempt, &'static str> {
    Ok(Attempt::of(forge.token().claim(name, value)))
}

fn claiming_the_victim(forge: &Forge<'_>, verified: Value) -> Result<Attempt, &'static str> {
    let token = forge.token().claim("email", Stage::ADDRESS).claim("email_verified", verified);
    Ok(Attempt { goal: Goal::Victim, ..Attempt::of(token) })
}

fn template<'a>(forge: &'a Forge<'_>) -> Result<(&'a str, &'a str, &'a str), &'static str> {
    match &forge.provider.issuer {
        IssuerRule::Exact(_) => Err("the issuer is exact"),
        IssuerRule::PerTenant { prefix, suffix, allowed_tenant_ids } => {
            Ok((prefix, suffix, allowed_tenant_ids.first().map_or("", String::as_str)))
        }
    }
}

/// All of them.
pub(super) static ATTACKS: &[Attack] = &[
    attack("alg none, no signature", |f| unsigned(f, "none")),
    attack("alg None", |f| unsigned(f, "None")),
    attack("alg NONE", |f| unsigned(f, "NONE")),
    attack("alg nOnE", |f| unsigned(f, "nOnE")),
    attack("alg none, a signature beside it", |f| with_header(f, "alg", "none".into())),
    attack("no alg", |f| Ok(Attempt::of(f.token().without_header("alg")))),
    attack("HS256 with the public key's JWK as secret", |f| {
        hmac_signed(f, f.genuine.jwk("audit-1").to_string().as_bytes())
    }),
    attack("HS256 with the public key's bytes as secret", |f| hmac_signed(f, &f.genuine.public_bytes())),
    attack("HS256 with the public key's PEM as secret", |f| {
        let body = BASE64.encode(&f.genuine.public_bytes());
        hmac_signed(f, format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n").as_bytes())
    }),
    attack("an algorithm that is not pinned, by a published key", |f| {
        if f.provider.algorithms.contains(&f.other_algorithm) {
            return Err("the other algorithm is pinned as well");
        }
        let token = f.token().header("alg", f.other_algorithm.name()).header("kid", OTHER_KID);
        Ok(Attempt::of(token.by(&f.other)))
    }),
    attack("a published key of another type", |f| with_header(f, "kid", OTHER_KID.into())),
    attack("a foreign key under a known kid", |f| Ok(Attempt::of(f.token().by(&f.foreign)))),
    attack("a foreign key under an unknown kid", |f| {
        Ok(Attempt::of(f.token().header("kid", "of-nobody").by(&f.foreign)))
    }),
    attack("a foreign key without a kid", |f| Ok(Attempt::of(f.token().without_header("kid").by(&f.foreign)))),
    attack("kid is a path", |f| Ok(Attempt::of(f.token().header("kid", "../../../dev/null").by(&f.foreign)))),
    attack("an empty signature", |f| Ok(Attempt::raw(f, format!("{}.", f.token().input())))),
    attack("a signature that is cut", |f| {
        let token = f.token();
        let signature = token.signature();
        let half = signature.get(..signature.len() / 2).unwrap_or_default();
        Ok(Attempt::raw(f, token.with_signature(half)))
    }),
    attack("the signature of another token", |f| {
        let signature = f.token().claim("sub", "somebody").signature();
        Ok(Attempt::raw(f, f.token().with_signature(&signature)))
    }),
    attack("header jwk: its own key", |f| {
        let token = f.token().header("jwk", f.foreign.jwk("audit-1"));
        Ok(Attempt::of(token.by(&f.foreign)))
    }),
    attack("header jku", |f| with_header(f, "jku", "https://audit.invalid/keys".into())),
    attack("header x5u", |f| with_header(f, "x5u", "https://audit.invalid/chain".into())),
    attack("header x5c", |f| with_header(f, "x5c", json!(["MIIB"]))),
    attack("header crit", |f| with_header(f, "crit", json!(["exp"]))),
    attack("header b64 false", |f| with_header(f, "b64", false.into())),
    attack("header zip", |f| with_header(f, "zip", "DEF".into())),
    attack("header cty: a token in a token", |f| with_header(f, "cty", "JWT".into())),
    attack("an access token (typ at+jwt)", |f| with_header(f, "typ", "at+jwt".into())),
    attack("a logout token (typ logout+jwt)", |f| with_header(f, "typ", "logout+jwt".into())),
    attack("a header member named twice", |f| Ok(Attempt::of(f.token().twice_in_header("\"alg\":\"none\"")))),
    attack("a claim named twice", |f| Ok(Attempt::of(f.token().twice_in_claims("\"sub\":\"root\"")))),
    attack("five parts", |f| Ok(Attempt::raw(f, format!("{}.AA.AA", f.token().sign())))),
    attack("base64url with padding", |f| Ok(Attempt::raw(f, f.token().sign() + "="))),
    attack("another iss", |f| with_claim(f, "iss", "https://audit.invalid".into())),
    attack("iss with a slash more", |f| {
        let issuer = f.issuer().0;
        let other = issuer.strip_suffix('/').map_or_else(|| format!("{issuer}/"), str::to_owned);
        with_claim(f, "iss", other.into())
    }),
    attack("iss in capitals", |f| with_claim(f, "iss", f.issuer().0.to_ascii_uppercase().into())),
    attack("iss is a list", |f| with_claim(f, "iss", json!([f.issuer().0, "https://audit.invalid"]))),
    attack("no iss", |f| Ok(Attempt::of(f.token().without("iss")))),
    attack("a foreign tid", |f| {
        let (prefix, suffix, _) = template(f)?;
        let tid = "aaaaaaaa-0000-4000-8000-00000000dead";
        Ok(Attempt::of(f.token().claim("tid", tid).claim("iss", format!("{prefix}{tid}{suffix}"))))
    }),
    attack("an allowed tid beside the iss of another", |f| {
        let (prefix, suffix, tid) = template(f)?;
        let issuer = format!("{prefix}aaaaaaaa-0000-4000-8000-00000000dead{suffix}");
        Ok(Attempt::of(f.token().claim("tid", tid).claim("iss", issuer)))
    }),
    attack("another aud", |f| with_claim(f, "aud", "of-another-application".into())),
    attack("an aud that begins as ours", |f| {
        let ours = f.provider.client_ids.first().map_or("", String::as_str);
        with_claim(f, "aud", format!("{ours}-2").into())
    }),
    attack("an empty list as aud", |f| with_claim(f, "aud", json!([]))),
    attack("ours and a foreign aud, and no azp", |f| {
        with_claim(f, "aud", json!([f.provider.client_ids.first(), "of-another-application"]))
    }),
    attack("no aud", |f| Ok(Attempt::of(f.token().without("aud")))),
    attack("a foreign azp", |f| with_claim(f, "azp", "of-another-application".into())),
    attack("expired a day ago", |f| {
        Ok(Attempt::of(f.token().claim("iat", f.seconds(-86_700)).claim("exp", f.seconds(-86_400))))
    }),
    weak("expired three minutes ago", "clock_leeway = \"60s\" is enough for clocks that NTP sets", |f| {
        Ok(Attempt::of(f.token().claim("iat", f.seconds(-200)).claim("exp", f.seconds(-180))))
    }),
    attack("exp is a text", |f| with_claim(f, "exp", f.seconds(300).to_string().into())),
    attack("exp is a fraction", |f| with_claim(f, "exp", json!(f.seconds(300).as_f64().unwrap_or(0.0) + 0.5))),
    attack("exp is negative", |f| with_claim(f, "exp", (-1).into())),
    attack("exp is absurdly far", |f| with_claim(f, "exp", i64::MAX.into())),
    attack("no exp", |f| Ok(Attempt::of(f.token().without("exp")))),
    attack("issued an hour from now", |f| {
        Ok(Attempt::of(f.token().claim("iat", f.seconds(3600)).claim("exp", f.seconds(7200))))
    }),
    attack("not before an hour from now", |f| with_claim(f, "nbf", f.seconds(3600))),
    attack("no iat", |f| Ok(Attempt::of(f.token().without("iat")))),
    weak(
        "two hours old and not expired",
        "max_token_age = \"10m\" fits tokens that come straight from a sign-in",
        |f| Ok(Attempt::of(f.token().claim("iat", f.seconds(-7200)).claim("exp", f.seconds(3600)))),
    ),
    attack("another nonce than the request's", |f| match f.provider.nonce {
        NoncePolicy::Forbidden => with_claim(f, "nonce", "stolen".into()),
        _ => with_claim(f, "nonce", "of-another-sign-in".into()),
    }),
    attack("no nonce in the token", |f| match f.provider.nonce {
        NoncePolicy::Forbidden => Err("nonce = \"forbidden\""),
        _ => Ok(Attempt::of(f.token().without("nonce"))),
    }),
    attack("no nonce in the request", |f| match f.provider.nonce {
        NoncePolicy::Optional => Err("nonce = \"optional\": an application may leave it out"),
        NoncePolicy::Forbidden => Err("nonce = \"forbidden\""),
        NoncePolicy::Required | NoncePolicy::ServerIssued => Ok(Attempt { nonce: None, ..Attempt::of(f.token()) }),
    }),
    attack("a nonce that this server did not issue", |f| match f.provider.nonce {
        NoncePolicy::ServerIssued => {
            let nonce = b64([7; 56]);
            let token = f.token().claim("nonce", nonce.as_str());
            Ok(Attempt { nonce: Some(nonce), ..Attempt::of(token) })
        }
        _ => Err("nonces are the application's own"),
    }),
    attack("at_hash of another access token", |f| {
        let hash = sha256(b"of-another-sign-in");
        let token = f.token().claim("at_hash", b64(&hash[..16]));
        Ok(Attempt { access_token: Some("access".to_owned()), ..Attempt::of(token) })
    }),
    attack("no at_hash beside an access token", |f| {
        Ok(Attempt { access_token: Some("access".to_owned()), ..Attempt::of(f.token()) })
    }),
    attack("no sub", |f| Ok(Attempt::of(f.token().without("sub")))),
    attack("an empty sub", |f| with_claim(f, "sub", "".into())),
    attack("a sub of 5000 characters", |f| with_claim(f, "sub", "s".repeat(5000).into())),
    attack("sub is a number", |f| with_claim(f, "sub", 1.into())),
    weak("the same token twice", "replay = \"single_use\"", |f| {
        Ok(Attempt { twice: true, ..Attempt::of(f.token()) })
    }),
    attack("another user's address, not verified", |f| claiming_the_victim(f, false.into())),
    attack("another user's address, verified \"false\"", |f| claiming_the_victim(f, "false".into())),
    weak(
        "another user's address of a foreign domain, verified by the provider",
        "email_trust = [\"your-domain.example\"], or linking = \"never\": as it is, whoever gets the provider to \
         call an address verified takes over the account that holds it",
        |f| match f.provider.linking {
            Linking::Never => Err("linking = \"never\""),
            _ => claiming_the_victim(f, true.into()),
        },
    ),
    attack("the provider is disabled", |f| Ok(Attempt { enabled: false, ..Attempt::of(f.token()) })),
    attack("no client ids, and an empty aud", |f| {
        let emptied = Provider { client_ids: Vec::new(), ..Provider::clone(f.provider) };
        let token = f.token().claim("aud", "");
        Ok(Attempt { provider: Some(Arc::new(emptied)), ..Attempt::of(token) })
    }),
];
