//! Secrets at rest: AES-256-GCM under keys derived from the master key (HKDF-SHA-256, RFC 5869), one
//! key for each purpose. The context is authenticated, so that a sealed value of one row opens in no
//! other.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf;

use crate::secret::Secret;

/// Seals and opens small secrets.
#[derive(Debug, Clone)]
pub struct Vault {
    master: Secret,
}

/// A sealed value that does not open: the master key is another one, or the value was changed or moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored secret does not open with this master key")]
pub struct Unopenable;

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Vault {
    /// The size of a master key in bytes.
    pub const MASTER_KEY_BYTES: usize = 32;
    const NONCE_BYTES: usize = 12;

    /// With a master key of [`Self::MASTER_KEY_BYTES`].
    #[must_use]
    pub fn new(master: Secret) -> Self {
        Self { master }
    }

    /// A key of 32 bytes for one purpose.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Secret {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"countersign");
        let mut key = vec![0; 32];
        salt.extract(self.master.expose())
            .expand(&[purpose.as_bytes()], Length(32))
            .and_then(|okm| okm.fill(&mut key))
            .expect("32 bytes are within the limit of HKDF-SHA-256");
        Secret::new(key)
    }

    /// Seals a secret for one purpose and context.
    #[must_use]
    pub fn seal(&self, purpose: &str, context: &[u8], plain: &Secret) -> Vec<u8> {
        let mut body = plain.expose().to_vec();
        let nonce = self
            .key(purpose)
            .seal_in_place_append_tag(Aad::from(context), &mut body)
            .expect("a small plaintext can be sealed");
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut body);
        sealed
    }

    /// Opens what [`Self::seal`] gave.
    ///
    /// # Errors
    /// When purpose, context, master key or bytes differ.
    pub fn open(&self, purpose: &str, context: &[u8], sealed: &[u8]) -> Result<Secret, Unopenable> {
        let (nonce, body) = sealed.split_at_checked(Self::NONCE_BYTES).ok_or(Unopenable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unopenable)?;
        let mut body = body.to_vec();
        let plain =
            self.key(purpose).open_in_place(nonce, Aad::from(context), &mut body).map_err(|_| Unopenable)?;
        Ok(Secret::new(plain.to_vec()))
    }

    /// A sealer for one purpose whose key is derived once: for what is sealed at every sign-in.
    #[must_use]
    pub fn sealer(&self, purpose: &str) -> Sealer {
        Sealer(self.key(purpose))
    }

    fn key(&self, purpose: &str) -> RandomizedNonceKey {
        RandomizedNonceKey::new(&AES_256_GCM, self.derive(purpose).expose()).expect("the key has 32 bytes")
    }
}

/// Seals and opens for one purpose.
pub struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// Seals; the context is authenticated.
    #[must_use]
    pub fn seal(&self, context: &[u8], mut plain: Vec<u8>) -> Vec<u8> {
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(context), &mut plain)
            .expect("a small plaintext can be sealed");
        plain.extend_from_slice(nonce.as_ref());
        plain
    }

    /// Opens what [`Self::seal`] gave, in its place.
    ///
    /// # Errors
    /// When purpose, context, master key or bytes differ.
    pub fn open<'a>(&self, context: &[u8], sealed: &'a mut [u8]) -> Result<&'a [u8], Unopenable> {
        let body = sealed.len().checked_sub(Vault::NONCE_BYTES).ok_or(Unopenable)?;
        let (body, nonce) = sealed.split_at_mut(body);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unopenable)?;
        let plain = self.0.open_in_place(nonce, Aad::from(context), body).map_err(|_| Unopenable)?;
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_only_where_it_was_sealed() {
        let vault = Vault::new(Secret::new(vec![7; 32]));
        let sealed = vault.seal("totp", b"fac_1", &Secret::new(b"hello".to_vec()));
        assert_eq!(vault.open("totp", b"fac_1", &sealed).unwrap().expose(), b"hello");
        assert!(vault.open("totp", b"fac_2", &sealed).is_err());
        assert!(vault.open("keys", b"fac_1", &sealed).is_err());
        assert!(Vault::new(Secret::new(vec![8; 32])).open("totp", b"fac_1", &sealed).is_err());
        assert!(vault.open("totp", b"fac_1", &sealed[..11]).is_err());
        assert!(vault.open("totp", b"fac_1", &sealed[..20]).is_err());
    }

    #[test]
    fn a_sealer_opens_what_it_sealed_and_nothing_else() {
        let vault = Vault::new(Secret::new(vec![7; 32]));
        let sealed = vault.sealer("a").seal(b"1", b"hello".to_vec());
        assert_eq!(vault.sealer("a").open(b"1", &mut sealed.clone()).unwrap(), b"hello");
        assert!(vault.sealer("b").open(b"1", &mut sealed.clone()).is_err());
        assert!(vault.sealer("a").open(b"2", &mut sealed.clone()).is_err());
        assert!(vault.sealer("a").open(b"1", &mut sealed[..9].to_vec()).is_err());
        let mut changed = sealed;
        changed[0] ^= 1;
        assert!(vault.sealer("a").open(b"1", &mut changed).is_err());
    }
}
