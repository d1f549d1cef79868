//! What belongs to a person beside sign-ins: linked identities, invitations, a local password, devices.
//!
//! Nothing here is found by an address alone, and nothing is linked without a proof of both sides: of the
//! identity by an ID token, of the account by a fresh session or by its factor.

pub mod devices;
pub mod identities;
pub mod invitations;
pub mod passwords;
pub mod ports;

use std::time::Duration;

use crate::clock::UnixTime;
use crate::session::ports::StoredSession;

/// How old a session may be that changes how its user signs in. Refreshing does not make it younger.
pub const FRESH: Duration = Duration::from_secs(600);

/// Whether the user proved who they are a moment ago.
#[must_use]
pub fn is_fresh(session: &StoredSession, now: UnixTime) -> bool {
    now.since(session.created_at) <= FRESH
}
