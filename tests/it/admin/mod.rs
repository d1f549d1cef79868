mod clients;
mod directory;
mod keys;
mod lists;
mod matrix;
mod policies;
mod policy_storms;
mod provider_audit;
mod signing_keys;
mod users;

pub use countersign::admin::access::Role;
