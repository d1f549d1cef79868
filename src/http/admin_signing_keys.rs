//! The keys that sign local tokens.

use std::sync::Arc;

use poem::Request;
use poem_openapi::{Enum, Object, OpenApi};

use super::admin::{AdminAuth, admin_refusals};
use super::body::Body;
use super::reply::Reply;
use super::{State, Tag};
use crate::admin::access::{Resource, Verb};
use crate::codes::ErrorCode as E;
use crate::session::rotation::{KeyInfo, KeyState, Rotate};

pub(super) struct AdminSigningKeysApi(pub Arc<State>);

admin_refusals!(ListRefusals);
admin_refusals!(RotateRefusals, BodyTooLarge, UnsupportedMediaType);

/// What a signing key does.
#[derive(Debug, Clone, Copy, Enum)]
#[oai(rename = "dto.SigningKeyState", rename_all = "lowercase")]
pub enum StateWord {
    /// Published; signs later.
    Next,
    /// Signs.
    Active,
    /// Signs no more; what it signed is accepted.
    Previous,
}

/// A key that signs local tokens, without its secret half.
#[derive(Debug, Object)]
#[oai(rename = "dto.SigningKey")]
pub struct SigningKeyInfo {
    /// Its identifier, `key_…`: the `kid` of tokens and of the key set.
    pub id: String,
    /// What it does.
    pub state: StateWord,
    /// `EdDSA`, `ES256` or `RS256`.
    pub algorithm: String,
    /// When it was made, RFC 3339 in UTC.
    pub created_at: String,
    /// From when on it signs.
    pub active_from: String,
}

impl From<KeyInfo> for SigningKeyInfo {
    fn from(key: KeyInfo) -> Self {
        Self {
            id: key.id.to_string(),
            state: match key.state {
                KeyState::Next => StateWord::Next,
                KeyState::Active => StateWord::Active,
                KeyState::Previous => StateWord::Previous,
            },
            algorithm: key.algorithm,
            created_at: key.created_at.to_rfc3339(),
            active_from: key.active_from.to_rfc3339(),
        }
    }
}

/// The keys that sign local tokens.
#[derive(Debug, Object)]
#[oai(rename = "dto.SigningKeyList")]
pub struct SigningKeyList {
    /// By the time from which they sign.
    pub items: Vec<SigningKeyInfo>,
}

/// How a signing key is replaced.
#[derive(Debug, Clone, Copy, Enum)]
#[oai(rename = "dto.KeyRotation", rename_all = "lowercase")]
pub enum RotationWord {
    /// The next key is published now and signs in ten minutes.
    Soon,
    /// The next key signs at once: whoever cached the key set must fetch it again.
    Now,
    /// A key has leaked: a new one signs at once, and whatever any other key signed is refused from now on.
    Compromised,
}

impl From<RotationWord> for Rotate {
    fn from(word: RotationWord) -> Self {
        match word {
            RotationWord::Soon => Self::Soon,
            RotationWord::Now => Self::Now,
            RotationWord::Compromised => Self::Compromised,
        }
    }
}

/// A rotation.
#[derive(Object)]
#[oai(rename = "dto.RotateKeysRequest")]
pub struct RotateKeysRequest {
    /// How.
    pub how: RotationWord,
}

#[OpenApi]
impl AdminSigningKeysApi {
    /// Signing keys
    ///
    /// The keys that sign the local tokens of all tenants. For a key of all tenants.
    #[oai(path = "/admin/keys", method = "get", tag = "Tag::Administration", operation_id = "listSigningKeys")]
    async fn list(&self, request: &Request, auth: AdminAuth) -> Reply<SigningKeyList, ListRefusals> {
        let answer = async {
            let state = &self.0;
            state.on_server(request, &auth, Verb::Read, Resource::SigningKeys).await?;
            let keys = state.keys.list().await.map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            Ok(SigningKeyList { items: keys.into_iter().map(Into::into).collect() })
        };
        answer.await.into()
    }

    /// Rotate the signing key
    ///
    /// Gives the key that will sign. A next key that is published already is taken, but after a leak. Other nodes
    /// follow within a second. Sessions go on: after a leak their access tokens are refused, and a refresh gives
    /// new ones. For a key of all tenants.
    #[oai(
        path = "/admin/keys/rotate",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "rotateSigningKey"
    )]
    async fn rotate(
        &self,
        request: &Request,
        auth: AdminAuth,
        body: Body<RotateKeysRequest>,
    ) -> Reply<SigningKeyInfo, RotateRefusals> {
        let answer = async {
            let state = &self.0;
            let permit = state.on_server(request, &auth, Verb::Change, Resource::SigningKeys).await?;
            let rotated = state.keys.rotate(body.0.how.into(), &state.author(&permit)).await;
            Ok(rotated.map_err(|error| state.refused(E::StoreUnavailable, &error))?.into())
        };
        answer.await.into()
    }
}
