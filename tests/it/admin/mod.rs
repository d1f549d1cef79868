mod directory;
mod keys;
mod matrix;
mod users;

pub use countersign::admin::access::Role;
