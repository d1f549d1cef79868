//! The life of policies: bundles and what is active, what was decided and why, and what another bundle
//! would have decided.
//!
//! Scripts are run behind [`ports::PolicyLab`], rows are kept behind [`ports::PolicyStore`]; here stand
//! the rules. Deliberately absent: a way to change a bundle, and a way to make one active that does not
//! pass the gates.

pub mod bundle;
pub mod explain;
