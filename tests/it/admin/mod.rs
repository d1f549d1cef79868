mod directory;
mod keys;
mod matrix;
mod policies;
mod users;

pub use countersign::admin::access::Role;
