//! What the tests share.

pub mod plugins;
