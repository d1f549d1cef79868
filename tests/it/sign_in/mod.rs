//! The sign-in path through the front door.

mod happy;
mod linking;
mod outages;
mod plugins;
mod replay;
mod risk;
mod test_mode;
mod token_refusals;
