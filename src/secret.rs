//! Bytes that never print, randomness that is passed in, and comparison in constant time.

use std::fmt;

use aws_lc_rs::{constant_time, digest, rand};
use data_encoding::BASE64URL_NOPAD;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Secret bytes: wiped when dropped, and shown as `[secret]`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// `len` random bytes.
    #[must_use]
    pub fn random(len: usize, entropy: &dyn Entropy) -> Self {
        let mut bytes = vec![0; len];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// The bytes, for the one place that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes in base64url without padding (RFC 4648 section 5): what a client holds.
    #[must_use]
    pub fn to_base64url(&self) -> String {
        BASE64URL_NOPAD.encode(&self.0)
    }

    /// SHA-256 of the bytes: what is stored of a random secret.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// SHA-256 (FIPS 180-4).
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Whether two byte strings are equal, in time that depends on their lengths alone.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// A source of random bytes.
pub trait Entropy: Send + Sync {
    /// Fills the whole buffer with random bytes.
    fn fill(&self, buffer: &mut [u8]);
}

/// The random generator of the cryptographic library.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        rand::fill(buffer).expect("the operating system gives randomness; without it nothing may go on");
    }
}
