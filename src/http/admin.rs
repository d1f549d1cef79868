//! What all operations of administration share: the key, the leave, the page.

use poem::Request;
use poem_openapi::SecurityScheme;
use poem_openapi::auth::Bearer;

use super::problem::Problem;
use super::{State, client};
use crate::admin::access::{Caller, Permit, Place, Resource, Scope, Verb};
use crate::admin::audit::Author;
use crate::admin::keys::KeyError;
use crate::admin::page::{Page, PageError};
use crate::codes::ErrorCode as E;
use crate::ids::{RequestId, TenantId};

/// An admin key.
#[derive(SecurityScheme)]
#[oai(ty = "bearer", bearer_format = "csk_….secret", rename = "adminKey")]
pub(super) struct AdminAuth(pub Bearer);

/// The refusals of an operation under `/admin`, and its own.
macro_rules! admin_refusals {
    ($name:ident $(, $more:ident)*) => {
        pub(super) struct $name;
        impl super::reply::Refusals for $name {
            const CODES: &'static [crate::codes::ErrorCode] = &[
                crate::codes::ErrorCode::MalformedRequest,
                crate::codes::ErrorCode::MissingAdminKey,
                crate::codes::ErrorCode::InvalidAdminKey,
                crate::codes::ErrorCode::TooManyAdminKeys,
                crate::codes::ErrorCode::AdminRoleInsufficient,
                crate::codes::ErrorCode::AdminScopeInsufficient,
                crate::codes::ErrorCode::UnknownTenant,
                crate::codes::ErrorCode::StoreUnavailable,
                crate::codes::ErrorCode::RequestTimeout,
                $(crate::codes::ErrorCode::$more,)*
            ];
        }
    };
}
pub(super) use admin_refusals;

/// Leave for an operation in one tenant.
pub(super) struct InTenant {
    /// The leave.
    pub permit: Permit,
    /// The tenant.
    pub tenant: TenantId,
}

impl State {
    /// Whoever holds the key. May do nothing yet. A key of one tenant is refused where another is named,
    /// before it is looked whether there is one.
    pub(super) async fn caller(&self, request: &Request, auth: &AdminAuth) -> Result<Caller, Problem> {
        let id = request.data::<RequestId>().copied().unwrap_or_else(|| RequestId::from_bytes([0; 16]));
        let address = client::address_of(request, &self.trusted_proxies);
        let checked = self.admin.keys.check(&auth.0.token, address, id).await;
        let caller = checked.map_err(|error| {
            let problem = self.refused(error.code(), &error);
            match error {
                KeyError::TooMany { retry_after_s } => problem.retry_after(retry_after_s),
                _ => problem,
            }
        })?;
        match (client::tenant_header(request), caller.scope()) {
            (Some(named), Scope::Tenant(own)) if named != own.as_str() => {
                let text = "this admin key is for one tenant, and X-Tenant-ID names another";
                Err(Problem::new(E::AdminScopeInsufficient, text))
            }
            _ => Ok(caller),
        }
    }

    fn permit(caller: &Caller, verb: Verb, resource: Resource, place: Place<'_>) -> Result<Permit, Problem> {
        caller.permit(verb, resource, place).map_err(|error| Problem::new(error.code(), error.to_string()))
    }

    /// Leave for a verb on a resource of the request's tenant. That is the one of `X-Tenant-ID`; without it
    /// the key's own; for a key of all tenants the one of the host, else the default one.
    pub(super) async fn in_tenant(
        &self,
        request: &Request,
        auth: &AdminAuth,
        verb: Verb,
        resource: Resource,
    ) -> Result<InTenant, Problem> {
        let caller = self.caller(request, auth).await?;
        let tenant = match caller.scope() {
            Scope::Tenant(own) => own.clone(),
            Scope::All => self.tenant(request)?.id.clone(),
        };
        let permit = Self::permit(&caller, verb, resource, Place::Tenant(&tenant))?;
        Ok(InTenant { permit, tenant })
    }

    /// Leave in a tenant that the address names.
    pub(super) fn in_named_tenant(
        &self,
        caller: &Caller,
        tenant: &TenantId,
        verb: Verb,
        resource: Resource,
    ) -> Result<Permit, Problem> {
        Self::permit(caller, verb, resource, Place::Tenant(tenant))
    }

    /// Leave for a verb on a resource of all tenants at once, or of the server itself.
    pub(super) async fn on_server(
        &self,
        request: &Request,
        auth: &AdminAuth,
        verb: Verb,
        resource: Resource,
    ) -> Result<Permit, Problem> {
        let caller = self.caller(request, auth).await?;
        Self::permit(&caller, verb, resource, Place::Server)
    }

    /// Who makes one change under a permit: one for each change.
    pub(super) fn author(&self, permit: &Permit) -> Author {
        permit.author(self.clock.now(), &*self.entropy)
    }
}

/// The page that a request asks of a list.
pub(super) fn page(list: &'static str, limit: Option<u32>, cursor: Option<String>) -> Result<Page, Problem> {
    // Generated clients send an empty text for an absent one.
    let cursor = cursor.filter(|text| !text.is_empty());
    Page::parse(list, limit, cursor.as_deref()).map_err(|error| {
        let code = if error == PageError::Cursor { E::InvalidCursor } else { E::MalformedRequest };
        Problem::new(code, error.to_string())
    })
}

/// A parameter or member that was given and is not empty, read; a bad one is named.
pub(super) fn read<T>(
    name: &str,
    text: Option<String>,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
    let bad = || Problem::new(E::MalformedRequest, format!("{name} is not what this parameter takes"));
    parse(&text).map(Some).ok_or_else(bad)
}

/// RFC 3339.
pub(super) fn read_time(text: &str) -> Option<crate::clock::UnixTime> {
    crate::clock::UnixTime::parse_rfc3339(text)
}
