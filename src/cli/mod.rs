//! The commands. Exit codes: 0 fine, 1 findings, 2 wrong usage or configuration, 3 server or store out
//! of reach.

mod admin_key;
mod dev_token;
mod doctor;
mod keys;
mod migrate;
mod openapi;
mod paint;
mod plugin;
mod policy;
mod policy_sign;
mod policy_store;
mod policy_test;
mod provider;
mod serve;
mod token;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Fine.
const FINE: u8 = 0;
/// A check found something.
const FINDINGS: u8 = 1;
/// Wrong usage or configuration.
const USAGE: u8 = 2;
/// The server or the store is out of reach.
const UNREACHABLE: u8 = 3;

/// Verifies ID tokens, asks the tenant's rules, and answers with local tokens or an MFA challenge.
#[derive(Parser)]
#[command(name = "countersign", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    #[command(after_help = "Example:\n  countersign serve --dev\n  countersign serve --config countersign.toml")]
    Serve(serve::Serve),
    /// Bring the store's schema up to date.
    #[command(after_help = "Example:\n  countersign migrate --config countersign.toml")]
    Migrate(migrate::Migrate),
    /// Write the OpenAPI document and the error table, or check that the committed ones are current.
    #[command(after_help = "Example:\n  countersign openapi --check")]
    Openapi(openapi::Openapi),
    /// Make, list and revoke keys of the administration API.
    #[command(subcommand)]
    AdminKey(admin_key::AdminKeys),
    /// Work on ID tokens.
    #[command(subcommand)]
    Token(token::Token),
    /// Print an ID token of the development issuer of a running `serve --dev`.
    #[command(
        name = "dev-token",
        after_help = "Example:\n  countersign dev-token --sub ada --claim email=ada@example.com --claim 'groups=[\"staff\"]'"
    )]
    DevToken(dev_token::DevToken),
    /// Test and attack a provider's configuration.
    #[command(subcommand)]
    Provider(provider::ProviderCommand),
    /// Look at everything that the server needs, and say what to mend. Writes nothing.
    #[command(after_help = "Exit codes: 0 fine, 1 findings, 2 wrong configuration, 3 store out of reach.\n\n\
            Example:\n  countersign doctor --config countersign.toml")]
    Doctor(doctor::Doctor),
    /// Work on the keys that sign local tokens, and on the master key.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Work on policies.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Work on plugins.
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    /// The process of one plugin; the server starts it.
    #[command(hide = true, name = "plugin-host")]
    PluginHost,
}

#[derive(clap::Args)]
struct ConfigFile {
    /// The configuration file; countersign.example.toml documents every key.
    #[arg(long, value_name = "FILE", default_value = "countersign.toml")]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<crate::config::Settings, Failure> {
        Ok(crate::config::load(&self.config, std::env::vars())?)
    }
}

/// A configuration file, or what `serve --dev` runs with in this directory.
#[derive(clap::Args)]
struct Place {
    #[command(flatten)]
    config: ConfigFile,
    /// The server that `serve --dev` runs in this directory.
    #[arg(long, conflicts_with = "config")]
    dev: bool,
    /// Where that one listens.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "dev")]
    listen: Option<SocketAddr>,
}

impl Place {
    fn load(&self) -> Result<crate::config::Settings, Failure> {
        if self.dev { Ok(crate::config::dev_settings(Path::new("."), self.listen)?) } else { self.config.load() }
    }
}

/// A command that ended badly: what to say, and with which exit code.
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::new(USAGE, error.to_string())
    }
}

impl From<crate::app::StartError> for Failure {
    fn from(error: crate::app::StartError) -> Self {
        use crate::app::StartError as E;
        let code = if matches!(error, E::Store(_) | E::Read(_)) { UNREACHABLE } else { USAGE };
        Self::new(code, error.to_string())
    }
}

impl From<crate::store::OpenError> for Failure {
    fn from(error: crate::store::OpenError) -> Self {
        Self::new(UNREACHABLE, format!("store: {error}"))
    }
}

/// Runs the command of the process's arguments.
#[must_use]
pub fn run() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Serve(command) => command.run(),
        Command::Migrate(command) => command.run(),
        Command::Openapi(command) => command.run(),
        Command::AdminKey(command) => command.run(),
        Command::Token(command) => command.run(),
        Command::DevToken(command) => command.run(),
        Command::Provider(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Keys(command) => command.run(),
        Command::Policy(command) => command.run(),
        Command::Plugin(command) => command.run(),
        Command::PluginHost => {
            crate::plugin_host::child::run().map(|()| FINE).map_err(|error| Failure::new(USAGE, error.to_string()))
        }
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("countersign: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(UNREACHABLE, format!("no threads could be started: {error}")))
}
