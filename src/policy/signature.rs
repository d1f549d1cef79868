//! Signatures of bundles: for some tenants nothing becomes active that a holder of a certain key did not sign, whoever
//! has an editor's admin key or writes to the store.
//!
//! A signature is Ed25519 (RFC 8032) over a fixed text and the SHA-256 of the bundle. It names the content and not the
//! tenant: who may have a bundle is told by its owner.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::Scope;
use super::bundle::Bundle;
use crate::ids::TenantId;

/// Before the hash, so that a signature for another purpose by the same key is none of a bundle.
const PURPOSE: &[u8] = b"countersign policy bundle 1\0";
/// The length of a public key.
pub const KEY_BYTES: usize = 32;

/// Why a bundle is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It has none, and one is needed.
    #[error("the bundle is not signed, and [policies] require_signature asks for a signature here")]
    Missing,
    /// It is of another bundle, or by another key.
    #[error("the signature is not one of this bundle by a key of [policies] signing_keys")]
    Wrong,
}

/// Whose signatures count, and for whom one is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers {
    /// Ed25519 public keys.
    pub keys: Vec<[u8; KEY_BYTES]>,
    /// For bundles of these tenants.
    pub required: Required,
}

/// For whom a signature is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Required {
    /// Everybody.
    All,
    /// These tenants. What is active for all is active for them as well, and needs one when there are any.
    Tenants(Vec<TenantId>),
}

impl Default for Required {
    fn default() -> Self {
        Self::Tenants(Vec::new())
    }
}

impl Signers {
    /// Whether a bundle needs a signature to be active for this scope.
    #[must_use]
    pub fn are_needed(&self, scope: &Scope) -> bool {
        match (&self.required, scope) {
            (Required::All, _) => true,
            (Required::Tenants(tenants), Scope::All) => !tenants.is_empty(),
            (Required::Tenants(tenants), Scope::Tenant(tenant)) => tenants.contains(tenant),
        }
    }

    /// Checks a bundle that shall be active for a scope. Where no signature is needed none is looked at.
    ///
    /// # Errors
    /// When it is missing or wrong.
    pub fn check(&self, scope: &Scope, bundle: &Bundle, signature: Option<&[u8]>) -> Result<(), SignatureError> {
        if !self.are_needed(scope) {
            return Ok(());
        }
        self.verify(bundle, signature.ok_or(SignatureError::Missing)?)
    }

    /// Checks a signature that is told, needed or not.
    ///
    /// # Errors
    /// When it is wrong.
    pub fn verify(&self, bundle: &Bundle, signature: &[u8]) -> Result<(), SignatureError> {
        let message = message(bundle);
        let fits =
            |key: &[u8; KEY_BYTES]| UnparsedPublicKey::new(&ED25519, key).verify(&message, signature).is_ok();
        if self.keys.iter().any(fits) { Ok(()) } else { Err(SignatureError::Wrong) }
    }
}

fn message(bundle: &Bundle) -> Vec<u8> {
    [PURPOSE, bundle.sha256()].concat()
}

/// Signs a bundle.
#[must_use]
pub fn sign(key: &Ed25519KeyPair, bundle: &Bundle) -> Vec<u8> {
    key.sign(&message(bundle)).as_ref().to_vec()
}

/// The public half of a key, as `signing_keys` lists it.
#[must_use]
pub fn public_key(key: &Ed25519KeyPair) -> &[u8] {
    key.public_key().as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(text: &str) -> Bundle {
        let files = [("policy.toml", text), ("reasons.toml", "")];
        Bundle::new(files.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect()).unwrap()
    }

    fn key(byte: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[byte; 32]).unwrap()
    }

    fn signers(required: Required) -> Signers {
        Signers { keys: vec![[0; 32], public_key(&key(1)).try_into().unwrap()], required }
    }

    #[test]
    fn only_a_signature_of_this_very_bundle_by_a_listed_key_counts() {
        let (one, other) = (bundle("contract = 1"), bundle("contract = 1\n"));
        let good = sign(&key(1), &one);
        let signers = signers(Required::All);
        assert_eq!(signers.check(&Scope::All, &one, Some(&good)), Ok(()));
        assert_eq!(signers.check(&Scope::All, &one, None), Err(SignatureError::Missing));
        let mut changed = good.clone();
        changed[10] ^= 1;
        let bare = key(1).sign(one.sha256()).as_ref().to_vec();
        let long = [&good[..], b"x"].concat();
        for wrong in
            [sign(&key(2), &one), sign(&key(1), &other), changed, bare, long, good[..63].to_vec(), Vec::new()]
        {
            assert_eq!(signers.check(&Scope::All, &one, Some(&wrong)), Err(SignatureError::Wrong), "{wrong:?}");
            assert_eq!(signers.verify(&one, &wrong), Err(SignatureError::Wrong));
        }
        assert_eq!(Signers::default().verify(&one, &good), Err(SignatureError::Wrong), "there is no key");
    }

    #[test]
    fn what_is_active_for_all_needs_a_signature_when_one_tenant_needs_it() {
        let tenant = |id: &str| TenantId::parse(id).unwrap();
        let signers = signers(Required::Tenants(vec![tenant("bank")]));
        assert!(signers.are_needed(&Scope::Tenant(tenant("bank"))) && signers.are_needed(&Scope::All));
        assert!(!signers.are_needed(&Scope::Tenant(tenant("shop"))));
        assert_eq!(signers.check(&Scope::Tenant(tenant("shop")), &bundle(""), Some(b"nonsense")), Ok(()));
        assert!(!Signers::default().are_needed(&Scope::All));
    }
}
