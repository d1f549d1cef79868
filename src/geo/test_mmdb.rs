//! A small writer of the MaxMind DB format 2.0, so that real look-ups are tested without a shipped database.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde_json::{Map, Value, json};

const SEPARATOR: [u8; 16] = [0; 16];

/// Writes a database: an IPv6 tree of 24-bit records (IPv4 under `::/96`), each network with its record.
pub(super) fn write(database_type: &str, records: &[(&str, Value)]) -> Vec<u8> {
    // 0 is "nothing here" while the tree grows: the root is nobody's child.
    let mut nodes: Vec<[Child; 2]> = vec![[Child::Nothing; 2]];
    let mut data = Vec::new();
    for (network, record) in records {
        let offset = data.len();
        put(&mut data, record);
        insert(&mut nodes, network.parse().expect("a network"), offset);
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for child in nodes.iter().flatten() {
        let value = match *child {
            Child::Nothing => count,
            Child::Node(node) => node,
            Child::Record(offset) => count + SEPARATOR.len() + offset,
        };
        file.extend_from_slice(&u32::try_from(value).expect("a small tree").to_be_bytes()[1..]);
    }
    file.extend_from_slice(&SEPARATOR);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    let metadata = json!({
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1_700_000_000,
        "database_type": database_type, "description": {"en": "made by a test"}, "ip_version": 6,
        "languages": ["en"], "node_count": count, "record_size": 24,
    });
    put(&mut file, &metadata);
    file
}

#[derive(Clone, Copy)]
enum Child {
    Nothing,
    Node(usize),
    Record(usize),
}

fn insert(nodes: &mut Vec<[Child; 2]>, network: IpNet, offset: usize) {
    let (address, length) = match network.addr() {
        IpAddr::V4(v4) => (u128::from(u32::from(Ipv4Addr::from(v4.octets()))), network.prefix_len() + 96),
        IpAddr::V6(v6) => (u128::from(v6), network.prefix_len()),
    };
    let mut node = 0;
    for depth in 0..length {
        let side = usize::from(address >> (127 - depth) & 1 == 1);
        if depth + 1 == length {
            nodes[node][side] = Child::Record(offset);
            return;
        }
        node = match nodes[node][side] {
            Child::Node(next) => next,
            _ => {
                nodes.push([Child::Nothing; 2]);
                let next = nodes.len() - 1;
                nodes[node][side] = Child::Node(next);
                next
            }
        };
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::String(text) => {
            control(out, 2, text.len());
            out.extend_from_slice(text.as_bytes());
        }
        Value::Number(number) if number.is_f64() => {
            control(out, 3, 8);
            out.extend_from_slice(&number.as_f64().expect("a double").to_be_bytes());
        }
        Value::Number(number) => put_integer(out, 6, 4, number.as_u64().expect("an unsigned number")),
        Value::Bool(yes) => control(out, 14, usize::from(*yes)),
        Value::Array(items) => {
            control(out, 11, items.len());
            items.iter().for_each(|item| put(out, item));
        }
        Value::Object(members) => put_map(out, members),
        Value::Null => unreachable!("the format has no null"),
    }
}

fn put_map(out: &mut Vec<u8>, members: &Map<String, Value>) {
    control(out, 7, members.len());
    for (name, value) in members {
        put(out, &Value::String(name.clone()));
        // The format has integers of several widths, and readers insist on the right one.
        match (name.as_str(), value.as_u64()) {
            ("build_epoch", Some(number)) => put_integer(out, 9, 8, number),
            ("node_count" | "autonomous_system_number" | "geoname_id", Some(number)) => {
                put_integer(out, 6, 4, number)
            }
            (_, Some(number)) => put_integer(out, 5, 2, number),
            _ => put(out, value),
        }
    }
}

fn put_integer(out: &mut Vec<u8>, kind: u8, width: usize, number: u64) {
    control(out, kind, width);
    out.extend_from_slice(&number.to_be_bytes()[8 - width..]);
}

fn control(out: &mut Vec<u8>, kind: u8, size: usize) {
    let (size, more) = match size {
        0..29 => (size, None),
        29..285 => (29, Some(size - 29)),
        _ => unreachable!("tests write short values"),
    };
    let size = u8::try_from(size).expect("five bits");
    if kind < 8 {
        out.push(kind << 5 | size);
    } else {
        out.extend_from_slice(&[size, kind - 7]);
    }
    out.extend(more.map(|m| u8::try_from(m).expect("one byte")));
}
