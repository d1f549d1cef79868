//! The core of the server: the straight path of a sign-in.
//!
//! Each step takes the former step's type by value and gives the next. Fields are private and only the
//! module of a step can build its type, so that no step can be skipped or done twice:
//!
//! [`token::UnverifiedToken`] → [`verify::VerifiedToken`] → [`replay::FreshToken`] →
//! [`identity::MappedIdentity`] → [`user::ResolvedUser`] → [`signals::Signals`] →
//! [`assessment::AssessedSignIn`] → [`decision::Decided`] → [`pipeline::Outcome`].
//!
//! Deliberately absent: any edge, the machine's clock, files, the environment, randomness of its own.

pub mod agent;
pub mod assessment;
pub mod decision;
pub mod error;
pub mod facts;
pub mod history;
pub mod identity;
pub mod json;
pub mod key;
pub mod nonce;
pub mod pipeline;
pub mod ports;
pub mod provider;
pub mod record;
pub mod replay;
pub mod request;
pub mod rules;
pub mod signals;
pub mod token;
pub mod user;
pub mod verify;
