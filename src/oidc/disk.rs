//! Key sets on disk, so that a node that starts while a provider is down serves it all the same.
//!
//! One file for each provider of a tenant: a line with HMAC-SHA-256 under a key of this server, then JSON.
//! It holds public keys and nothing else, what they are bound to, and when they were fetched, so that the
//! limits of age are those of a set in memory. Whoever can write to the folder and has not the master key
//! cannot slip a key in. A file that is broken, changed, too old or of another configuration is passed over:
//! at worst the provider is asked.

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::{fs, io};

use aws_lc_rs::hmac;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::schedule::Lifetime;
use crate::clock::UnixTime;
use crate::ids::TenantId;
use crate::secret::{Secret, sha256};
use crate::signin::key::{KeySet, KeySetError};
use crate::signin::provider::IssuerRule;

/// A key set of 512 KiB without its private and unknown members, and the rest.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Changes when the form of the files does.
const VERSION: u32 = 1;
/// A file from further ahead was written by another clock: its age cannot be told.
const MAX_AHEAD_S: i64 = 300;
/// Members of public keys (RFC 7517 section 4, RFC 7518 section 6) that are kept.
const PUBLIC_MEMBERS: [&str; 9] = ["kty", "crv", "n", "e", "x", "y", "kid", "alg", "use"];

/// The folder of cached key sets.
#[derive(Debug)]
pub struct KeyFiles {
    dir: PathBuf,
    key: Secret,
}

/// Which configuration a set was fetched for: another one never trusts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Binding {
    tenant: String,
    provider: String,
    issuers: Vec<String>,
    allowed_tenant_ids: Vec<String>,
    jwks_uri: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Body {
    version: u32,
    bound_to: Binding,
    /// Where they came from, for people.
    keys_uri: String,
    fetched_at_ms: i64,
    ttl_s: u64,
    set: Value,
}

/// Why a file is passed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyFileError {
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    #[error("it is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    #[error("it was not written by this server, or was changed")]
    NotOurs,
    #[error("it is not of the form that this version writes")]
    Form,
    #[error("the provider is configured otherwise now")]
    OtherConfiguration,
    #[error("its keys were fetched too long ago")]
    TooOld,
    #[error("its keys were fetched in the future; check the clock")]
    Ahead,
    #[error(transparent)]
    Set(#[from] KeySetError),
}

impl Binding {
    pub(super) fn new(tenant: &TenantId, provider: &str, rule: &IssuerRule, jwks_uri: Option<&String>) -> Self {
        let (issuers, allowed_tenant_ids) = match rule {
            IssuerRule::Exact(issuers) => (issuers.clone(), Vec::new()),
            IssuerRule::PerTenant { allowed_tenant_ids, .. } => (vec![rule.shown()], allowed_tenant_ids.clone()),
        };
        Self {
            tenant: tenant.as_str().to_owned(),
            provider: provider.to_owned(),
            issuers,
            allowed_tenant_ids,
            jwks_uri: jwks_uri.cloned(),
        }
    }
}

/// What of a fetched key set may be written: the public members of its usable keys. `left_out` are the
/// positions of the others.
pub(super) fn public_part(document: &Map<String, Value>, left_out: &[usize]) -> Value {
    let list = document.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let usable = list.iter().enumerate().filter(|(position, _)| !left_out.contains(position));
    let public = |key: &Map<String, Value>| {
        let kept = PUBLIC_MEMBERS.iter().filter_map(|m| Some(((*m).to_owned(), key.get(*m)?.clone())));
        Value::Object(kept.collect())
    };
    json!({ "keys": usable.filter_map(|(_, key)| key.as_object().map(public)).collect::<Vec<_>>() })
}

impl KeyFiles {
    /// In this folder, which is made when it is needed; `key` signs the files.
    #[must_use]
    pub fn new(dir: PathBuf, key: Secret) -> Self {
        Self { dir, key }
    }

    /// Names of tenants and providers are words of their owners, so they do not become part of a path.
    pub(super) fn path(&self, binding: &Binding) -> PathBuf {
        let name = format!("{}\0{}", binding.tenant, binding.provider);
        self.dir.join(format!("{}.json", HEXLOWER.encode(&sha256(name.as_bytes())[..16])))
    }

    /// The set of this binding; `None` when there is no file.
    pub(super) fn read(
        &self,
        binding: &Binding,
        now: UnixTime,
    ) -> Result<Option<(KeySet, Lifetime)>, KeyFileError> {
        let Some(text) = read_file(&self.path(binding))? else { return Ok(None) };
        let end = text.iter().position(|b| *b == b'\n').ok_or(KeyFileError::NotOurs)?;
        let tag = BASE64URL_NOPAD.decode(&text[..end]).map_err(|_| KeyFileError::NotOurs)?;
        let body = &text[end + 1..];
        hmac::verify(&self.mac_key(), body, &tag).map_err(|_| KeyFileError::NotOurs)?;
        let body: Body = serde_json::from_slice(body).map_err(|_| KeyFileError::Form)?;
        if body.version != VERSION {
            return Err(KeyFileError::Form);
        }
        if body.bound_to != *binding {
            return Err(KeyFileError::OtherConfiguration);
        }
        let fetched_at = UnixTime::from_millis(body.fetched_at_ms);
        if fetched_at.as_secs() > now.as_secs().saturating_add(MAX_AHEAD_S) {
            return Err(KeyFileError::Ahead);
        }
        let life = Lifetime::new(fetched_at, Some(std::time::Duration::from_secs(body.ttl_s)));
        if life.is_dead(now) {
            return Err(KeyFileError::TooOld);
        }
        let (keys, _) = KeySet::parse(body.set.to_string().as_bytes())?;
        Ok(Some((keys, life)))
    }

    /// Puts this set in place of the last one, whole or not at all, readable by this user alone.
    pub(super) fn write(&self, binding: &Binding, keys_uri: &str, life: Lifetime, set: Value) -> io::Result<()> {
        let body = Body {
            version: VERSION,
            bound_to: binding.clone(),
            keys_uri: keys_uri.to_owned(),
            fetched_at_ms: life.fetched_at().as_millis(),
            ttl_s: life.ttl().as_secs(),
            set,
        };
        let body = serde_json::to_vec_pretty(&body)?;
        let tag = BASE64URL_NOPAD.encode(hmac::sign(&self.mac_key(), &body).as_ref());
        make_directory(&self.dir)?;
        // Of mode 0600 from its beginning.
        let mut draft = tempfile::NamedTempFile::new_in(&self.dir)?;
        draft.write_all(tag.as_bytes())?;
        draft.write_all(b"\n")?;
        draft.write_all(&body)?;
        draft.as_file().sync_all()?;
        draft.persist(self.path(binding)).map(drop).map_err(|e| e.error)
    }

    fn mac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.key.expose())
    }
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, KeyFileError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES { Err(KeyFileError::TooLarge) } else { Ok(Some(text)) }
}

fn make_directory(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}
