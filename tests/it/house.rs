//! The rule of direction: what may import what, read off the source.

use std::fs;
use std::path::{Path, PathBuf};

const EDGES: &[&str] = &["http", "store", "oidc", "scripts", "plugin_host", "geo", "dev", "config"];
const CORE: &[&str] = &["signin", "mfa", "session"];
const GROUND: &[&str] = &["ids", "clock", "codes", "secret", "vault"];
const WORLD: &[&str] = &[
    "poem::",
    "poem_openapi::",
    "sqlx::",
    "rhai::",
    "libloading::",
    "reqwest::",
    "notify::",
    "maxminddb::",
    "std::fs",
    "std::env",
    "std::net::Tcp",
    "tokio::net",
    "tokio::fs",
    "SystemTime::now",
];

/// Every wrong arrow of one file. `room` is the first folder or file name below src.
fn wrong_arrows(room: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with("//")) {
        let imports =
            |name: &&&str| line.contains(&format!("crate::{name}::")) || line.contains(&format!("crate::{name};"));
        if EDGES.contains(&room) {
            let others = EDGES.iter().filter(|e| **e != room).chain(&["app", "cli"]);
            wrong.extend(others.filter(imports).map(|e| format!("edge {room} imports {e}: {line}")));
        }
        if CORE.contains(&room) {
            let outer = EDGES.iter().chain(&["app", "cli"]);
            wrong.extend(outer.filter(imports).map(|e| format!("core {room} imports {e}: {line}")));
            wrong.extend(
                WORLD.iter().filter(|w| line.contains(**w)).map(|w| format!("core {room} touches {w}: {line}")),
            );
        }
        if GROUND.contains(&room) {
            let above = EDGES.iter().chain(CORE).chain(&["app", "cli"]);
            wrong.extend(above.filter(imports).map(|e| format!("ground {room} imports {e}: {line}")));
        }
    }
    wrong
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn room(path: &Path) -> String {
    let below = path.strip_prefix(src()).unwrap();
    below.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

#[test]
fn arrows_point_inwards() {
    let wrong: Vec<String> = sources(&src())
        .iter()
        .flat_map(|path| wrong_arrows(&room(path), &fs::read_to_string(path).unwrap()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_check_finds_what_it_is_for() {
    for (room, line) in [
        ("store", "use crate::http::dto;"),
        ("scripts", "let x = crate::store::Store;"),
        ("oidc", "use crate::app::App;"),
        ("signin", "use crate::scripts::PolicyHost;"),
        ("signin", "use sqlx::Row;"),
        ("mfa", "std::fs::read(path)"),
        ("session", "std::time::SystemTime::now()"),
        ("ids", "use crate::signin::facts::Facts;"),
    ] {
        assert!(!wrong_arrows(room, line).is_empty(), "{room}: {line}");
    }
    for (room, line) in [
        ("store", "use crate::signin::ports::Users;"),
        ("signin", "use crate::session::Grant;"),
        ("app", "use crate::http::State;"),
        ("signin", "// sqlx::query is for others"),
    ] {
        assert!(wrong_arrows(room, line).is_empty(), "{room}: {line}");
    }
}

#[test]
fn unsafe_stands_in_two_places_only() {
    for path in sources(&src()) {
        let text = fs::read_to_string(&path).unwrap();
        let has = text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains("unsafe "));
        assert!(!has || path.ends_with("plugin_host/instance.rs"), "{}", path.display());
    }
}

#[test]
fn a_file_is_a_room_and_not_a_hall() {
    for path in sources(&src()) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 600, "{} has {lines} lines: look for the second room", path.display());
    }
}
