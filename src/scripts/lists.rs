//! `lists/<name>.txt`: data that rules look up, one item a line: CIDR, ASN, country or domain.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rhai::Dynamic;

/// One list.
#[derive(Debug, Default)]
pub(super) struct List {
    networks: Vec<IpNet>,
    words: HashSet<String>,
}

/// All lists by name.
pub(super) type Lists = Arc<HashMap<String, List>>;

impl List {
    /// Reads the lines; `#` begins a remark.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for line in text.lines() {
            let item = line.split('#').next().unwrap_or_default().trim();
            if item.is_empty() {
                continue;
            }
            if let Ok(network) = item.parse::<IpNet>() {
                list.networks.push(network);
            } else if let Ok(ip) = item.parse::<IpAddr>() {
                list.networks.push(ip.into());
            } else {
                list.words.insert(item.trim_start_matches("AS").to_lowercase());
            }
        }
        list
    }

    /// Whether a fact is in it. What is not known is in no list.
    pub fn has(&self, value: &Dynamic) -> bool {
        if let Ok(number) = value.as_int() {
            return self.words.contains(&number.to_string());
        }
        let Ok(text) = value.clone().into_immutable_string() else { return false };
        if let Ok(ip) = text.parse::<IpAddr>() {
            return self.networks.iter().any(|network| network.contains(&ip));
        }
        self.words.contains(&text.to_lowercase())
    }
}
