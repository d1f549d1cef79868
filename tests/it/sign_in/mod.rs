//! The sign-in path through the front door.

mod happy;
mod linking;
mod outages;
mod plugin_ports;
mod plugins;
mod replay;
mod risk;
mod token_refusals;
