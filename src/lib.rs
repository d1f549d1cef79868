//! Countersign: verifies an ID token that an OpenID provider issued, maps its claims to a local user
//! with the provider's rhai script, assesses the risk of this very sign-in with the tenant's rhai
//! rules, and answers with local tokens, an MFA challenge, or a refusal that says why.
//!
//! | room | what lives there |
//! |---|---|
//! | [`signin`], [`mfa`], [`session`], [`people`], [`admin`] | the core: rules and types, no I/O |
//! | [`http`], [`store`], [`oidc`], [`scripts`], [`plugin_host`], [`geo`], [`hashing`], [`dev`], [`config`] | the edges: each touches one part of the world, and none imports another |
//! | [`app`] | joins core and edges |
//! | [`cli`] | the commands |
//! | [`ids`], [`clock`], [`codes`], [`rates`], [`secret`], [`vault`] | words that all others use |
//!
//! ARCHITECTURE.md has the map, the walk and the decisions.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod codes;
pub mod config;
pub mod dev;
pub mod geo;
pub mod hashing;
pub mod http;
pub mod ids;
pub mod mfa;
pub mod oidc;
pub mod people;
pub mod plugin_host;
pub mod policy;
pub mod rates;
pub mod scripts;
pub mod secret;
pub mod session;
pub mod signin;
pub mod store;
pub mod vault;
