//! Ways to prove oneself a second time, and how much each proves.

use std::fmt;

use arrayvec::ArrayString;

/// The longest name of a plugin's own method, in bytes.
pub const OWN_METHOD_BYTES: usize = 32;

/// A way to prove oneself a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MfaMethod {
    /// A passkey or security key.
    Webauthn,
    /// A code of an authenticator app (RFC 6238).
    Totp,
    /// A confirmation on a known device.
    Push,
    /// One of the codes that are good once; see [`super::backup`].
    BackupCode,
    /// A code by e-mail.
    Email,
    /// A code by text message.
    Sms,
    /// What a plugin brings, by the name that the operator gives it.
    Own(OwnMethod),
}

/// The name of a method that a plugin brings, such as `acme.voice`: parts of a-z, 0-9, `_` and `-` with a dot between
/// them, the first beginning with a letter, [`OWN_METHOD_BYTES`] at most. The dot keeps it apart from the words of
/// the contract, those of later versions too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnMethod(ArrayString<OWN_METHOD_BYTES>);

impl OwnMethod {
    /// The pattern of a name, for schemas; its length comes on top.
    pub const PATTERN: &str = "^[a-z][a-z0-9_-]*(\\.[a-z0-9_-]+)+$";

    fn parse(word: &str) -> Option<Self> {
        let is_part = |part: &str| {
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
            !part.is_empty() && part.bytes().all(fits)
        };
        let is_name = word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.contains('.')
            && word.split('.').all(is_part);
        if is_name { ArrayString::from(word).ok().map(Self) } else { None }
    }
}

impl MfaMethod {
    /// The words of the contract, best first.
    pub const ALL: [Self; 6] = [Self::Webauthn, Self::Totp, Self::Push, Self::Email, Self::Sms, Self::BackupCode];

    /// Those that a user can enrol at this server, best first; the last resort last.
    pub const SUPPORTED: [Self; 2] = [Self::Totp, Self::BackupCode];

    /// Its word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Own(OwnMethod(name)) => name,
            _ => self.word(),
        }
    }

    /// The word of the contract; empty for a plugin's own.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Webauthn => "webauthn",
            Self::Totp => "totp",
            Self::Push => "push",
            Self::BackupCode => "backup_code",
            Self::Email => "email",
            Self::Sms => "sms",
            Self::Own(_) => "",
        }
    }

    /// The method of a word, be it one of the contract or the name of a plugin's own.
    #[must_use]
    pub fn find(word: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|m| m.as_str() == word);
        known.or_else(|| OwnMethod::parse(word).map(Self::Own))
    }

    /// What a word may be, for messages about one that is none.
    #[must_use]
    pub fn expected() -> String {
        let known: Vec<&str> = Self::ALL.iter().map(Self::as_str).collect();
        format!("{}, or a plugin's own, such as acme.voice", known.join(", "))
    }

    /// How much it proves. Of a plugin's own the operator says it, in `plugins.lock`; weak unless told otherwise.
    #[must_use]
    pub const fn strength(self) -> Strength {
        match self {
            Self::Webauthn => Strength::PhishingResistant,
            Self::Totp | Self::Push => Strength::Strong,
            Self::BackupCode | Self::Email | Self::Sms | Self::Own(_) => Strength::Weak,
        }
    }

    /// Its authentication method reference (RFC 8176 section 2). A plugin's own goes by a channel of its own: `mca`.
    #[must_use]
    pub const fn amr(self) -> &'static str {
        match self {
            Self::Webauthn => "hwk",
            Self::Totp | Self::Email | Self::BackupCode => "otp",
            Self::Push => "swk",
            Self::Sms => "sms",
            Self::Own(_) => "mca",
        }
    }
}

impl fmt::Display for MfaMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much a factor proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// A code on a channel that others may read.
    Weak,
    /// A secret that only the user's device holds.
    Strong,
    /// Bound to the origin that asks.
    PhishingResistant,
}

impl Strength {
    /// The word that rules use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Weak => "weak",
            Self::Strong => "strong",
            Self::PhishingResistant => "phishing_resistant",
        }
    }

    /// The strength of a word.
    #[must_use]
    pub fn find(word: &str) -> Option<Self> {
        [Self::Weak, Self::Strong, Self::PhishingResistant].into_iter().find(|s| s.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_again() {
        for method in MfaMethod::ALL {
            assert_eq!(MfaMethod::find(method.as_str()), Some(method));
        }
        let longest = format!("acme.{}", "v".repeat(OWN_METHOD_BYTES - 5));
        for name in ["acme.voice", "a.b.c", "acme.whats-app_2", &longest] {
            assert_eq!(MfaMethod::find(name).as_ref().map(MfaMethod::as_str), Some(name));
        }
    }

    #[test]
    fn a_name_of_a_plugin_has_a_dot_and_plain_letters() {
        let long = format!("acme.{}", "v".repeat(OWN_METHOD_BYTES - 4));
        for word in
            ["", "voice", ".voice", "acme.", "acme..voice", "Acme.voice", "1.a", "acme.vöice", "a.b c", &long]
        {
            assert_eq!(MfaMethod::find(word), None, "{word}");
        }
    }
}
