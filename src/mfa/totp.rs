//! Time-based one-time passwords (RFC 6238): SHA-1, six digits, 30 seconds, one step of drift to either
//! side. The library computes; which step may pass is decided here, since a code is good once.

use totp_rs::{Algorithm, Builder, Totp};

use crate::clock::UnixTime;
use crate::secret::{Entropy, Secret, same};

const STEP_S: i64 = 30;
const SECRET_BYTES: usize = 20;

/// A new secret of 160 bits, the length that RFC 4226 section 4 recommends.
#[must_use]
pub fn generate_secret(entropy: &dyn Entropy) -> Secret {
    Secret::random(SECRET_BYTES, entropy)
}

fn totp(secret: &Secret, issuer: Option<&str>, account: &str) -> Option<Totp> {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_skew(0)
        .with_step_duration(STEP_S.unsigned_abs())
        .with_secret(secret.expose().to_vec())
        .with_issuer(issuer.map(|i| i.replace(':', " ")))
        .with_account_name(account.replace(':', " "))
        .build()
        .ok()
}

/// The code of this moment.
#[must_use]
pub fn code_at(secret: &Secret, now: UnixTime) -> Option<String> {
    let time = u64::try_from(now.as_secs()).ok()?;
    totp(secret, None, "user").map(|t| t.generate(time).to_string())
}

/// The `otpauth://` address that authenticator apps read.
#[must_use]
pub fn provisioning_uri(secret: &Secret, issuer: &str, account: &str) -> Option<String> {
    totp(secret, Some(issuer), account)?.to_url().ok()
}

/// The step whose code this is, among the present one and its two neighbours, later than `last_step`.
/// Every candidate is compared, in constant time.
#[must_use]
pub fn matching_step(secret: &Secret, code: &str, now: UnixTime, last_step: Option<i64>) -> Option<i64> {
    let present = now.as_secs().div_euclid(STEP_S);
    let mut found = None;
    for step in [present - 1, present, present + 1] {
        let Some(expected) = code_at(secret, UnixTime::from_secs(step * STEP_S)) else { continue };
        if same(expected.as_bytes(), code.as_bytes()) && last_step.is_none_or(|last| step > last) {
            found = Some(step);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(b"12345678901234567890".to_vec())
    }

    #[test]
    fn codes_are_those_of_rfc_6238_appendix_b() {
        for (time, code) in [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924")] {
            assert_eq!(code_at(&secret(), UnixTime::from_secs(time)).as_deref(), Some(code));
        }
    }

    #[test]
    fn a_code_passes_one_step_early_or_late_and_only_once() {
        let now = UnixTime::from_secs(1_234_567_890);
        let step = 1_234_567_890 / 30;
        assert_eq!(matching_step(&secret(), "005924", now, None), Some(step));
        for (shift, passes) in [(-60, false), (-30, true), (30, true), (60, false)] {
            let moved = UnixTime::from_secs(1_234_567_890 + shift);
            assert_eq!(matching_step(&secret(), "005924", moved, None).is_some(), passes, "{shift}");
        }
        assert_eq!(matching_step(&secret(), "005924", now, Some(step)), None);
        assert_eq!(matching_step(&secret(), "005924", now, Some(step - 1)), Some(step));
        for wrong in ["", "00592", "0059240", "００５９２４", "005925"] {
            assert_eq!(matching_step(&secret(), wrong, now, None), None);
        }
    }

    #[test]
    fn the_provisioning_address_names_issuer_and_account() {
        let uri = provisioning_uri(&secret(), "Countersign", "ada").unwrap();
        assert!(uri.starts_with("otpauth://totp/Countersign:ada?"), "{uri}");
        assert!(uri.contains("secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"), "{uri}");
    }
}
