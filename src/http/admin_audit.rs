//! The audit log.

use std::sync::Arc;

use poem::Request;
use poem_openapi::param::Query;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use super::admin::{AdminAuth, admin_refusals, page, read, read_time};
use super::reply::Reply;
use super::{State, Tag};
use crate::admin::access::{Resource, Verb};
use crate::admin::audit::{AuditFilter, AuditRecord};
use crate::codes::ErrorCode as E;

pub(super) struct AdminAuditApi(pub Arc<State>);

admin_refusals!(AuditRefusals, InvalidCursor);

/// One change that was made.
#[derive(Debug, Object)]
#[oai(rename = "dto.AuditRecord", skip_serializing_if_is_none)]
pub struct AuditRecordInfo {
    /// The identifier, `evt_…`.
    pub id: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// The tenant. Absent: the server itself.
    pub tenant: Option<String>,
    /// Who: an admin key's identifier `csk_…`, a user's `usr_…`, `command_line` or `system`.
    pub actor: String,
    /// What, as `resource.verb`.
    pub action: String,
    /// On what: an identifier or a name.
    pub target: String,
    /// By member `{"before": …, "after": …}`. Holds no secret and nothing personal.
    pub difference: Any<Value>,
    /// The request that did it.
    pub request_id: Option<String>,
}

/// Changes, newest first.
#[derive(Debug, Object)]
#[oai(rename = "dto.AuditPage", skip_serializing_if_is_none)]
pub struct AuditPage {
    /// The records.
    pub items: Vec<AuditRecordInfo>,
    /// Pass it as `cursor` for the next page. Absent: these were the last.
    pub next_cursor: Option<String>,
}

impl From<AuditRecord> for AuditRecordInfo {
    fn from(record: AuditRecord) -> Self {
        let author = record.author;
        Self {
            id: author.event.to_string(),
            at: author.at.to_rfc3339(),
            tenant: author.tenant.map(|t| t.to_string()),
            actor: author.actor.to_string(),
            action: record.action,
            target: record.target,
            difference: Any(record.difference),
            request_id: author.request.map(|r| r.to_string()),
        }
    }
}

#[OpenApi]
impl AdminAuditApi {
    /// The audit log
    ///
    /// Every change that was made through this API or the command line, newest first. It holds no secret and
    /// nothing personal: users stand in it by their identifier.
    #[oai(path = "/admin/audit", method = "get", tag = "Tag::Administration", operation_id = "listAudit")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn list(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// `true`: of all tenants and the server itself, for a key of all tenants.
        everywhere: Query<Option<bool>>,
        /// By this actor, in the words of the records.
        actor: Query<Option<String>>,
        /// With this action; one that ends in `.` names all that begin so: `user.`.
        action: Query<Option<String>>,
        /// On this target.
        target: Query<Option<String>>,
        /// Not before this moment, RFC 3339.
        from: Query<Option<String>>,
        /// Before this moment, RFC 3339.
        until: Query<Option<String>>,
        /// Rows, 1 to 200; 50 when absent.
        limit: Query<Option<u32>>,
        /// The last page's `next_cursor`.
        cursor: Query<Option<String>>,
    ) -> Reply<AuditPage, AuditRefusals> {
        let answer = async {
            let state = &self.0;
            let tenant = if everywhere.0 == Some(true) {
                state.on_server(request, &auth, Verb::Read, Resource::Audit).await?;
                None
            } else {
                Some(state.in_tenant(request, &auth, Verb::Read, Resource::Audit).await?.tenant)
            };
            let filter = AuditFilter {
                tenant,
                actor: read("actor", actor.0, |text| text.parse().ok())?,
                action: action.0.filter(|t| !t.is_empty()),
                target: target.0.filter(|t| !t.is_empty()),
                from: read("from", from.0, read_time)?,
                until: read("until", until.0, read_time)?,
            };
            let page = page("audit", limit.0, cursor.0)?;
            let listed = state.admin.audit.list(&filter, &page).await;
            let listed = listed.map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            let listed = listed.map(Into::into);
            Ok(AuditPage { items: listed.items, next_cursor: listed.next_cursor })
        };
        answer.await.into()
    }
}
