//! What `serve --dev` adds: the loopback issuer, its user with a factor, and headers that are believed.

use std::sync::Arc;

use poem::endpoint::BoxEndpoint;
use poem::http::StatusCode;
use poem::web::{Data, Query};
use poem::{EndpointExt, Request, get, handler};

use super::{DEV_USER, StartError, keys};
use crate::clock::Clock;
use crate::dev::{self, DevIssuer};
use crate::http::{Assume, Assumed};
use crate::ids::{FactorId, TenantId, UserId};
use crate::mfa::ports::{Factors, StoredFactor};
use crate::mfa::verify::TOTP_PURPOSE;
use crate::mfa::{Factor, MfaMethod, totp};
use crate::secret::{Entropy, Secret};
use crate::signin::history::{ContextPrint, PastEnd, Pseudonyms};
use crate::signin::identity::{Profile, UserKind};
use crate::signin::ports::{NewOutcome, Outcomes, SignInCommit, StoreError, Users};
use crate::signin::record::SignInRecord;
use crate::signin::user::{IdentityKey, PlannedChange, User, UserStatus};
use crate::store::Store;
use crate::vault::Vault;

/// The loopback issuer with its user, and the reader of development headers.
pub(super) async fn start(
    issuer: String,
    store: &Arc<Store>,
    vault: &Vault,
    pseudonyms: &Pseudonyms,
    clock: &Arc<dyn Clock>,
    entropy: &dyn Entropy,
) -> Result<(BoxEndpoint<'static>, Assume), StartError> {
    let secret = dev_totp_secret(store, vault).await?;
    seed_dev_user(&issuer, store, vault, &secret, pseudonyms, &**clock, entropy).await?;
    let totp = DevTotp { secret: Arc::new(secret), clock: Arc::clone(clock) };
    let issuer = Arc::new(DevIssuer::new(issuer, Arc::clone(clock))?);
    let routes = issuer.routes().at("/totp", get(dev_totp.data(totp))).boxed();
    let assume: Assume = Arc::new(|request| {
        let header = |name: &str| request.header(name).map(str::to_owned);
        Ok(Assumed { ip: dev::assumed_ip(header)?, location: dev::assumed_location(header)? })
    });
    Ok((routes, assume))
}

/// The development user's TOTP secret: the same at every start, and another in every store.
async fn dev_totp_secret(store: &Store, vault: &Vault) -> Result<Secret, StoreError> {
    let key = store.kept_key(vault, keys::DEVELOPMENT_TOTP).await?;
    Ok(Secret::new(key.expose()[..20].to_vec()))
}

#[derive(Clone)]
struct DevTotp {
    secret: Arc<Secret>,
    clock: Arc<dyn Clock>,
}

#[derive(serde::Deserialize)]
struct DevTotpQuery {
    /// Steps of 30 s from now: a code is good once, so the next one may be needed.
    #[serde(default)]
    step: i64,
}

#[handler]
fn dev_totp(request: &Request, totp: Data<&DevTotp>, query: Query<DevTotpQuery>) -> poem::Result<String> {
    if !dev::is_from_here(request.headers()) {
        return Err(poem::Error::from_status(StatusCode::FORBIDDEN));
    }
    let shift = query.step.clamp(-1, 1) * 30;
    let at = crate::clock::UnixTime::from_secs(totp.clock.now().as_secs() + shift);
    Ok(totp::code_at(&totp.secret, at).unwrap_or_default())
}

async fn seed_dev_user(
    issuer: &str,
    store: &Arc<Store>,
    vault: &Vault,
    secret: &Secret,
    pseudonyms: &Pseudonyms,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<(), StoreError> {
    let now = clock.now();
    let Ok(tenant) = TenantId::parse(TenantId::DEFAULT) else { return Ok(()) };
    let identity = IdentityKey {
        tenant: tenant.clone(),
        provider: "dev".into(),
        issuer: issuer.into(),
        subject: DEV_USER.into(),
    };
    if store.find_by_identity(&identity, now).await?.is_some() {
        return Ok(());
    }
    let user = User {
        id: UserId::generate(now, entropy),
        tenant: tenant.clone(),
        status: UserStatus::Active,
        profile: Profile {
            kind: UserKind::Person,
            email: None,
            email_verified: false,
            name: Some("Ada".to_owned()),
            username: Some(DEV_USER.to_owned()),
            phone: None,
            phone_verified: false,
            locale: None,
            attributes: std::collections::BTreeMap::new(),
            groups: Vec::new(),
            roles: Vec::new(),
        },
        created_at: now,
        password: None,
    };
    let id = user.id;
    let record = SignInRecord {
        id: crate::ids::EventId::generate(now, entropy),
        at: now,
        tenant,
        provider: "dev".into(),
        user: None,
        end: PastEnd::Refused,
        code: Some("development_user_made".into()),
        context: ContextPrint::of(&Default::default(), TenantId::DEFAULT, pseudonyms),
        assessment: None,
        session: None,
    };
    let change = PlannedChange::Create { user: Box::new(user), identity };
    store.commit(SignInCommit { change, came_by: None, outcome: NewOutcome::Denial, record, sealed: None }).await?;
    let factor = FactorId::generate(now, entropy);
    let sealed_secret = vault.seal(TOTP_PURPOSE, factor.as_bytes(), secret);
    let described = Factor { id: factor, method: MfaMethod::Totp, enrolled_at: now, last_used_at: None };
    store.put_pending(id, StoredFactor { factor: described, sealed_secret, last_step: None }).await?;
    store.confirm(id, factor, 0, now).await.map(|_| ())
}
