//! The product's core, compiled for fuzzing: the very source files, without the edges.
//!
//! The rule of direction (`tests/it/house.rs`) lets the core import nothing of the edges; so it builds alone,
//! instrumented, in a fraction of the time that the whole server would take.

pub mod oidc;
pub mod oracle;

include!(concat!(env!("OUT_DIR"), "/rooms.rs"));
