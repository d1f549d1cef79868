//! `countersign plugin`.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{FINDINGS, FINE, Failure, USAGE, runtime};
use crate::plugin_host::check::{Driven, Trial, check};
use crate::plugin_host::lock::{lock_entry, lock_list};
use crate::plugin_host::template::{Kind, Language, write_template};
use crate::plugin_host::{PluginLoadError, Services};

#[derive(clap::Subcommand)]
pub(super) enum Plugin {
    /// Make a folder with a plugin that builds and passes its checks at once, with all it needs.
    #[command(
        after_help = "Example:\n  countersign plugin new night\n  countersign plugin new gateway --kind mfa\n  countersign plugin new night --language c"
    )]
    New {
        /// Its name, a-z 0-9 and -; also the folder's.
        name: String,
        /// rust or c.
        #[arg(long, default_value = "rust", value_parser = Language::find)]
        language: Language,
        /// signal: a fact for the rules; provider: keys and claims of a provider; mfa: delivers codes. In C: signal.
        #[arg(long, default_value = "signal", value_parser = Kind::find)]
        kind: Kind,
    },
    /// Try a plugin in a process of its own: handshake, self-test, odd inputs, hangs, leaks.
    #[command(after_help = "Example:\n  countersign plugin check ./libnight.so --config '{\"from_hour\": 22}'")]
    Check {
        #[command(flatten)]
        trial: TrialArgs,
    },
    /// Print the plugins.lock entry of a plugin file: review it, then paste it.
    #[command(after_help = "Example:\n  countersign plugin lock ./libip_list.so >> plugins.lock")]
    Lock {
        /// The plugin's file.
        file: PathBuf,
    },
    /// List what a lock file names, and whether the files are the locked ones. Runs nothing of them.
    #[command(after_help = "Example:\n  countersign plugin list --lock plugins.lock")]
    List {
        /// The lock file.
        #[arg(long, value_name = "FILE", default_value = "plugins.lock")]
        lock: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure every hook of a plugin, in a process of its own and in this one.
    #[command(after_help = "Example:\n  countersign plugin bench ./libnight.so --calls 10000")]
    Bench {
        #[command(flatten)]
        trial: TrialArgs,
        /// Calls of each hook.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        calls: u32,
    },
}

#[derive(clap::Args)]
pub(super) struct TrialArgs {
    /// The plugin's file.
    file: PathBuf,
    /// What the plugin gets as its configuration, a JSON object.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    config: String,
    /// A folder with one file for each secret that it asks for.
    #[arg(long, value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl TrialArgs {
    fn trial(&self) -> Result<Trial<'_>, Failure> {
        let object = serde_json::from_str::<serde_json::Value>(&self.config).is_ok_and(|v| v.is_object());
        if !object {
            return Err(Failure::new(USAGE, "--config is not a JSON object"));
        }
        let services = Services { secrets_dir: self.secrets_dir.clone(), ..Services::default() };
        Ok(Trial { file: &self.file, config_json: &self.config, services })
    }
}

fn unusable(error: &PluginLoadError) -> Failure {
    Failure::new(USAGE, error.to_string())
}

impl Plugin {
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self {
            Self::New { name, language, kind } => {
                let made = write_template(Path::new("."), &name, language, kind);
                let made = made.map_err(|error| Failure::new(USAGE, format!("{name}: {error}")))?;
                print!("{made}");
                Ok(FINE)
            }
            Self::Check { trial } => {
                let report = runtime()?.block_on(check(&trial.trial()?)).map_err(|e| unusable(&e))?;
                if trial.json {
                    let lines = report.lines().iter().map(|(fine, what)| json!({ "fine": fine, "what": what }));
                    println!("{}", json!({ "passed": report.passed(), "tried": lines.collect::<Vec<_>>() }));
                } else {
                    print!("{report}");
                }
                Ok(if report.passed() { FINE } else { FINDINGS })
            }
            Self::Lock { file } => {
                print!("{}", lock_entry(&file, Services::default()).map_err(|e| unusable(&e))?);
                Ok(FINE)
            }
            Self::List { lock, json } => list(&lock, json),
            Self::Bench { trial, calls } => measure(&trial, calls),
        }
    }
}

fn list(lock: &Path, json: bool) -> Result<u8, Failure> {
    let listed = lock_list(lock).map_err(|e| unusable(&e))?;
    let fine = listed.iter().all(|p| p.trouble.is_none());
    if json {
        let rows = listed.iter().map(|p| {
            json!({
                "id": p.id, "version": p.version, "sha256": p.sha256, "isolation": p.isolation, "hooks": p.hooks, "mfa_method": p.mfa_method,
                "file": p.file, "trouble": p.trouble
            })
        });
        println!("{}", json!({ "plugins": rows.collect::<Vec<_>>() }));
    } else {
        for p in &listed {
            let method = p.mfa_method.as_ref().map(|method| format!("  {method}")).unwrap_or_default();
            println!("{} {}  {}  {}{method}", p.id, p.version, p.isolation, p.hooks.join(" "));
            println!("  {}  {}", p.file.display(), p.trouble.as_deref().unwrap_or("as locked"));
        }
    }
    Ok(if fine { FINE } else { FINDINGS })
}

fn measure(args: &TrialArgs, calls: u32) -> Result<u8, Failure> {
    let runtime = runtime()?;
    let (trial, calls) = (args.trial()?, calls as usize);
    let mut rows = Vec::new();
    for isolation in ["process", "in_process"] {
        let driven = if isolation == "process" { Driven::apart(&trial) } else { Driven::here(&trial) };
        let times = runtime.block_on(driven.map_err(|e| unusable(&e))?.measure(calls));
        rows.extend(times.into_iter().map(|(hook, times)| (hook, isolation, times)));
    }
    if args.json {
        let rows =
            rows.iter().map(|(hook, isolation, t)| json!({ "hook": hook, "isolation": isolation, "times": t }));
        println!("{}", json!({ "measured": rows.collect::<Vec<_>>() }));
    } else {
        for (hook, isolation, times) in rows {
            println!("{hook:<22} {isolation:<11} p50 {:>8.1} µs   p99 {:>8.1} µs", times.p50_us, times.p99_us);
        }
    }
    Ok(FINE)
}
