//! The sign-in path through the front door.

mod disputed;
mod happy;
mod keys_on_disk;
mod likelihood;
mod linking;
pub mod located_pem;
pub mod mfa_webhook;
mod outages;
mod own_methods;
pub mod plugin_ports;
mod plugins;
pub mod provider_plugins;
mod providers;
mod replay;
mod risk;
mod security_events;
mod test_mode;
mod token_refusals;
mod two_channels;
