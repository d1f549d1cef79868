//! `countersign serve`.

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{ConfigFile, FINE, Failure, UNREACHABLE, runtime};
use crate::app::{App, DEV_USER, Development, is_loopback};
use crate::config;

#[derive(clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigFile,
    /// Development: no file needed, data in ./data, a loopback issuer as provider "dev", policies watched.
    #[arg(long, conflicts_with = "config")]
    dev: bool,
    /// Where to listen, instead of what the configuration says; with --dev loopback only.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Log lines as JSON.
    #[arg(long)]
    log_json: bool,
}

impl Serve {
    pub(super) fn run(self) -> Result<u8, Failure> {
        init_log(self.log_json);
        runtime()?.block_on(self.serve())
    }

    async fn serve(self) -> Result<u8, Failure> {
        let (listener, settings) = if self.dev {
            // The development issuer's name holds the port, so that is taken first.
            let wanted = self.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
            if !is_loopback(&wanted) {
                config::dev_settings(Path::new("."), Some(wanted))?;
            }
            let listener = listen(wanted).await?;
            let settings = config::dev_settings(Path::new("."), listener.local_addr().ok())?;
            (listener, settings)
        } else {
            let settings = self.config.load()?;
            (listen(self.listen.unwrap_or(settings.server.listen)).await?, settings)
        };
        let address = listener.local_addr().unwrap_or(settings.server.listen);
        let development = self.dev.then_some(Development { address });
        // From here on: before that, SIGHUP ends a process.
        let hangups = signal(SignalKind::hangup());
        let app = App::start(settings, development).await?;
        tracing::info!(address = %address, policy.id = %app.policies().policy_id(), "listening");
        if self.dev {
            print!("{}", banner(address));
        }
        if let Ok(hangups) = hangups {
            reload_on_hangup(hangups, std::sync::Arc::clone(app.plugins()));
        }
        app.serve(listener, stop_signal()).await;
        Ok(FINE)
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::new(UNREACHABLE, format!("cannot listen on {address}: {error}")))
}

/// SIGTERM or Ctrl-C.
async fn stop_signal() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tracing::info!("stopping: running requests may finish");
}

/// SIGHUP: the lock file of the plugins is read now, and not within the second.
fn reload_on_hangup(mut hangups: Signal, plugins: std::sync::Arc<crate::plugin_host::PluginHost>) {
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let plugins = std::sync::Arc::clone(&plugins);
            let reloaded = tokio::task::spawn_blocking(move || plugins.reload()).await;
            if let Ok(Err(error)) = reloaded {
                tracing::error!(error = %error, "plugins not reloaded; the old ones go on");
            }
        }
    });
}

fn init_log(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().flatten_event(true).init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    }
}

/// What a new user sees. Every line can be pasted as it stands.
fn banner(address: SocketAddr) -> String {
    let token = format!("$(curl -s http://{address}/dev/token -d sub={DEV_USER})");
    let json = "-H 'Content-Type: application/json'";
    format!(
        r#"
Countersign is listening on http://{address}   (development: loopback only, data in ./data)

  API documentation   http://{address}/docs
  Policies            policies/risk/_default.rhai   save it, and the next sign-in uses it

1. Sign in, from home in Sweden:

curl -s http://{address}/auth/id-token/signin {json} -A laptop/1 -H 'Countersign-Dev-Country: SE' -d "{{\"provider\":\"dev\",\"device_id\":\"laptop\",\"id_token\":\"{token}\"}}"

2. Sign in with a new device from another country; the answer is a challenge:

CHALLENGE=$(curl -s http://{address}/auth/id-token/signin {json} -A phone/1 -H 'Countersign-Dev-Country: BR' -d "{{\"provider\":\"dev\",\"device_id\":\"phone\",\"id_token\":\"{token}\"}}" | tee /dev/stderr | sed -n 's/.*"challenge_token":"\([^"]*\)".*/\1/p')

3. Answer it with a code of {DEV_USER}'s authenticator, which this server computes for you:

TOKENS=$(curl -s http://{address}/auth/mfa/verify-challenge {json} -d "{{\"challenge_token\":\"$CHALLENGE\",\"device_id\":\"phone\",\"code\":\"$(curl -s http://{address}/dev/totp)\"}}" | tee /dev/stderr)

4. Use the tokens:

ACCESS=$(echo "$TOKENS" | sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p'); REFRESH=$(echo "$TOKENS" | sed -n 's/.*"refresh_token":"\([^"]*\)".*/\1/p')
curl -s http://{address}/auth/me -H "Authorization: Bearer $ACCESS"
curl -s http://{address}/auth/refresh {json} -d "{{\"refresh_token\":\"$REFRESH\"}}"
curl -s -X POST http://{address}/auth/logout -H "Authorization: Bearer $ACCESS"

"#
    )
}
