//! Identifiers: a prefix that tells the kind, then 16 time-ordered bytes (UUID version 7, RFC 9562
//! section 5.7) in lower-case Crockford base 32. Time order keeps database pages warm, and within a millisecond
//! identifiers of one process are in the order in which they were made.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::{Encoding, Specification};

use crate::clock::UnixTime;
use crate::secret::Entropy;

fn alphabet() -> &'static Encoding {
    static BASE32: std::sync::LazyLock<Encoding> = std::sync::LazyLock::new(|| {
        let mut spec = Specification::new();
        spec.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
        spec.encoding().expect("the alphabet has 32 distinct symbols")
    });
    &BASE32
}

/// Why a text is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an identifier that begins with \"{prefix}\"")]
pub struct InvalidId {
    /// The prefix of the wanted kind.
    pub prefix: &'static str,
}

/// Greatest place within a millisecond: 12 bits.
const LAST_PLACE: u64 = 0xfff;

/// Which place within its millisecond a new identifier takes (RFC 9562 section 6.2, method 1). Those after the last
/// one share it. A request may bear a time that is seconds old when it makes its identifiers, so the last 4096
/// milliseconds are remembered; what is older begins anew and is in no order.
fn next_place(ms: u64) -> u16 {
    // Each holds its millisecond, then in the lowest 12 bits the place that comes next.
    static NEXT: [AtomicU64; 4096] = [const { AtomicU64::new(0) }; 4096];
    let Some(next) = usize::try_from(ms % 4096).ok().and_then(|slot| NEXT.get(slot)) else { return 0 };
    let is_of_now = |held: u64| held >> 12 == ms;
    let step = |held: u64| {
        if is_of_now(held) { held + u64::from(held & LAST_PLACE < LAST_PLACE) } else { (ms << 12) + 1 }
    };
    let (Ok(held) | Err(held)) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(step(held)));
    if is_of_now(held) { u16::try_from(held & LAST_PLACE).unwrap_or(0) } else { 0 }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// What every identifier of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new identifier: 48 bits of time, 12 of its place within the millisecond, the rest random.
            #[must_use]
            pub fn generate(now: UnixTime, entropy: &dyn Entropy) -> Self {
                let mut random = [0u8; 10];
                entropy.fill(&mut random);
                let ms = u64::try_from(now.as_millis()).unwrap_or(0);
                [random[0], random[1]] = next_place(ms).to_be_bytes();
                Self(*uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid().as_bytes())
            }

            /// The 16 bytes, as they are stored.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// From stored bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(&alphabet().encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = InvalidId { prefix: $prefix };
                let body = text.strip_prefix($prefix).ok_or_else(|| invalid.clone())?;
                let bytes = alphabet().decode(body.as_bytes()).map_err(|_| invalid.clone())?;
                bytes.try_into().map(Self).map_err(|_| invalid)
            }
        }
    };
}

id!(
    /// A local user.
    UserId, "usr_"
);
id!(
    /// A session: one refresh-token family.
    SessionId, "ses_"
);
id!(
    /// An MFA challenge.
    ChallengeId, "chg_"
);
id!(
    /// A recorded sign-in or other event.
    EventId, "evt_"
);
id!(
    /// A key that signs local tokens; also its `kid`.
    KeyId, "key_"
);
id!(
    /// An admin key.
    AdminKeyId, "csk_"
);
id!(
    /// One HTTP request.
    RequestId, "req_"
);
id!(
    /// An enrolled MFA factor.
    FactorId, "fac_"
);
id!(
    /// One refresh token of a family.
    RefreshId, "rft_"
);

id!(
    /// An invitation.
    InvitationId, "inv_"
);
id!(
    /// An identity that waits to be linked.
    LinkId, "lnk_"
);
id!(
    /// A linked identity, derived from its key.
    IdentityId, "idn_"
);
id!(
    /// A known device of a user, derived from both.
    DeviceId, "dev_"
);

/// The name of a tenant, as in `[[tenants]] id`: 1 to 64 of `a-z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// The tenant that serves requests that name none.
    pub const DEFAULT: &'static str = "default";

    /// Checks the form.
    ///
    /// # Errors
    /// When the text is empty, longer than 64, or holds another character.
    pub fn parse(text: &str) -> Result<Self, InvalidTenantId> {
        let fine = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if fine { Ok(Self(text.into())) } else { Err(InvalidTenantId) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is not a tenant name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tenant id is 1 to 64 characters of a-z, 0-9, _ and -")]
pub struct InvalidTenantId;

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SystemEntropy;

    #[test]
    fn an_id_survives_its_text_form_and_keeps_time_order() {
        let early = UserId::generate(UnixTime::from_millis(1_700_000_000_000), &SystemEntropy);
        let late = UserId::generate(UnixTime::from_millis(1_700_000_000_001), &SystemEntropy);
        assert_eq!(early.to_string().parse::<UserId>(), Ok(early));
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
    }

    #[test]
    fn ids_of_one_millisecond_are_in_the_order_in_which_they_were_made() {
        // A time that no other test has, and requests that bear others between.
        let at = UnixTime::from_millis(1_111_111_111_111);
        let ids: Vec<EventId> = (0..4000)
            .map(|i| {
                let _ = UserId::generate(at.plus(std::time::Duration::from_millis(i)), &SystemEntropy);
                EventId::generate(at, &SystemEntropy)
            })
            .collect();
        assert!(ids.is_sorted(), "those of a millisecond");
        let more: Vec<EventId> = (0..5000).map(|_| EventId::generate(at, &SystemEntropy)).collect();
        let distinct: std::collections::HashSet<_> = ids.iter().chain(&more).collect();
        assert_eq!(distinct.len(), 9000, "when there are too many they differ all the same");
        assert!(more.iter().all(|id| id > &ids[0]));
    }

    #[test]
    fn an_id_of_another_kind_or_length_is_refused() {
        let user = UserId::generate(UnixTime::from_millis(1), &SystemEntropy).to_string();
        assert!(user.parse::<SessionId>().is_err());
        assert!("usr_".parse::<UserId>().is_err());
        assert!("usr_0".parse::<UserId>().is_err());
        assert!(format!("{user}0").parse::<UserId>().is_err());
        assert!("usr_é".parse::<UserId>().is_err());
    }
}
