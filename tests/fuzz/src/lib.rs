//! The product's core, compiled for fuzzing: the very source files, without the edges.
//!
//! The rule of direction (`tests/it/house.rs`) lets the core import nothing of the edges; so it builds alone,
//! instrumented, in a fraction of the time that the whole server would take.

#[path = "../../../src/clock.rs"]
pub mod clock;
#[path = "../../../src/codes.rs"]
pub mod codes;
#[path = "../../../src/ids.rs"]
pub mod ids;
#[path = "../../../src/mfa/mod.rs"]
pub mod mfa;
#[path = "../../../src/secret.rs"]
pub mod secret;
#[path = "../../../src/session/mod.rs"]
pub mod session;
#[path = "../../../src/signin/mod.rs"]
pub mod signin;
#[path = "../../../src/vault.rs"]
pub mod vault;

pub mod oidc;
pub mod oracle;
