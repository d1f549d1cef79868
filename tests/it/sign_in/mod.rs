//! The sign-in path through the front door.

mod happy;
mod linking;
mod outages;
mod plugins;
mod replay;
mod risk;
mod token_refusals;
