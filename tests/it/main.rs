//! All integration tests in one binary: each further one would link the whole server again.

mod admin;
mod cli;
mod cli_tools;
mod crash;
mod house;
mod http_form;
mod mfa;
mod oauth;
mod openapi;
mod people;
mod plugin_abi;
mod plugin_crash;
mod plugin_life;
mod plugin_memory;
mod plugin_process;
mod plugin_tools;
mod policies;
mod policy_defs;
mod policy_life;
mod policy_nodes;
mod policy_page;
mod policy_tokens;
mod session;
mod sign_in;
mod support;
mod verification;
