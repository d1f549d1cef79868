//! Tells which of the configured lists hold the client's address.
//!
//! ```toml
//! config = { lists = { office = ["192.0.2.0/24", "2001:db8::/32"], partners = ["198.51.100.7"] } }
//! ```
//!
//! gives `{"listed": ["office"]}`. Needs the grant `request.ip`; without an address it declines, so that
//! "not known" is not taken for "in no list".

use std::collections::BTreeMap;
use std::net::IpAddr;

use countersign_plugin_sdk::serde_json::{self, Value, json};
use countersign_plugin_sdk::{Call, Config, Host, Outcome, Plugin, PluginError, Signal, SignalInput, export};
use ipnet::IpNet;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    lists: BTreeMap<String, Vec<String>>,
}

struct IpList {
    lists: BTreeMap<String, Vec<IpNet>>,
}

fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

impl IpList {
    fn find_lists(&self, ip: IpAddr) -> Vec<&str> {
        // An IPv4 client on a dual-stack socket shows as ::ffff:a.b.c.d.
        let ip = ip.to_canonical();
        let holds = |networks: &Vec<IpNet>| networks.iter().any(|n| n.contains(&ip));
        self.lists.iter().filter(|(_, networks)| holds(networks)).map(|(name, _)| name.as_str()).collect()
    }
}

impl Plugin for IpList {
    fn create(_host: &Host, config: Config) -> Result<Self, PluginError> {
        let settings: Settings =
            serde_json::from_value(Value::Object(config)).map_err(|e| PluginError::new(format!("config: {e}")))?;
        let mut lists = BTreeMap::new();
        for (name, texts) in settings.lists {
            let mut networks = Vec::with_capacity(texts.len());
            for text in texts {
                let network = parse_network(&text).ok_or_else(|| {
                    PluginError::new(format!(
                        "config.lists.{name}: \"{text}\" is neither an address nor a network like 192.0.2.0/24"
                    ))
                })?;
                networks.push(network);
            }
            lists.insert(name, networks);
        }
        Ok(Self { lists })
    }
}

impl Signal for IpList {
    fn signals(&self, _call: &Call<'_>, input: SignalInput) -> Outcome {
        match input.request.ip {
            Some(ip) => Outcome::json(json!({ "listed": self.find_lists(ip) })),
            None => Outcome::Declined,
        }
    }
}

export!(
    IpList: [signal],
    id = "countersign.ip_list",
    vendor = "Countersign",
    requests = { facts = ["request.ip"], claims = [] }
);

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(lists: Value) -> Result<IpList, PluginError> {
        let Value::Object(config) = json!({ "lists": lists }) else { unreachable!() };
        IpList::create(&Host::detached(), config)
    }

    #[test]
    fn an_address_is_found_in_every_list_that_holds_it() {
        let plugin = plugin(json!({ "a": ["192.0.2.0/24"], "b": ["192.0.2.7"], "c": ["2001:db8::/32"] })).unwrap();
        let listed = |ip: &str| plugin.find_lists(ip.parse().unwrap());
        assert_eq!(listed("192.0.2.7"), ["a", "b"]);
        assert_eq!(listed("::ffff:192.0.2.8"), ["a"]);
        assert_eq!(listed("2001:db8::1"), ["c"]);
        assert!(listed("198.51.100.1").is_empty());
    }

    #[test]
    fn a_list_that_is_no_list_of_networks_is_refused_with_its_name() {
        for lists in [json!({ "office": ["192.0.2.0/33"] }), json!({ "office": ["example.com"] })] {
            let error = plugin(lists).err().unwrap();
            assert!(error.message().contains("config.lists.office"), "{error}");
        }
        assert!(plugin(json!([])).is_err());
    }

    #[test]
    fn no_address_means_no_answer() {
        let input = json!({
            "tenant": "default", "client_id": "app", "provider": { "id": "google" },
            "request": { "time_unix_s": 0 }, "deadline_ms": 100
        });
        let plugin = plugin(json!({ "a": ["0.0.0.0/0"] })).unwrap();
        let outcome = plugin.signals(&Call::detached(100), serde_json::from_value(input).unwrap());
        assert_eq!(outcome, Outcome::Declined);
    }
}
