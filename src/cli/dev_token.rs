//! `countersign dev-token`.

use std::time::Duration;

use serde_json::{Map, Value};
use url::{Host, Url};

use super::{FINE, Failure, UNREACHABLE, USAGE, runtime};

#[derive(clap::Args)]
pub(super) struct DevToken {
    /// The user at the development issuer.
    #[arg(long, value_name = "SUBJECT")]
    sub: String,
    /// A claim, as often as needed. The value is read as JSON when it is JSON (true, 3, ["a"], null), else as text.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
    /// Where `serve --dev` runs; loopback only.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: Url,
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write name=value")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

impl DevToken {
    pub(super) fn run(self) -> Result<u8, Failure> {
        println!("{}", runtime()?.block_on(self.ask())?);
        Ok(FINE)
    }

    async fn ask(self) -> Result<String, Failure> {
        let local = match self.server.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        if !local || self.server.scheme() != "http" {
            let text = "the development issuer runs on this machine alone: --server http://127.0.0.1:PORT";
            return Err(Failure::new(USAGE, text));
        }
        let mut claims: Map<String, Value> = self.claims.into_iter().collect();
        claims.insert("sub".to_owned(), self.sub.into());
        let url = self.server.join("/dev/token").map_err(|e| Failure::new(USAGE, e.to_string()))?;
        let out_of_reach = |error: reqwest::Error| {
            let text =
                format!("{}: {}; is `countersign serve --dev` running there?", self.server, error.without_url());
            Failure::new(UNREACHABLE, text)
        };
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.timeout(Duration::from_secs(5)).build().map_err(out_of_reach)?;
        let request = client.post(url).header("content-type", "application/json");
        let answer = request.body(Value::Object(claims).to_string()).send().await.map_err(out_of_reach)?;
        let status = answer.status();
        let text = answer.text().await.map_err(out_of_reach)?;
        match status.as_u16() {
            200 => Ok(text),
            404 => Err(Failure::new(UNREACHABLE, format!("{}: this server runs without --dev", self.server))),
            _ => Err(Failure::new(USAGE, format!("the development issuer answered {status}: {text}"))),
        }
    }
}
