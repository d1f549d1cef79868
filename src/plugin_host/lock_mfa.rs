//! What an entry with the hooks `mfa.*` delivers: `method`, `strength`, `address`, `tenants`.

use std::ops::Range;

use toml::Spanned;

use super::error::PluginLoadError;
use super::hook::Hook;
use super::lock::Place;
use crate::ids::TenantId;
use crate::mfa::delivery::{Address, Channel, ChannelKind};
use crate::mfa::{MfaMethod, Strength};

/// The keys as they stand in the lock.
pub(super) struct RawMfa {
    pub(super) method: Option<Spanned<String>>,
    pub(super) strength: Option<Spanned<String>>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) tenants: Option<Spanned<Vec<Spanned<String>>>>,
}

/// A channel, and who may use it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Offer {
    pub(super) channel: Channel,
    /// Of these tenants; of all when there is no list.
    tenants: Option<Vec<TenantId>>,
}

impl Offer {
    pub(super) fn method(&self) -> String {
        self.channel.method.to_string()
    }

    pub(super) fn is_for(&self, tenant: &TenantId) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant))
    }
}

const NEEDS: &str = "the hooks mfa.begin and mfa.verify need method: \"email\", \"sms\", \"push\", or a name of the \
                     plugin's own with a dot in it, such as \"acme.voice\"";

impl RawMfa {
    pub(super) fn read(
        self,
        at: &Place<'_>,
        hooks: &[Hook],
        id: &Range<usize>,
    ) -> Result<Option<Offer>, PluginLoadError> {
        let keys = [("strength", &self.strength), ("address", &self.address)];
        if !hooks.iter().any(|h| h.is_mfa()) {
            let spans = [("method", &self.method)].into_iter().chain(keys);
            let spans = spans.filter_map(|(key, value)| Some((key, value.as_ref()?.span())));
            let tenants = self.tenants.as_ref().map(|tenants| ("tenants", tenants.span()));
            return match spans.chain(tenants).next() {
                Some((key, span)) => Err(at.error(span, format!("{key} is for the hooks mfa.*; strike it"))),
                None => Ok(None),
            };
        }
        let Some(word) = &self.method else { return Err(at.error(id.clone(), NEEDS.to_owned())) };
        let judges = hooks.contains(&Hook::MfaVerify);
        let (method, address) = match MfaMethod::find(word.get_ref()) {
            Some(method @ MfaMethod::Email) => (method, Address::Email),
            Some(method @ MfaMethod::Sms) => (method, Address::Phone),
            Some(method @ MfaMethod::Push) if judges => (method, Address::Known),
            Some(MfaMethod::Push) => {
                let what = "method \"push\" needs the hook mfa.verify too: there is no code to compare";
                return Err(at.error(word.span(), what.to_owned()));
            }
            Some(method @ MfaMethod::Own(_)) => (method, Address::Known),
            _ => return Err(at.error(word.span(), NEEDS.to_owned())),
        };
        if !matches!(method, MfaMethod::Own(_))
            && let Some((key, value)) = keys.into_iter().find_map(|(key, value)| Some((key, value.as_ref()?)))
        {
            let what = format!("{key} is for a method of the plugin's own; strike it: of \"{method}\" it is known");
            return Err(at.error(value.span(), what));
        }
        let strength = match &self.strength {
            None => method.strength(),
            Some(word) => match Strength::find(word.get_ref()) {
                // Bound to the origin that asks is what the browser does, and no channel of a plugin.
                Some(strength @ (Strength::Weak | Strength::Strong)) => strength,
                _ => return Err(at.error(word.span(), "strength is \"weak\" or \"strong\"".to_owned())),
            },
        };
        let address = match self.address.as_ref().map(|word| word.get_ref().as_str()) {
            None => address,
            Some("email") => Address::Email,
            Some("phone_number") => Address::Phone,
            Some(_) => {
                let what =
                    "address is \"email\" or \"phone_number\"; without it the plugin knows where to reach a user";
                let span = self.address.as_ref().map(Spanned::span).unwrap_or_default();
                return Err(at.error(span, what.to_owned()));
            }
        };
        let kind = if judges { ChannelKind::Judges } else { ChannelKind::Delivers };
        let tenants = self.tenants.map(|tenants| read_tenants(at, tenants)).transpose()?;
        Ok(Some(Offer { channel: Channel { method, strength, kind, address }, tenants }))
    }
}

fn read_tenants(at: &Place<'_>, list: Spanned<Vec<Spanned<String>>>) -> Result<Vec<TenantId>, PluginLoadError> {
    let span = list.span();
    let read = |word: Spanned<String>| {
        TenantId::parse(word.get_ref())
            .map_err(|e| at.error(word.span(), format!("tenants: \"{}\": {e}", word.get_ref())))
    };
    let tenants = list.into_inner().into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if tenants.is_empty() {
        return Err(at.error(span, "tenants is empty: name some, or strike it for every tenant".to_owned()));
    }
    Ok(tenants)
}
