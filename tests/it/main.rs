//! Tests through the public API, in one binary.

mod plugin_abi;
mod support;
