//! Devices of the signed-in user.

use std::sync::Arc;

use poem::Request;
use poem_openapi::param::Path;
use poem_openapi::{Object, OpenApi};

use super::body::Body;
use super::dto::MessageResponse;
use super::problem::Problem;
use super::reply::Reply;
use super::sign_in::{SHORT_TEXT, bounded};
use super::text::Text;
use super::{BearerAuth, State, Tag};
use crate::clock::UnixTime;
use crate::codes::ErrorCode as E;
use crate::ids::{DeviceId, UserId};
use crate::people::devices::StoredDevice;

pub(super) struct DevicesApi(pub Arc<State>);

super::me::bearer_refusals!(DeviceRefusals, UnknownDevice);
super::me::bearer_refusals!(
    TrustRefusals,
    MalformedRequest,
    DeviceTrustNotAllowed,
    BodyTooLarge,
    UnsupportedMediaType
);

/// A device that the user signed in from.
#[derive(Debug, Object)]
#[oai(rename = "dto.Device", skip_serializing_if_is_none)]
pub struct DeviceInfo {
    /// The identifier, `dev_…`. Not the `device_id` of the application: that one is stored nowhere.
    pub id: String,
    /// The first sign-in from it within 180 days, RFC 3339 in UTC.
    pub first_seen_at: Option<String>,
    /// The last sign-in from it.
    pub last_seen_at: Option<String>,
    /// The country of that one, ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// Whether this session was begun on it.
    pub current: bool,
    /// Until when it is trusted. Absent: it is not.
    pub trusted_until_at: Option<String>,
}

impl DeviceInfo {
    fn of(user: UserId, device: &StoredDevice) -> Self {
        Self {
            id: device.id(user).to_string(),
            first_seen_at: device.seen.map(|(first, _)| first.to_rfc3339()),
            last_seen_at: device.seen.map(|(_, last)| last.to_rfc3339()),
            country: device.country.as_deref().map(str::to_owned),
            current: device.is_current,
            trusted_until_at: device.trusted_until.map(UnixTime::to_rfc3339),
        }
    }
}

/// Devices of the signed-in user.
#[derive(Debug, Object)]
#[oai(rename = "dto.DevicesResponse")]
pub struct DevicesResponse {
    /// The latest first.
    pub devices: Vec<DeviceInfo>,
}

/// The device to trust.
#[derive(Object)]
#[oai(rename = "dto.TrustDeviceRequest")]
pub struct TrustDeviceRequest {
    /// The `device_id` of the sign-in that began this session.
    pub device_id: Text,
}

/// A trust. The secret is shown this once.
#[derive(Object)]
#[oai(rename = "dto.DeviceTrust")]
pub struct DeviceTrust {
    /// For `device_secret` of later sign-ins with the same `device_id`. Keep it as a password is kept.
    pub device_secret: String,
    /// When the trust ends, RFC 3339 in UTC.
    pub expires_at: String,
}

#[OpenApi]
impl DevicesApi {
    /// The user's devices
    ///
    /// Those with a successful sign-in within 180 days that brought a `device_id`, and trusted ones.
    #[oai(path = "/auth/me/devices", method = "get", tag = "Tag::Me", operation_id = "listMyDevices")]
    async fn list(&self, request: &Request, auth: BearerAuth) -> Reply<DevicesResponse, super::me::MeRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let devices = self.0.devices.list(&living).await;
            let devices = devices.map_err(|error| self.0.refused(E::StoreUnavailable, &error))?;
            Ok(DevicesResponse { devices: devices.iter().map(|d| DeviceInfo::of(living.user.id, d)).collect() })
        };
        answer.await.into()
    }

    /// Trust this device
    ///
    /// For 30 days, where the tenant's policy has `trusted_devices = true`. Needs a session that began within the
    /// last 10 minutes on this device and passed a second factor. A sign-in that brings `device_id` and
    /// `device_secret` then needs no second factor at medium risk; a high risk, or a rule that asks for a
    /// factor, still does. Trusting again replaces the secret.
    #[oai(path = "/auth/me/devices/trust", method = "post", tag = "Tag::Me", operation_id = "trustMyDevice")]
    async fn trust(
        &self,
        request: &Request,
        auth: BearerAuth,
        body: Body<TrustDeviceRequest>,
    ) -> Reply<DeviceTrust, TrustRefusals> {
        let answer = async {
            let state = &self.0;
            let living = state.signed_in(request, Some(&auth)).await?;
            let device_id = bounded(Some(body.0.device_id), SHORT_TEXT, "device_id")?;
            let missing = || Problem::new(E::MalformedRequest, "device_id is empty");
            let trusted = state.devices.trust(&living, &device_id.ok_or_else(missing)?).await;
            let trusted = trusted.map_err(|error| state.refused(error.code(), &error))?;
            Ok(DeviceTrust {
                device_secret: trusted.secret.to_base64url(),
                expires_at: trusted.expires_at.to_rfc3339(),
            })
        };
        answer.await.into()
    }

    /// End the trust in a device
    ///
    /// It stays a known one.
    #[oai(
        path = "/auth/me/devices/:device_id/trust",
        method = "delete",
        tag = "Tag::Me",
        operation_id = "endMyDeviceTrust"
    )]
    async fn end_trust(
        &self,
        request: &Request,
        auth: BearerAuth,
        /// The device, `dev_…`.
        device_id: Path<String>,
    ) -> Reply<MessageResponse, DeviceRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let ended = self.0.devices.end_trust(&living, parse(&device_id.0)?).await;
            ended.map_err(|error| self.0.refused(error.code(), &error))?;
            Ok(MessageResponse::new("the device is no longer trusted", self.0.clock.now()))
        };
        answer.await.into()
    }

    /// Forget a device
    ///
    /// It is a new one at its next sign-in, its trust ends, and so do its sessions, but for this one.
    #[oai(
        path = "/auth/me/devices/:device_id",
        method = "delete",
        tag = "Tag::Me",
        operation_id = "forgetMyDevice"
    )]
    async fn forget(
        &self,
        request: &Request,
        auth: BearerAuth,
        /// The device, `dev_…`.
        device_id: Path<String>,
    ) -> Reply<MessageResponse, DeviceRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let forgotten = self.0.devices.forget(&living, parse(&device_id.0)?).await;
            forgotten.map_err(|error| self.0.refused(error.code(), &error))?;
            Ok(MessageResponse::new("the device is forgotten", self.0.clock.now()))
        };
        answer.await.into()
    }
}

fn parse(id: &str) -> Result<DeviceId, Problem> {
    id.parse().map_err(|error: crate::ids::InvalidId| Problem::new(E::UnknownDevice, error.to_string()))
}
