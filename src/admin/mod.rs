//! Administration: who may change what, and what stays written of it.
//!
//! The way of every operation: an admin key becomes a [`access::Caller`]; the caller becomes a
//! [`access::Permit`] for one verb on one resource of one tenant, or does not; the permit becomes the
//! [`audit::Author`] that every change of the store takes along. Without a permit nothing is changed, and
//! nothing is changed without a record: both are a matter of types.

pub mod access;
pub mod audit;
pub mod clients;
pub mod directory;
pub mod failures;
pub mod keys;
pub mod page;
pub mod plugins;
pub mod ports;
pub mod probe;
pub mod users;
