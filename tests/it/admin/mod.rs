mod keys;
mod policies;

pub use countersign::admin::access::Role;
