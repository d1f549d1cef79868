//! Provider keys over HTTP: discovery, key sets, and the only client that leaves this server.
//!
//! [`Fetcher`] asks nobody but public addresses (or granted networks), in bounded time and size.
//! [`KeyCache`] keeps the key sets and implements [`KeySource`](crate::signin::ports::KeySource).
//! Deliberately absent: a way to fetch a URL that a token names (`jku`, `x5u`), proxies, cookies,
//! automatic redirects and automatic decompression.

mod address;
mod cache;
mod client;
mod discovery;
mod disk;
mod inspect;
mod probe;
mod request;
mod schedule;

#[cfg(test)]
mod cache_tests;
#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod test_world;

pub use address::{AddressRule, RefusedAddress};
pub use cache::{KeyCache, KeyFetchError};
pub use client::{FetchError, FetchSettings, FetchSetupError, Fetched, Fetcher};
pub use discovery::DiscoveryError;
pub use disk::KeyFiles;
pub use inspect::{DocumentFound, Inspection, KeysFound, inspect};
pub use probe::Probe;
pub use request::{OutboundRequest, OutboundResponse};
