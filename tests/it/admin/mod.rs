mod keys;

pub use countersign::admin::access::Role;
