//! Sends codes by e-mail through a mail server (SMTP, RFC 5321), as text and HTML in the user's language.
//!
//! ```toml
//! hooks = ["mfa.begin"]
//! method = "email"
//! deadline_ms = 10000
//! grants = { secrets = ["smtp_password"] }
//!
//! [plugin.config]
//! host = "smtp.example.com"
//! tls = "starttls"                          # required, not tried; or "implicit" (port 465); "none" to loopback only
//! user = "mailer"
//! password_secret = "smtp_password"
//! from = "Example <no-reply@example.com>"
//! product = "Example"
//! locale = "en"                             # for users whose language has no template
//!
//! [plugin.config.templates.nl]              # beside the ones here: de, en, fr, sv
//! subject = "{product}: uw code"
//! text = "Uw code: {code}. Geldig: {minutes} min."
//! html = "<p>Uw code: <b>{code}</b></p>"
//! ```
//!
//! Other keys: `port`, and `ca_pem`, certificates that are trusted instead of the system's. It opens connections
//! itself, so it runs in the server's process only: a process of its own (`isolation = "process"`) has no network, and it is
//! refused there.
//!
//! A message that the mail server refuses for its recipient (550, 551, 553) is refused; anything else, such as a
//! wrong password or a full queue, means that the channel is out of reach. Nothing is sent twice.

mod conversation;
mod message;
mod template;

use std::collections::BTreeMap;
use std::net::IpAddr;

use countersign_plugin_sdk::serde_json::{self, Value, json};
use countersign_plugin_sdk::{Call, Config, Host, Mfa, MfaBegin, Outcome, Plugin, PluginError, export};
use lettre::Address;
use lettre::message::Mailbox;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters, TlsVersion};
use serde::Deserialize;

use conversation::Server;
use template::{Templates, Text};

/// Less is not worth a connection.
const LEAST_TIME_MS: i64 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    host: String,
    port: Option<u16>,
    #[serde(default)]
    tls: TlsMode,
    ca_pem: Option<String>,
    user: Option<String>,
    password_secret: Option<String>,
    from: String,
    product: String,
    #[serde(default = "english")]
    locale: String,
    #[serde(default)]
    templates: BTreeMap<String, Text>,
}

fn english() -> String {
    "en".to_owned()
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TlsMode {
    /// RFC 3207; a server that does not offer it gets no message.
    #[default]
    Starttls,
    /// RFC 8314 section 3.3.
    Implicit,
    /// To a relay on this machine.
    None,
}

impl TlsMode {
    fn port(self) -> u16 {
        match self {
            Self::Starttls => 587,
            Self::Implicit => 465,
            Self::None => 25,
        }
    }
}

struct Smtp {
    server: Server,
    from: Mailbox,
    templates: Templates,
}

impl Plugin for Smtp {
    fn create(host: &Host, config: Config) -> Result<Self, PluginError> {
        let settings: Settings =
            serde_json::from_value(Value::Object(config)).map_err(|e| PluginError::new(format!("config: {e}")))?;
        let tls = tls(&settings)?;
        let credentials = match (settings.user, settings.password_secret) {
            (None, None) => None,
            (Some(user), Some(secret)) => {
                let password = String::from_utf8(host.secret(&secret)?)
                    .map_err(|_| PluginError::new(format!("secret {secret} is no text")))?;
                Some(Credentials::new(user, password))
            }
            _ => return Err(PluginError::new("config: user and password_secret go together")),
        };
        let port = settings.port.unwrap_or_else(|| settings.tls.port());
        let server = Server { host: settings.host, port, tls, credentials };
        let from = settings.from.parse().map_err(|_| PluginError::new("config.from is no address"))?;
        let templates = Templates::new(settings.templates, &settings.locale, settings.product)?;
        Ok(Self { server, from, templates })
    }
}

fn tls(settings: &Settings) -> Result<Tls, PluginError> {
    let host = settings.host.as_str();
    if settings.tls == TlsMode::None {
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !loopback {
            return Err(PluginError::new("config.tls: \"none\" is for a mail server on this machine"));
        }
        return Ok(Tls::None);
    }
    let mut parameters = TlsParameters::builder(host.to_owned()).set_min_tls_version(TlsVersion::Tlsv12);
    if let Some(pem) = &settings.ca_pem {
        let wrong = || PluginError::new("config.ca_pem holds no certificate in PEM");
        let certificate = Certificate::from_pem(pem.as_bytes()).map_err(|_| wrong())?;
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            return Err(wrong());
        }
        parameters = parameters.certificate_store(CertificateStore::None).add_root_certificate(certificate);
    }
    let parameters = parameters.build_rustls().map_err(|e| PluginError::new(format!("config.ca_pem: {e}")))?;
    Ok(if settings.tls == TlsMode::Implicit { Tls::Wrapper(parameters) } else { Tls::Required(parameters) })
}

impl Mfa for Smtp {
    fn begin(&self, call: &Call<'_>, request: MfaBegin) -> Outcome {
        let Some(code) = &request.code else {
            return Outcome::Invalid("there is no code; strike the hook mfa.verify".to_owned());
        };
        if request.method != "email" {
            return Outcome::Declined;
        }
        let Ok(to) = request.destination.parse::<Address>() else {
            return Outcome::Reject("no_address".to_owned());
        };
        let text = self.templates.render(request.user.locale.as_deref(), code, request.expires_in_s);
        let message = match message::build(&self.from, to, &request.delivery_id, text) {
            Ok(message) => message,
            Err(error) => return Outcome::Invalid(error.message().to_owned()),
        };
        if call.remaining_ms() < LEAST_TIME_MS {
            return Outcome::Timeout;
        }
        outcome(self.server.send(&message, &|| call.remaining_ms()))
    }
}

fn outcome(sent: Result<(), Option<Error>>) -> Outcome {
    match sent {
        Ok(()) => Outcome::json(json!({})),
        Err(Some(error)) => refusal(&error),
        Err(None) => Outcome::Timeout,
    }
}

/// What the failure means. The server's words may hold the address, so they are not told.
fn refusal(error: &Error) -> Outcome {
    let status = error.status().map(|code| code.to_string());
    match status.as_deref() {
        Some(code @ ("550" | "551" | "553")) => Outcome::Reject(format!("status_{code}")),
        Some(code) => Outcome::Unavailable(format!("the mail server answered with status {code}")),
        None if is_time_out(error) => Outcome::Timeout,
        None if error.is_tls() => Outcome::Unavailable("no TLS with the mail server".to_owned()),
        None => Outcome::Unavailable("the mail server is out of reach, or not understood".to_owned()),
    }
}

/// The library does not know the word that this system has for a read that took too long.
fn is_time_out(error: &Error) -> bool {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(io, Some(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
    })
}

export!(
    Smtp: [mfa],
    id = "countersign.mfa_smtp",
    vendor = "Countersign",
    requests = { secrets = ["smtp_password"], network = true }
);

#[cfg(test)]
mod tests;
