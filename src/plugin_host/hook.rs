//! The operations that the host asks plugins for, and where each stands in the header.

use std::mem::offset_of;

use countersign_plugin_sdk::abi::{
    CS_EXT_EVENT, CS_EXT_MFA, CS_EXT_PROVIDER, CS_EXT_SIGNAL, CsExtEvent, CsExtMfa, CsExtProvider, CsExtSignal,
};

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    LocateKeys,
    Verify,
    Enrich,
    Signals,
    MfaBegin,
    MfaVerify,
    Observe,
}

/// The extension table that holds an operation.
pub(super) struct Place {
    /// The extension's id, with its NUL.
    pub(super) extension: &'static [u8],
    /// The table's name in the header.
    pub(super) table: &'static str,
    /// Where the pointer stands in it.
    pub(super) offset: usize,
}

impl Hook {
    pub(super) const COUNT: usize = 7;
    pub(super) const ALL: [Self; Self::COUNT] = [
        Self::LocateKeys,
        Self::Verify,
        Self::Enrich,
        Self::Signals,
        Self::MfaBegin,
        Self::MfaVerify,
        Self::Observe,
    ];

    /// Its name in the lock file, in metrics and in logs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::LocateKeys => "provider.locate_keys",
            Self::Verify => "provider.verify",
            Self::Enrich => "provider.enrich",
            Self::Signals => "signal.signals",
            Self::MfaBegin => "mfa.begin",
            Self::MfaVerify => "mfa.verify",
            Self::Observe => "event.observe",
        }
    }

    pub(super) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|h| h.name() == name)
    }

    /// Whether it is asked for certain providers, which the lock file names.
    pub(super) const fn is_bound(self) -> bool {
        matches!(self, Self::LocateKeys | Self::Verify | Self::Enrich)
    }

    pub(super) const fn is_mfa(self) -> bool {
        matches!(self, Self::MfaBegin | Self::MfaVerify)
    }

    pub(super) const fn place(self) -> Place {
        let (extension, table, offset) = match self {
            Self::LocateKeys => (CS_EXT_PROVIDER, "cs_ext_provider", offset_of!(CsExtProvider, locate_keys)),
            Self::Verify => (CS_EXT_PROVIDER, "cs_ext_provider", offset_of!(CsExtProvider, verify)),
            Self::Enrich => (CS_EXT_PROVIDER, "cs_ext_provider", offset_of!(CsExtProvider, enrich)),
            Self::Signals => (CS_EXT_SIGNAL, "cs_ext_signal", offset_of!(CsExtSignal, signals)),
            Self::MfaBegin => (CS_EXT_MFA, "cs_ext_mfa", offset_of!(CsExtMfa, begin)),
            Self::MfaVerify => (CS_EXT_MFA, "cs_ext_mfa", offset_of!(CsExtMfa, verify)),
            Self::Observe => (CS_EXT_EVENT, "cs_ext_event", offset_of!(CsExtEvent, observe)),
        };
        Place { extension, table, offset }
    }

    /// The most that its answer may have. Key sets are the only large ones.
    pub(super) const fn answer_limit_bytes(self) -> usize {
        match self {
            Self::LocateKeys => 512 << 10,
            _ => 64 << 10,
        }
    }
}
