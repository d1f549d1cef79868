//! The rule of direction: which room may name which. Reads the sources as tokens, so that comments and
//! texts do not count, and follows grouped paths and `super`.

use std::fs;
use std::path::{Path, PathBuf};

const GROUND: &[&str] = &["ids", "clock", "codes", "rates", "secret", "vault"];
const CORE: &[&str] = &["signin", "mfa", "session", "people", "admin", "policy"];
const EDGES: &[&str] =
    &["http", "store", "oidc", "scripts", "plugin_host", "geo", "hashing", "deliver", "dev", "config"];

/// What the core may not name: the world, and whoever reaches it.
const NOT_IN_CORE: &[&str] = &[
    "poem",
    "poem_openapi",
    "sqlx",
    "rhai",
    "libloading",
    "reqwest",
    "notify",
    "maxminddb",
    "hyper",
    "figment",
    "tempfile",
    "std::fs",
    "std::env",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::process",
    "std::thread::sleep",
    "std::time::SystemTime",
    "SystemTime",
    "jiff::Timestamp::now",
    "tokio::fs",
    "tokio::net",
    "tokio::time",
];

/// Crates that have their own room, and the rooms that must do without.
const NOT_IN_EDGE: &[(&str, &[&str])] = &[
    ("http", &["sqlx", "rhai", "libloading"]),
    ("store", &["poem", "poem_openapi", "rhai"]),
    ("oidc", &["poem", "poem_openapi", "sqlx"]),
    ("scripts", &["poem", "poem_openapi", "sqlx"]),
    ("plugin_host", &["poem", "poem_openapi", "sqlx", "rhai"]),
];

/// The border to native code.
const UNSAFE: [&str; 2] = ["src/plugin_host/instance.rs", "src/plugin_host/host_side.rs"];
/// The one place that measures how long a sign-in took.
const STOPWATCH: &str = "src/signin/pipeline.rs";
const MAX_LINES: usize = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Floor {
    Ground,
    Core,
    Edge,
    /// `app`.
    Joint,
    /// `cli`, `main.rs`, `lib.rs`.
    Top,
}

fn floor(room: &str) -> Option<Floor> {
    match room {
        _ if GROUND.contains(&room) => Some(Floor::Ground),
        _ if CORE.contains(&room) => Some(Floor::Core),
        _ if EDGES.contains(&room) => Some(Floor::Edge),
        "app" => Some(Floor::Joint),
        "cli" | "main" | "lib" => Some(Floor::Top),
        _ => None,
    }
}

fn may_name(from: &str, to: &str) -> bool {
    let (Some(from_floor), Some(to_floor)) = (floor(from), floor(to)) else { return false };
    match from_floor {
        Floor::Ground => to_floor == Floor::Ground,
        Floor::Core => matches!(to_floor, Floor::Ground | Floor::Core),
        Floor::Edge => matches!(to_floor, Floor::Ground | Floor::Core) || from == to,
        Floor::Joint => to_floor != Floor::Top,
        Floor::Top => true,
    }
}

/// Identifiers, `::`, and single other characters; without comments, texts, characters and lifetimes.
fn tokens(source: &str) -> Vec<String> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        match (at(i), at(i + 1)) {
            ('/', '/') => i = (i..chars.len()).find(|j| at(*j) == '\n').unwrap_or(chars.len()),
            ('/', '*') => i = end_of_comment(&chars, i),
            ('"', _) => i = end_of_text(&chars, i),
            ('\'', '\\') => i = (i + 3..chars.len()).find(|j| at(*j) == '\'').map_or(chars.len(), |j| j + 1),
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            (':', ':') => {
                tokens.push("::".to_owned());
                i += 2;
            }
            (c, _) if word(c) => {
                let end = (i..chars.len()).find(|j| !word(at(*j))).unwrap_or(chars.len());
                let text: String = chars[i..end].iter().collect();
                let hashes = (end..chars.len()).take_while(|j| at(*j) == '#').count();
                if matches!(text.as_str(), "r" | "br" | "cr") && at(end + hashes) == '"' {
                    i = end_of_raw_text(&chars, end + hashes + 1, hashes);
                } else if text == "r" && hashes == 1 {
                    i = end + 1;
                } else {
                    tokens.push(text);
                    i = end;
                }
            }
            (c, _) => {
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
                i += 1;
            }
        }
    }
    tokens
}

fn end_of_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut i = start;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn end_of_text(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn end_of_raw_text(chars: &[char], mut i: usize, hashes: usize) -> usize {
    while i < chars.len() {
        if chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

/// All paths of two and more names that begin at this token, groups unfolded.
fn paths_from(tokens: &[String], at: usize) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    unfold(tokens, at, &mut Vec::new(), &mut paths);
    paths
}

/// Adds what begins at `at` to `paths`, and gives the place behind it.
fn unfold(tokens: &[String], at: usize, stem: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    let token = |i: usize| tokens.get(i).map_or("", String::as_str);
    if token(at) == "{" {
        let mut i = at + 1;
        while i < tokens.len() && token(i) != "}" {
            if token(i) == "," {
                i += 1;
                continue;
            }
            let length = stem.len();
            i = unfold(tokens, i, stem, paths);
            stem.truncate(length);
            while token(i) == "as" {
                i += 2;
            }
        }
        return i + 1;
    }
    stem.push(token(at).to_owned());
    if token(at + 1) == "::" && token(at + 2) != "<" {
        return unfold(tokens, at + 2, stem, paths);
    }
    paths.push(stem.clone());
    at + 1
}

/// Everything that a source file may not do, for a file at `src/…`.
fn violations(path: &str, source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    if !UNSAFE.contains(&path) && tokens.iter().any(|t| t == "unsafe") {
        found.push(format!("{path}: unsafe stands only in {UNSAFE:?} and plugins/sdk"));
    }
    let Some(inside) = path.strip_prefix("src/") else { return found };
    let parts: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
    let room = parts[0];
    let Some(floor) = floor(room) else {
        found.push(format!("{path}: the room \"{room}\" stands on no floor; give it one in tests/it/house.rs"));
        return found;
    };
    let depth =
        if parts.last() == Some(&"mod") || room == "main" || room == "lib" { parts.len() - 1 } else { parts.len() };
    for path_found in all_paths(&tokens, depth) {
        let names: Vec<&str> = path_found.iter().map(String::as_str).collect();
        if let ["crate" | "countersign", to, ..] = names[..] {
            let named_here = self::floor(to).is_some();
            if (named_here && !may_name(room, to)) || (to == "*" && floor != Floor::Top) {
                found.push(format!("{path}: {room} may not name {to} ({})", names.join("::")));
            }
        }
        let barred = match floor {
            Floor::Core => NOT_IN_CORE,
            Floor::Edge => NOT_IN_EDGE.iter().find(|(edge, _)| *edge == room).map_or(&[][..], |(_, crates)| crates),
            _ => &[],
        };
        let joined = names.join("::");
        if let Some(bar) = barred.iter().find(|b| joined == **b || joined.starts_with(&format!("{b}::"))) {
            found.push(format!("{path}: {room} may not name {bar}"));
        }
        if floor == Floor::Core
            && names.contains(&"Instant")
            && (path != STOPWATCH || joined != "std::time::Instant::now")
        {
            found.push(format!("{path}: {room} may not read a clock ({joined})"));
        }
    }
    found
}

/// All paths of a file. `super` that leaves the room is written as `crate`; `depth` is how deep the
/// file's own module lies.
fn all_paths(tokens: &[String], depth: usize) -> Vec<Vec<String>> {
    let mut braces: Vec<bool> = Vec::new();
    let mut paths = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        let before = |back: usize| i.checked_sub(back).map_or("", |j| tokens[j].as_str());
        match token.as_str() {
            "{" => braces.push(before(2) == "mod"),
            "}" => {
                braces.pop();
            }
            _ => {}
        }
        // `::std` begins a path, the `b` of `a::b` and of `<A>::b` does not.
        let goes_on = match before(1) {
            "::" => before(2) == ">" || before(2).starts_with(|c: char| c.is_alphanumeric() || c == '_'),
            other => matches!(other, "." | "fn" | "mod"),
        };
        let starts = token.starts_with(|c: char| c.is_alphabetic()) && !goes_on;
        let names_a_crate =
            tokens.get(i + 1).is_some_and(|next| next == "::") || matches!(before(1), "use" | "crate");
        if !starts || !(names_a_crate || in_group(tokens, i)) {
            continue;
        }
        let inner = depth + braces.iter().filter(|b| **b).count();
        for mut path in paths_from(tokens, i) {
            let ups = path.iter().skip(usize::from(path[0] == "self")).take_while(|p| *p == "super").count();
            let ups_from = usize::from(path[0] == "self");
            if ups > 0 && ups >= inner {
                path.splice(..ups_from + ups, ["crate".to_owned()]);
            }
            paths.push(path);
        }
    }
    paths
}

/// Whether the token begins an entry of `use {a, b}`, which has no path before it.
fn in_group(tokens: &[String], at: usize) -> bool {
    let opened = tokens[..at].iter().rposition(|t| t == "{" || t == ";" || t == "}");
    opened.is_some_and(|i| tokens[i] == "{" && i > 0 && tokens[i - 1] == "use")
}

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Path from the root of the repository with `/`, and text, of all Rust files below these directories.
fn files(directories: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for directory in directories {
        sources(&root.join(directory), &mut paths);
    }
    paths.sort();
    let shown = |p: &Path| {
        let parts: Vec<_> = p.strip_prefix(root).unwrap().iter().map(|c| c.to_string_lossy()).collect();
        parts.join("/")
    };
    paths.iter().map(|p| (shown(p), fs::read_to_string(p).unwrap())).collect()
}

#[test]
fn every_arrow_points_inwards() {
    let files = files(&["src", "plugins", "tests", "benches"]);
    assert!(files.iter().any(|(path, _)| path == STOPWATCH), "the sources are not where this test looks");
    let found: Vec<String> = files
        .iter()
        .filter(|(path, _)| !path.starts_with("plugins/sdk/"))
        .flat_map(|(path, source)| violations(path, source))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_file_is_short_enough_to_be_read() {
    let long: Vec<String> = files(&["src"])
        .into_iter()
        .map(|(path, source)| (path, source.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines, at most {MAX_LINES}: split it by purpose"))
        .collect();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn a_wrong_arrow_is_found_however_it_is_written() {
    let cases = [
        ("src/http/mod.rs", "use crate::store::Users;"),
        ("src/http/sign_in.rs", "use crate::{ids::UserId, store::{Users, Pool}};"),
        ("src/http/sign_in.rs", "fn f() { let x = crate::scripts::load(); }"),
        ("src/http/mod.rs", "use super::oidc::Client;"),
        ("src/http/sign_in.rs", "use super::super::oidc::Client;"),
        ("src/http/sign_in.rs", "use self::super::super::oidc::Client;"),
        ("src/http/sign_in.rs", "mod tests { use super::super::super::oidc::Client; }"),
        ("src/http/sign_in.rs", "use crate::app::App;"),
        ("src/http/sign_in.rs", "use crate::*;"),
        ("src/http/sign_in.rs", "use countersign::dev::Issuer;"),
        ("src/dev/mod.rs", "pub(in crate::http) fn f() {}"),
        ("src/dev/mod.rs", "#[cfg(test)] mod tests { use crate::config::Settings; }"),
        ("src/http/mod.rs", "use sqlx::Pool;"),
        ("src/store/users.rs", "async fn f() -> poem::Result<()> {}"),
        ("src/oidc/mod.rs", "use sqlx;"),
        ("src/scripts/mod.rs", "use {poem::Route, std::fmt};"),
        ("src/plugin_host/mod.rs", "use rhai::Engine;"),
        ("src/signin/user.rs", "use crate::store::Users;"),
        ("src/signin/user.rs", "use super::super::http::dto;"),
        ("src/signin/user.rs", "use reqwest::Client;"),
        ("src/signin/user.rs", "extern crate sqlx;"),
        ("src/signin/user.rs", "use std::{fmt, fs};"),
        ("src/signin/user.rs", "use std::{fmt, env::{self, var}};"),
        ("src/signin/user.rs", "fn f() { let _ = ::std::env::var(\"X\"); }"),
        ("src/signin/user.rs", "fn f() { std::time::SystemTime::now(); }"),
        ("src/signin/user.rs", "use std::time::{Duration, SystemTime as Wall};"),
        ("src/signin/user.rs", "fn f() { std::time::Instant::now(); }"),
        ("src/signin/pipeline.rs", "use std::time::Instant;"),
        ("src/session/keys.rs", "fn f() { tokio::time::sleep(d); }"),
        ("src/mfa/mod.rs", "use super::geo;"),
        ("src/ids.rs", "use crate::signin::user::User;"),
        ("src/ids.rs", "use super::http::dto;"),
        ("src/app.rs", "use crate::cli::Command;"),
        ("src/kitchen/mod.rs", "fn f() {}"),
        ("src/plugin_host/load.rs", "fn f() { unsafe { g() } }"),
        ("plugins/line/src/lib.rs", "unsafe fn f() {}"),
    ];
    let missed: Vec<_> = cases.iter().filter(|(path, source)| violations(path, source).is_empty()).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn a_right_arrow_and_mere_words_are_left_alone() {
    let cases = [
        (
            "src/http/sign_in.rs",
            "use crate::{ids::UserId, signin::pipeline::Pipeline}; use super::dto::X; use poem::Route;",
        ),
        ("src/http/admin/users.rs", "use super::super::dto; use crate::http::dto::Y;"),
        ("src/http/sign_in.rs", "mod tests { use super::super::dto; use super::*; }"),
        ("src/store/users.rs", "use sqlx::Row; use crate::signin::ports::Users;"),
        ("src/app.rs", "use crate::{http, store, oidc, signin}; use crate::config::Settings;"),
        ("src/cli/serve.rs", "use crate::app::App; use crate::config::load;"),
        ("src/main.rs", "use countersign::cli; fn main() { cli::run(std::env::args()) }"),
        ("src/lib.rs", "pub mod app; pub mod http;"),
        (
            "src/signin/user.rs",
            "// use crate::store::X; /* std::fs /* sqlx::y */ poem::z */ /// reqwest::a\nuse std::fmt;",
        ),
        (
            "src/signin/user.rs",
            "const A: &str = \"crate::store \\\" unsafe\"; const B: &str = r#\"std::fs::read \"x\" \"#;",
        ),
        ("src/signin/user.rs", "fn f<'a>(x: &'a str, q: char) -> bool { q == '\"' || q == '\\'' || q == '{' }"),
        ("src/signin/user.rs", "use super::store_error; struct Row { http: u8 } fn g(s: Row) -> u8 { s.http }"),
        ("src/signin/pipeline.rs", "fn f() { let t = std::time::Instant::now(); }"),
        ("src/signin/pipeline.rs", "use tracing::Instrument;"),
        ("src/vault.rs", "use crate::secret::Secret;"),
        ("src/plugin_host/instance.rs", "fn f() { unsafe { g() } }"),
    ];
    for (path, source) in cases {
        assert_eq!(violations(path, source), Vec::<String>::new(), "{path}: {source}");
    }
}
