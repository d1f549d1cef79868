//! Codes that are sent to an address which the user had verified before, by e-mail or text message, and questions to a
//! device of the user's (push).
//!
//! The server makes the code, keeps it sealed beside the challenge, and compares it in constant time,
//! unless the channel's service makes its own. Attempts are counted by the challenge either way. Of a push there is no
//! code: the channel knows the user's devices, asks there, and tells what came of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::ports::{AttemptRequest, AttemptStart, Deliveries, DeliveryStart, NewDelivery};
use super::verify::{ChallengeError, parse};
use super::{MfaMethod, Strength};
use crate::clock::Clock;
use crate::codes::ErrorCode;
use crate::ids::TenantId;
use crate::secret::{Entropy, Secret};
use crate::signin::history::Pseudonyms;
use crate::signin::identity::Profile;
use crate::signin::ports::Directory;
use crate::signin::user::User;
use crate::vault::Vault;

/// The purpose that sent codes are sealed for; the context is the challenge's identifier.
pub const CODE_PURPOSE: &str = "mfa code";
/// Messages of one challenge.
pub const MESSAGES_PER_CHALLENGE: u32 = 3;
/// Messages to one user within [`MESSAGE_WINDOW`].
pub const MESSAGES_PER_USER: u32 = 10;
/// The window of [`MESSAGES_PER_USER`].
pub const MESSAGE_WINDOW: Duration = Duration::from_secs(900);
/// The least time between two messages of a challenge.
pub const MESSAGE_PAUSE: Duration = Duration::from_secs(20);
/// The least time between two looks whether the user has answered on the device, for one challenge. So in its life
/// there are at most 300.
pub const POLL_PAUSE: Duration = Duration::from_secs(1);

/// Channels that deliver codes.
#[async_trait]
pub trait CodeChannels: Send + Sync {
    /// What can be used in a tenant, best first, no method twice.
    fn offered(&self, tenant: &TenantId) -> Vec<Channel>;
    /// Sends; gives what the channel calls the message, if it says.
    async fn send(&self, order: &Order<'_>) -> Result<Option<String>, ChannelError>;
    /// Asks a channel of [`ChannelKind::Judges`] whether the code is right.
    async fn judge(&self, question: &Question<'_>) -> Result<Judged, ChannelError>;

    /// The channel of a method.
    fn find(&self, tenant: &TenantId, method: MfaMethod) -> Option<Channel> {
        self.offered(tenant).into_iter().find(|channel| channel.method == method)
    }

    /// Channels to addresses that the profile holds verified, and to people that the channel knows, best first.
    fn usable(&self, tenant: &TenantId, profile: &Profile) -> Vec<Channel> {
        let offered = self.offered(tenant).into_iter();
        offered.filter(|channel| destination(channel.address, profile).is_some()).collect()
    }
}

/// A way to reach a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Its method.
    pub method: MfaMethod,
    /// How much it proves.
    pub strength: Strength,
    /// Who makes and compares the code.
    pub kind: ChannelKind,
    /// Where it goes.
    pub address: Address,
}

/// Where a channel goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// To the verified e-mail address.
    Email,
    /// To the verified telephone number.
    Phone,
    /// To wherever it knows the user.
    Known,
}

/// Who makes and compares the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// The server does.
    Delivers,
    /// The channel's service does.
    Judges,
}

/// What a channel thinks of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// It is right, or the user confirmed.
    Right,
    /// It is wrong, or the user refused.
    Wrong,
    /// The user has not answered yet.
    Pending,
}

/// What a channel is to send.
pub struct Order<'a> {
    /// The tenant.
    pub tenant: &'a TenantId,
    /// The user.
    pub user: &'a User,
    /// The channel.
    pub method: MfaMethod,
    /// The verified address or number; empty when the channel knows where.
    pub destination: &'a str,
    /// Another for each message.
    pub delivery_id: &'a str,
    /// The code, unless the channel makes its own.
    pub code: Option<&'a str>,
    /// How long it is good.
    pub expires_in: Duration,
}

/// What a channel is to judge.
pub struct Question<'a> {
    /// The tenant.
    pub tenant: &'a TenantId,
    /// The user.
    pub user: &'a User,
    /// The channel.
    pub method: MfaMethod,
    /// Of the message.
    pub delivery_id: &'a str,
    /// What the channel calls the message.
    pub reference: Option<&'a str>,
    /// What the user typed.
    pub code: &'a str,
}

/// A channel did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// It does not serve this user.
    #[error("the channel does not serve this user")]
    Declined,
    /// It is out of reach.
    #[error("the channel is out of reach")]
    Unavailable,
}

/// Why no code was sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// As for an answer.
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    /// Too many messages.
    #[error("too many codes were sent; try again in {retry_after_s} s")]
    TooMany {
        /// Seconds until another may be sent.
        retry_after_s: u64,
    },
    /// The channel.
    #[error("the code cannot be sent now")]
    Channel,
}

impl SendError {
    /// The stable word of the contract.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Challenge(error) => error.code(),
            Self::TooMany { .. } => ErrorCode::TooManyMessages,
            Self::Channel => ErrorCode::ChannelUnavailable,
        }
    }
}

/// A code is on its way.
#[derive(Debug)]
pub struct Sent {
    /// How it travels.
    pub method: MfaMethod,
    /// The address, for recognition: `a…@example.com`, `…89`.
    pub destination_hint: String,
    /// How long the code is good.
    pub expires_in: Duration,
}

/// The wish for a code.
pub struct SendRequest<'a> {
    /// The tenant of the request.
    pub tenant: TenantId,
    /// `chg_….secret`, as the client holds it.
    pub challenge_token: &'a str,
    /// The method.
    pub method: MfaMethod,
    /// The device identifier that the application sent at sign-in.
    pub device_id: Option<&'a str>,
}

/// Sends codes.
pub struct CodeSender {
    /// Which providers are enabled, and which clients there are.
    pub directory: Arc<dyn Directory>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The store.
    pub deliveries: Arc<dyn Deliveries>,
    /// Channels.
    pub channels: Arc<dyn CodeChannels>,
    /// Seals codes.
    pub vault: Vault,
    /// Hashes device identifiers.
    pub pseudonyms: Pseudonyms,
}

impl CodeSender {
    /// Sends a code for an open challenge. The message is counted before it is sent; a new code takes the
    /// place of an earlier one.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, request: SendRequest<'_>) -> Result<Sent, SendError> {
        let now = self.clock.now();
        let method = request.method;
        let (challenge, secret_hash) = parse(request.challenge_token).ok_or(ChallengeError::Unknown)?;
        let device = request.device_id.map(|d| self.pseudonyms.of(request.tenant.as_str(), "device", d));
        let channel = self.channels.find(&request.tenant, method);
        let delivers = channel.is_some_and(|channel| channel.kind == ChannelKind::Delivers);
        let code = delivers.then(|| six_digits(&*self.entropy));
        let sealed_code = code
            .as_ref()
            .map(|code| self.vault.seal(CODE_PURPOSE, challenge.as_bytes(), &Secret::new(code.clone())));
        let in_force = self.directory.in_force(&request.tenant);
        let tenant = request.tenant;
        let attempt = AttemptRequest { tenant, challenge, secret_hash, device, method, in_force, now };
        let delivery_id = Secret::random(16, &*self.entropy).to_base64url();
        let new = NewDelivery { delivery_id: delivery_id.clone(), sealed_code };
        let started = self.deliveries.begin_delivery(attempt, new).await.map_err(ChallengeError::Store)?;
        let (challenge, user) = match started {
            DeliveryStart::Open(open) => *open,
            DeliveryStart::Refused(refused) => return Err(refusal(refused).into()),
            DeliveryStart::NotAllowed { allowed } => return Err(not_allowed(method, &allowed).into()),
            DeliveryStart::TooMany { retry_after_s } => return Err(SendError::TooMany { retry_after_s }),
        };
        let reached = channel
            .filter(|channel| challenge.lets(channel))
            .and_then(|channel| Some((channel.address, destination(channel.address, &user.profile)?)));
        let (address, destination) = reached.ok_or_else(|| not_allowed(method, &[]))?;
        let expires_in = challenge.expires_at.since(now);
        let code = code.as_deref().and_then(|c| std::str::from_utf8(c).ok());
        let order = Order {
            tenant: &challenge.tenant,
            user: &user,
            method,
            destination,
            delivery_id: &delivery_id,
            code,
            expires_in,
        };
        match self.channels.send(&order).await {
            Ok(None) => {}
            Ok(Some(reference)) => {
                let kept = self.deliveries.set_reference(challenge.id, method, &delivery_id, &reference).await;
                kept.map_err(ChallengeError::Store)?;
            }
            Err(ChannelError::Declined) => return Err(not_allowed(method, &[]).into()),
            Err(ChannelError::Unavailable) => return Err(SendError::Channel),
        }
        Ok(Sent { method, destination_hint: hint(address, destination), expires_in })
    }
}

fn refusal(refused: AttemptStart) -> ChallengeError {
    match refused {
        AttemptStart::Open(_) | AttemptStart::Unknown => ChallengeError::Unknown,
        AttemptStart::ProviderDisabled => ChallengeError::ProviderDisabled,
        AttemptStart::Expired => ChallengeError::Expired,
        AttemptStart::Used => ChallengeError::Used,
        AttemptStart::Locked { retry_after_s } => ChallengeError::Locked { retry_after_s },
    }
}

fn not_allowed(method: MfaMethod, allowed: &[MfaMethod]) -> ChallengeError {
    let allowed: Vec<&str> = allowed.iter().map(|m| m.as_str()).collect();
    let allowed = if allowed.is_empty() { "another method".to_owned() } else { allowed.join(", ") };
    ChallengeError::Method { method: method.to_string(), allowed }
}

/// Six random digits, each value as likely as another.
fn six_digits(entropy: &dyn Entropy) -> Vec<u8> {
    // The greatest multiple of a million below 2^32.
    const FAIR: u32 = 4_294_000_000;
    loop {
        let mut bytes = [0; 4];
        entropy.fill(&mut bytes);
        let number = u32::from_le_bytes(bytes);
        if number < FAIR {
            return format!("{:06}", number % 1_000_000).into_bytes();
        }
    }
}

/// The verified address that is reached; empty when the channel knows where.
fn destination(address: Address, profile: &Profile) -> Option<&str> {
    match address {
        Address::Email => profile.email.as_deref().filter(|_| profile.email_verified),
        Address::Phone => profile.phone.as_deref().filter(|_| profile.phone_verified),
        Address::Known => Some(""),
    }
}

/// Enough for its owner to recognise, and for nobody else to use.
fn hint(address: Address, destination: &str) -> String {
    if destination.is_empty() {
        return String::new();
    }
    let first = destination.chars().next().map(String::from).unwrap_or_default();
    match destination.rsplit_once('@').filter(|_| address == Address::Email) {
        Some((_, domain)) => format!("{first}…@{domain}"),
        None => {
            let last: Vec<char> = destination.chars().rev().take(2).collect();
            format!("…{}", last.into_iter().rev().collect::<String>())
        }
    }
}

/// A sent code, as it is stored.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Of the last message.
    pub delivery_id: String,
    /// The code; absent when the channel judges.
    pub sealed_code: Option<Vec<u8>>,
    /// What the channel calls the message.
    pub reference: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_tells_the_owner_and_nobody_else() {
        assert_eq!(hint(Address::Email, "ada@example.com"), "a…@example.com");
        assert_eq!(hint(Address::Phone, "+46701234589"), "…89");
        assert_eq!(hint(Address::Known, ""), "");
    }

    #[test]
    fn codes_have_six_digits_and_differ() {
        let codes: Vec<Vec<u8>> = (0..50).map(|_| six_digits(&crate::secret::SystemEntropy)).collect();
        assert!(codes.iter().all(|c| c.len() == 6 && c.iter().all(u8::is_ascii_digit)));
        assert!(codes.iter().any(|c| c != &codes[0]));
    }
}
