//! The stored forms of core types, which know nothing of storage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::unreadable;
use crate::clock::UnixTime;
use crate::ids::{TenantId, UserId};
use crate::mfa::MfaMethod;
use crate::session::{Caps, Grant, TokenShape};
use crate::signin::facts::Point;
use crate::signin::history::{ContextPrint, PastEnd, Pseudonym};
use crate::signin::identity::{Profile, UserKind};
use crate::signin::record::{AssessmentRecord, SignInRecord};
use crate::signin::rules::Level;

pub(super) fn bytes<const N: usize>(stored: &[u8]) -> Result<[u8; N], sqlx::Error> {
    stored.try_into().map_err(|_| unreadable("an identifier has the wrong length"))
}

pub(super) fn tenant(stored: &str) -> Result<TenantId, sqlx::Error> {
    TenantId::parse(stored).map_err(|_| unreadable("a tenant id"))
}

pub(super) fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// Pseudonyms are stored as integers: a history of hundreds is read for one sign-in.
fn pseudonym(stored: Option<i64>) -> Option<Pseudonym> {
    stored.map(i64::to_be_bytes)
}

fn number(pseudonym: Option<&Pseudonym>) -> Option<i64> {
    pseudonym.map(|p| i64::from_be_bytes(*p))
}

pub(super) const fn level_number(level: Level) -> u8 {
    match level {
        Level::Low => 0,
        Level::Medium => 1,
        Level::High => 2,
    }
}

fn level(number: u8) -> Level {
    match number {
        0 => Level::Low,
        1 => Level::Medium,
        _ => Level::High,
    }
}

pub(super) fn end_number(end: PastEnd) -> usize {
    PastEnd::ALL.iter().position(|e| *e == end).unwrap_or(PastEnd::ALL.len())
}

#[derive(Serialize, Deserialize)]
pub(super) struct ProfileRow {
    /// Absent: a person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    service: bool,
    email: Option<String>,
    email_verified: bool,
    name: Option<String>,
    username: Option<String>,
    phone: Option<String>,
    phone_verified: bool,
    locale: Option<String>,
    attributes: BTreeMap<String, Value>,
    groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
}

impl From<&Profile> for ProfileRow {
    fn from(p: &Profile) -> Self {
        Self {
            service: p.kind == UserKind::Service,
            email: p.email.clone(),
            email_verified: p.email_verified,
            name: p.name.clone(),
            username: p.username.clone(),
            phone: p.phone.clone(),
            phone_verified: p.phone_verified,
            locale: p.locale.clone(),
            attributes: p.attributes.clone(),
            groups: p.groups.clone(),
            roles: p.roles.clone(),
        }
    }
}

impl From<ProfileRow> for Profile {
    fn from(r: ProfileRow) -> Self {
        Self {
            kind: if r.service { UserKind::Service } else { UserKind::Person },
            email: r.email,
            email_verified: r.email_verified,
            name: r.name,
            username: r.username,
            phone: r.phone,
            phone_verified: r.phone_verified,
            locale: r.locale,
            attributes: r.attributes,
            groups: r.groups,
            roles: r.roles,
        }
    }
}

/// The tenant and user stand in columns as well; here they make the grant whole.
#[derive(Serialize, Deserialize)]
pub(super) struct GrantRow {
    tenant: String,
    user: String,
    provider: Arc<str>,
    #[serde(default, skip_serializing_if = "is_zero")]
    provider_generation: i64,
    client_id: Arc<str>,
    auth_time: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    amr: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acr: Option<String>,
    level: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cap_session_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cap_refresh_s: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_refresh: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cap_sessions: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    local_mfa: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    client_generation: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audience: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jkt: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream_sid: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    claims: Map<String, Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    claims_by_factor: BTreeMap<String, Map<String, Value>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    audience_by_factor: BTreeMap<String, Arc<str>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl From<&Grant> for GrantRow {
    fn from(g: &Grant) -> Self {
        Self {
            tenant: g.tenant.to_string(),
            user: g.user.to_string(),
            provider: Arc::clone(&g.provider),
            provider_generation: g.provider_generation,
            client_id: Arc::clone(&g.client_id),
            auth_time: g.auth_time.as_millis(),
            amr: g.amr.clone(),
            acr: g.acr.clone(),
            level: level_number(g.level),
            cap_session_s: g.caps.session.map(|d| d.as_secs()),
            cap_refresh_s: g.caps.refresh.map(|d| d.as_secs()),
            no_refresh: g.caps.no_refresh,
            cap_sessions: g.caps.sessions,
            local_mfa: g.local_mfa,
            client: g.client.clone(),
            client_generation: g.client_generation,
            audience: g.audience.clone(),
            jkt: g.jkt.clone(),
            upstream_sid: g.upstream_sid.map(|sid| HEXLOWER.encode(&sid)),
            claims: g.claims.clone(),
            claims_by_factor: by_word(g, |shape| Some(shape.claims.clone())),
            audience_by_factor: by_word(g, |shape| shape.audience.clone()),
        }
    }
}

impl GrantRow {
    pub fn to_json(&self) -> Result<String, sqlx::Error> {
        serde_json::to_string(self).map_err(|e| sqlx::Error::Encode(Box::new(e)))
    }

    pub fn read(text: &str) -> Result<Grant, sqlx::Error> {
        let row: Self = from_json(text)?;
        Ok(Grant {
            tenant: tenant(&row.tenant)?,
            user: row.user.parse::<UserId>().map_err(|_| unreadable("a user id"))?,
            provider: row.provider,
            provider_generation: row.provider_generation,
            client_id: row.client_id,
            auth_time: UnixTime::from_millis(row.auth_time),
            amr: row.amr,
            acr: row.acr,
            level: level(row.level),
            caps: Caps {
                session: row.cap_session_s.map(Duration::from_secs),
                refresh: row.cap_refresh_s.map(Duration::from_secs),
                no_refresh: row.no_refresh,
                sessions: row.cap_sessions,
            },
            local_mfa: row.local_mfa,
            client: row.client,
            client_generation: row.client_generation,
            audience: row.audience,
            jkt: row.jkt,
            upstream_sid: row.upstream_sid.map(|hex| digest(&hex)).transpose()?,
            claims: row.claims,
            shape_by_factor: by_method(row.claims_by_factor, row.audience_by_factor)?,
        })
    }
}

fn by_word<T>(grant: &Grant, part: impl Fn(&TokenShape) -> Option<T>) -> BTreeMap<String, T> {
    let shapes = grant.shape_by_factor.iter();
    shapes.filter_map(|(method, shape)| Some((method.as_str().to_owned(), part(shape)?))).collect()
}

fn by_method(
    claims: BTreeMap<String, Map<String, Value>>,
    mut audiences: BTreeMap<String, Arc<str>>,
) -> Result<BTreeMap<MfaMethod, TokenShape>, sqlx::Error> {
    let shape = |(word, claims): (String, _)| {
        let method = MfaMethod::find(&word).ok_or_else(|| unreadable("a method"))?;
        Ok((method, TokenShape { claims, audience: audiences.remove(&word) }))
    };
    claims.into_iter().map(shape).collect()
}

fn digest(hex: &str) -> Result<[u8; 32], sqlx::Error> {
    bytes(&HEXLOWER.decode(hex.as_bytes()).map_err(|_| unreadable("a digest"))?)
}

#[derive(Serialize, Deserialize)]
pub(super) struct ContextRow(
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<Arc<str>>,
    Option<i64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
);

impl ContextRow {
    /// From eight columns of `sign_ins`, from this one on.
    pub fn of_columns(row: &SqliteRow, from: usize) -> Result<Self, sqlx::Error> {
        Ok(Self(
            row.try_get(from)?,
            row.try_get(from + 1)?,
            row.try_get(from + 2)?,
            row.try_get::<Option<&str>, _>(from + 3)?.map(Arc::from),
            row.try_get(from + 4)?,
            row.try_get(from + 5)?,
            row.try_get(from + 6)?,
            row.try_get(from + 7)?,
        ))
    }
}

impl From<&ContextPrint> for ContextRow {
    fn from(c: &ContextPrint) -> Self {
        Self(
            number(c.device.as_ref()),
            number(c.agent.as_ref()),
            number(c.prefix.as_ref()),
            c.country.clone(),
            c.asn,
            c.point.map(|p| p.latitude),
            c.point.map(|p| p.longitude),
            c.point.map(|p| p.accuracy_km),
        )
    }
}

impl From<ContextRow> for ContextPrint {
    fn from(r: ContextRow) -> Self {
        let point = match (r.5, r.6, r.7) {
            (Some(latitude), Some(longitude), Some(accuracy_km)) => {
                Some(Point { latitude, longitude, accuracy_km })
            }
            _ => None,
        };
        Self {
            device: pseudonym(r.0),
            agent: pseudonym(r.1),
            prefix: pseudonym(r.2),
            country: r.3,
            asn: r.4,
            point,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct AssessmentRow {
    score: i64,
    level: u8,
    policy: Arc<str>,
    reasons: Vec<(Arc<str>, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

impl From<&AssessmentRecord> for AssessmentRow {
    fn from(a: &AssessmentRecord) -> Self {
        Self {
            score: a.score,
            level: level_number(a.level),
            policy: Arc::clone(&a.policy),
            reasons: a.reasons.clone(),
            fault: a.fault.clone(),
        }
    }
}

impl From<AssessmentRow> for AssessmentRecord {
    fn from(r: AssessmentRow) -> Self {
        Self { score: r.score, level: level(r.level), policy: r.policy, reasons: r.reasons, fault: r.fault }
    }
}

/// One entry of history as the look-up gives it:
/// `[at, end, provider, level, device, agent, prefix, country, asn, latitude, longitude, accuracy]`.
#[derive(Deserialize)]
pub(super) struct PastRow(
    pub i64,
    pub usize,
    pub Arc<str>,
    pub Option<u8>,
    pub Option<i64>,
    pub Option<i64>,
    pub Option<i64>,
    pub Option<Arc<str>>,
    pub Option<i64>,
    pub Option<f64>,
    pub Option<f64>,
    pub Option<f64>,
);

impl PastRow {
    pub fn read(self) -> Option<crate::signin::history::PastSignIn> {
        let context = ContextRow(self.4, self.5, self.6, self.7, self.8, self.9, self.10, self.11);
        Some(crate::signin::history::PastSignIn {
            at: UnixTime::from_millis(self.0),
            end: *PastEnd::ALL.get(self.1)?,
            context: context.into(),
            provider: self.2,
            level: self.3.map(level),
        })
    }
}

/// A record as the insert takes it, in the order of its columns.
pub(super) fn record_row(record: &SignInRecord) -> Result<impl Serialize + use<>, sqlx::Error> {
    let user = record.user.map_or([0; 16], |u| *u.as_bytes());
    let ContextRow(device, agent, prefix, country, asn, latitude, longitude, accuracy) = (&record.context).into();
    let assessment = record.assessment.as_ref();
    let stored = assessment.map(|a| serde_json::to_string(&AssessmentRow::from(a))).transpose();
    let stored = stored.map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    Ok((
        (HEXLOWER.encode(&user), HEXLOWER.encode(record.id.as_bytes()), record.at.as_millis()),
        (record.tenant.to_string(), Arc::clone(&record.provider), end_number(record.end), record.code.clone()),
        (device, agent, prefix, country, asn, latitude, longitude, accuracy),
        (assessment.map(|a| a.score), assessment.map(|a| level_number(a.level)), stored),
        record.session.map(|s| HEXLOWER.encode(s.as_bytes())),
    ))
}
