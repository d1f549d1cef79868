//! Evidence for the verification of ID tokens: the cases of others, and what hurt others, each through the front door.

mod advisories;
mod claims;
mod conformance;
mod faults;
mod field;
mod field_rows;
mod hostile;
mod networks;
mod table;
pub mod users;
