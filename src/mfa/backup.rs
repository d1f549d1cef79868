//! Backup codes: ten at once, each good once, for a user whose other factor is out of reach.
//!
//! They never stand alone: only a user with another confirmed factor gets them, from a session that passed one,
//! and they are offered beside it, last. So whoever has nothing but a printed list cannot make it the only factor.
//! The store has keyed hashes; the key is of the set and sealed, so a copy of the store alone cannot be guessed at.

use aws_lc_rs::hmac;

use crate::secret::{Entropy, Secret};

/// How many there are in a set.
pub const CODES: usize = 10;
/// Random characters of a code: 60 bits.
const LENGTH: usize = 12;
/// The digits of Crockford's base 32: no `i`, `l`, `o` or `u`.
const DIGITS: &str = "0123456789abcdefghjkmnpqrstvwxyz";

/// What the store keeps of a code.
pub type CodeHash = [u8; 32];

/// A new key of a set.
#[must_use]
pub fn generate_key(entropy: &dyn Entropy) -> Secret {
    Secret::random(32, entropy)
}

/// New codes, as they are shown: `xxxx-xxxx-xxxx`.
#[must_use]
pub fn generate(entropy: &dyn Entropy) -> Vec<Secret> {
    std::iter::repeat_with(|| {
        let random = Secret::random(LENGTH, entropy);
        let mut shown = Vec::with_capacity(LENGTH + 2);
        for (place, byte) in random.expose().iter().enumerate() {
            if place > 0 && place % 4 == 0 {
                shown.push(b'-');
            }
            shown.push(DIGITS.as_bytes()[usize::from(byte & 31)]);
        }
        Secret::new(shown)
    })
    .take(CODES)
    .collect()
}

/// The hash of a code as a person types it: capitals, hyphens and spaces do not matter, and neither does what
/// looks like 0 or 1. `None`: no code looks so.
#[must_use]
pub fn hash(key: &Secret, typed: &str) -> Option<CodeHash> {
    if typed.len() > 64 {
        return None;
    }
    let plain: Vec<u8> = typed
        .bytes()
        .filter(|b| !matches!(b, b'-' | b' '))
        .map(|b| match b.to_ascii_lowercase() {
            b'o' => b'0',
            b'i' | b'l' => b'1',
            other => other,
        })
        .collect();
    if plain.len() != LENGTH || !plain.iter().all(|b| DIGITS.as_bytes().contains(b)) {
        return None;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    hmac::sign(&key, &plain).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SystemEntropy;

    #[test]
    fn ten_codes_of_sixty_bits_that_a_person_can_type() {
        let key = generate_key(&SystemEntropy);
        let codes = generate(&SystemEntropy);
        let hashes: std::collections::HashSet<_> =
            codes.iter().map(|code| hash(&key, std::str::from_utf8(code.expose()).unwrap()).unwrap()).collect();
        assert_eq!((codes.len(), hashes.len()), (10, 10));
        let known = hash(&key, "0a1b-2c3d-4e5f").unwrap();
        for typed in ["0A1B2C3D4E5F", " oalb 2c3d-4e5f ", "0aIb-2c3d-4e5f", "0-a-1-b-2-c-3-d-4-e-5-f"] {
            assert_eq!(hash(&key, typed), Some(known), "{typed}");
        }
        for typed in ["", "123456", "0a1b-2c3d-4e5", "0a1b-2c3d-4e5fg", "ua1b-2c3d-4e5f", "0a1b-2c3d-4e5\u{e9}"] {
            assert_eq!(hash(&key, typed), None, "{typed}");
        }
        assert_eq!(hash(&key, &"-".repeat(65)), None);
        assert_ne!(hash(&generate_key(&SystemEntropy), "0a1b-2c3d-4e5f"), Some(known), "the key counts");
    }
}
