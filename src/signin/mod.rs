//! The core of the server: the straight path of a sign-in.
//!
//! Each step takes the former step's type by value and gives the next. Fields are private and only the
//! module of a step can build its type, so that no step can be skipped or done twice:
//!
//! [`token::UnverifiedToken`] → [`verify::VerifiedToken`] → [`replay::FreshToken`] →
//! [`identity::MappedIdentity`] → [`user::ResolvedUser`] → [`signals::Signals`] →
//! [`assessment::AssessedSignIn`] → [`decision::Decided`] → [`pipeline::Outcome`].
//!
//! These are the types, and this compiles:
//!
//! ```
//! use countersign::signin::{
//!     assessment::AssessedSignIn, decision::Decided, identity::MappedIdentity, replay::FreshToken, signals::Signals,
//!     token::UnverifiedToken, user::ResolvedUser, verify::VerifiedToken,
//! };
//! fn all(_: (UnverifiedToken, VerifiedToken, FreshToken, MappedIdentity, ResolvedUser, Signals, AssessedSignIn, Decided)) {}
//! ```
//!
//! None of them can be made from outside of its module:
//!
//! ```compile_fail,E0451
//! # use countersign::signin::verify::VerifiedToken;
//! fn forge(seen: VerifiedToken) -> VerifiedToken { VerifiedToken { subject: "root".into(), ..seen } }
//! ```
//! ```compile_fail,E0423
//! # use countersign::signin::{replay::FreshToken, verify::VerifiedToken};
//! fn forge(seen: VerifiedToken) -> FreshToken { FreshToken(seen) }
//! ```
//! ```compile_fail,E0451
//! # use countersign::signin::identity::{MappedIdentity, Profile};
//! fn forge(seen: MappedIdentity, profile: Profile) -> MappedIdentity { MappedIdentity { profile, ..seen } }
//! ```
//! ```compile_fail,E0451
//! # use countersign::signin::user::{KnownUser, ResolvedUser};
//! fn forge(seen: ResolvedUser, known: KnownUser) -> ResolvedUser { ResolvedUser { known, ..seen } }
//! ```
//! ```compile_fail,E0451
//! # use countersign::signin::{facts::Facts, signals::Signals};
//! fn forge(seen: Signals, facts: std::sync::Arc<Facts>) -> Signals { Signals { facts, ..seen } }
//! ```
//! ```compile_fail,E0451
//! # use countersign::signin::assessment::{AssessedSignIn, Assessment};
//! fn forge(seen: AssessedSignIn, assessment: Assessment) -> AssessedSignIn { AssessedSignIn { assessment, ..seen } }
//! ```
//! ```compile_fail,E0451
//! # use countersign::signin::decision::{Decided, Decision};
//! fn forge(seen: Decided, decision: Decision) -> Decided { Decided { decision, ..seen } }
//! ```
//!
//! A step takes what the step before it gave, and nothing else. A token that nobody verified is not mapped:
//!
//! ```compile_fail,E0308
//! # use countersign::signin::{identity::{MappedIdentity, MappingOutput}, token::UnverifiedToken};
//! fn skip(token: UnverifiedToken) { let _ = MappedIdentity::check(token, MappingOutput::default()); }
//! ```
//! Nor is one that was verified and not spent:
//!
//! ```compile_fail,E0308
//! # use countersign::signin::{identity::{MappedIdentity, MappingOutput}, verify::VerifiedToken};
//! fn skip(token: VerifiedToken) { let _ = MappedIdentity::check(token, MappingOutput::default()); }
//! ```
//! And a token is spent once, since it is taken by value:
//!
//! ```compile_fail,E0382
//! # use countersign::signin::{ports::ReplayGuard, replay::spend, verify::VerifiedToken};
//! async fn twice(token: VerifiedToken, guard: &dyn ReplayGuard) {
//!     let _ = spend(token, guard).await;
//!     let _ = spend(token, guard).await;
//! }
//! ```
//!
//! Deliberately absent: any edge, the machine's clock, files, the environment, randomness of its own.

pub mod agent;
pub mod assessment;
pub mod audit;
mod checks;
pub mod decision;
pub mod error;
pub mod fact_paths;
pub mod facts;
pub mod history;
pub mod identity;
pub mod json;
pub mod key;
pub mod likelihood;
pub mod logout;
pub mod networks;
pub mod nonce;
pub mod pipeline;
pub mod ports;
pub mod provider;
pub mod record;
pub mod replay;
pub mod request;
pub mod rules;
pub mod security_events;
pub mod signals;
pub mod token;
pub mod trace;
pub mod user;
#[cfg(test)]
mod vector_tests;
pub mod verify;

#[cfg(test)]
mod key_tests;
