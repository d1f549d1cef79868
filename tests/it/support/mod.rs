//! What tests share: a real server on loopback with a real database file, a real issuer over HTTP, and a
//! clock that stands still until it is told to move.

pub mod clock;
pub mod issuer;
pub mod plugins;
pub mod program;
pub mod service;
pub mod sessions;
pub mod tls;
pub mod wire;
