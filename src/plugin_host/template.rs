//! New plugins: a folder with everything in it, the SDK or the header included, so that it builds at once
//! and wherever it is moved.

use std::fs;
use std::io;
use std::path::Path;

/// What a new plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Rust, with the SDK.
    Rust,
    /// C, with the header.
    C,
}

impl Language {
    /// The language of a word.
    ///
    /// # Errors
    /// When there is no template for it.
    pub fn find(word: &str) -> Result<Self, String> {
        match word {
            "rust" => Ok(Self::Rust),
            "c" => Ok(Self::C),
            _ => Err("write rust or c".to_owned()),
        }
    }
}

const HEADER: &str = include_str!("../../plugins/sdk/include/countersign_plugin.h");

/// The SDK as it stands in this version.
const SDK: &[(&str, &str)] = &[
    ("abi.rs", include_str!("../../plugins/sdk/src/abi.rs")),
    ("export.rs", include_str!("../../plugins/sdk/src/export.rs")),
    ("host.rs", include_str!("../../plugins/sdk/src/host.rs")),
    ("http.rs", include_str!("../../plugins/sdk/src/http.rs")),
    ("input.rs", include_str!("../../plugins/sdk/src/input.rs")),
    ("lib.rs", include_str!("../../plugins/sdk/src/lib.rs")),
    ("outcome.rs", include_str!("../../plugins/sdk/src/outcome.rs")),
    ("raw.rs", include_str!("../../plugins/sdk/src/raw.rs")),
    ("testkit.rs", include_str!("../../plugins/sdk/src/testkit.rs")),
];

const SDK_MANIFEST: &str = r#"[package]
name = "countersign-plugin-sdk"
version = "0.1.0"
edition = "2024"
license = "Apache-2.0"

[dependencies]
serde = { version = "1", features = ["derive"] }
serde_json = "1"
"#;

const RUST_MANIFEST: &str = r#"[workspace]

[package]
name = "NAME"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[dependencies]
countersign-plugin-sdk = { path = "sdk" }
"#;

const RUST_SOURCE: &str = r#"//! Whether a sign-in falls into the night (UTC).
//!
//! `config = { from_hour = 22 }` gives `{"night": true}`, which rules read as
//! `s.signals.plugin["com.example.NAME"].night`.

use countersign_plugin_sdk::serde_json::json;
use countersign_plugin_sdk::{Call, Config, Host, Outcome, Plugin, PluginError, Signal, SignalInput, export};

struct Night {
    from_hour: i64,
}

impl Plugin for Night {
    fn create(_host: &Host, config: Config) -> Result<Self, PluginError> {
        let from_hour = match config.get("from_hour") {
            None => 22,
            Some(hour) => hour.as_i64().ok_or_else(|| PluginError::new("config: from_hour is not a whole number"))?,
        };
        Ok(Self { from_hour })
    }
}

impl Signal for Night {
    fn signals(&self, _call: &Call<'_>, input: SignalInput) -> Outcome {
        let hour = input.request.time_unix_s.rem_euclid(86_400) / 3_600;
        Outcome::json(json!({ "night": hour >= self.from_hour }))
    }
}

export!(Night: [signal], id = "com.example.NAME", vendor = "Example");

#[cfg(test)]
mod tests {
    use countersign_plugin_sdk::testkit::FakeHost;

    use super::*;

    #[test]
    fn the_hour_tells() {
        let plugin = FakeHost::new().create::<Night>(json!({ "from_hour": 22 })).unwrap();
        for (time, night) in [(23 * 3_600, true), (3 * 3_600, false)] {
            let input = json!({
                "tenant": "default", "client_id": "app", "provider": { "id": "google" },
                "request": { "time_unix_s": time }, "deadline_ms": 250
            });
            assert_eq!(plugin.signals(&input).unwrap(), json!({ "night": night }));
        }
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let refused = FakeHost::new().create::<Night>(json!({ "from_hour": "ten" })).err().unwrap();
        assert!(refused.contains("from_hour"));
    }
}
"#;

const C_SOURCE: &str = r#"/* Whether a sign-in falls into the night (UTC): {"night": true}, which rules read as
 * s.signals.plugin["com.example.NAME"].night. Build it with build.sh. */
#include "countersign_plugin.h"
#include <stdio.h>
#include <string.h>

#define NIGHT_BEGINS 22

static const cs_host *host;

/* The number behind "time_unix_s". It stands once in the input, and the host sends valid JSON; nonetheless
 * nothing is read beyond the end. A plugin that needs more of the input takes a JSON library. */
static int find_time(cs_str in, int64_t *time) {
  static const char NAME[] = "\"time_unix_s\":";
  size_t at, length = sizeof NAME - 1;
  for (at = 0; at + length < in.len; at++) {
    int64_t n = 0;
    size_t digits = 0;
    if (memcmp(in.ptr + at, NAME, length) != 0) continue;
    for (at += length; at < in.len && in.ptr[at] == ' '; at++) {}
    for (; at < in.len && in.ptr[at] >= '0' && in.ptr[at] <= '9' && digits < 15; at++, digits++)
      n = n * 10 + (in.ptr[at] - '0');
    *time = n;
    return digits > 0;
  }
  return 0;
}

static cs_status create(const cs_host *given, cs_str config, void **self, cs_sink *err) {
  (void)config, (void)err;
  host = given;
  *self = &host;
  return CS_OK;
}

static void destroy(void *self) { (void)self; }

static cs_status signals(void *self, const cs_call *call, cs_str in, cs_sink *out) {
  int64_t time;
  cs_str answer;
  (void)self, (void)call;
  if (!find_time(in, &time)) return CS_INVALID;
  answer.ptr = (const uint8_t *)(time % 86400 / 3600 >= NIGHT_BEGINS ? "{\"night\":true}" : "{\"night\":false}");
  answer.len = strlen((const char *)answer.ptr);
  return host->put(out, answer);
}

/* Nothing here can panic, so the self-test has nothing to contain. */
static cs_status selftest(void *self, const cs_call *call, cs_str in, cs_sink *out) {
  (void)self, (void)call, (void)in, (void)out;
  return CS_INTERNAL;
}

static const void *get_extension(void *self, const char *id) {
  static const cs_ext_signal SIGNAL = {sizeof(cs_ext_signal), signals};
  static const cs_ext_meta META = {sizeof(cs_ext_meta), "{\"hooks\":[\"signal.signals\"],\"requests\":{}}", selftest};
  (void)self;
  if (strcmp(id, CS_EXT_SIGNAL) == 0) return &SIGNAL;
  if (strcmp(id, CS_EXT_META) == 0) return &META;
  return NULL;
}

static const cs_plugin PLUGIN = {sizeof(cs_plugin), CS_ABI_MAJOR, CS_ABI_MINOR, CS_FLAG_THREAD_SAFE,
                                 "com.example.NAME", "0.1.0", "Example", create, destroy, get_extension};

const cs_plugin *countersign_plugin_entry(uint32_t host_major, uint32_t host_minor) {
  (void)host_major, (void)host_minor; /* the host compares the versions in the table */
  return &PLUGIN;
}
"#;

const C_BUILD: &str = r#"#!/bin/sh
# Makes libNAME.so.
set -eu
cd "$(dirname "$0")"
cc -std=c11 -shared -fPIC -O2 -Wall -Wextra -Wpedantic -Werror plugin.c -o libNAME.so
"#;

/// Writes the folder `name` into a directory, and gives what to type next.
///
/// # Errors
/// When the name cannot be one, the folder is there already, or it cannot be written.
pub fn write_template(directory: &Path, name: &str, language: Language) -> io::Result<String> {
    let fine = (1..=40).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.starts_with(|c: char| c.is_ascii_lowercase());
    if !fine {
        return Err(io::Error::other("a name is 1 to 40 of a-z 0-9 and -, and begins with a letter"));
    }
    let folder = directory.join(name);
    fs::create_dir(&folder)?;
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, text.replace("NAME", name))
    };
    match language {
        Language::Rust => {
            write("Cargo.toml", RUST_MANIFEST)?;
            write("src/lib.rs", RUST_SOURCE)?;
            fs::create_dir_all(folder.join("sdk/src"))?;
            fs::write(folder.join("sdk/Cargo.toml"), SDK_MANIFEST)?;
            fs::create_dir_all(folder.join("sdk/include"))?;
            fs::write(folder.join("sdk/include/countersign_plugin.h"), HEADER)?;
            for (file, text) in SDK {
                fs::write(folder.join("sdk/src").join(file), text)?;
            }
            let library = name.replace('-', "_");
            Ok(format!(
                "Made {name}/. Next:\n  cd {name} && cargo test && cargo build --release\n  \
                 countersign plugin check target/release/lib{library}.so\n"
            ))
        }
        Language::C => {
            fs::write(folder.join("countersign_plugin.h"), HEADER)?;
            write("plugin.c", C_SOURCE)?;
            write("build.sh", C_BUILD)?;
            Ok(format!(
                "Made {name}/. Next:\n  sh {name}/build.sh\n  countersign plugin check {name}/lib{name}.so\n"
            ))
        }
    }
}
