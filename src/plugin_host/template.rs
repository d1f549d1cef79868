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

/// What a new plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Adds a signal for the rules.
    Signal,
    /// Finds a provider's keys, and adds claims.
    Provider,
    /// Delivers codes.
    Mfa,
}

impl Kind {
    /// The kind of a word.
    ///
    /// # Errors
    /// When there is no template for it.
    pub fn find(word: &str) -> Result<Self, String> {
        match word {
            "signal" => Ok(Self::Signal),
            "provider" => Ok(Self::Provider),
            "mfa" => Ok(Self::Mfa),
            _ => Err("write signal, provider or mfa".to_owned()),
        }
    }

    const fn rust_source(self) -> &'static str {
        match self {
            Self::Signal => include_str!("templates/signal.rs"),
            Self::Provider => include_str!("templates/provider.rs"),
            Self::Mfa => include_str!("templates/mfa.rs"),
        }
    }
}

/// Stands in the templates for the name of the plugin.
const PLACE: &str = "@NAME@";

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

const SDK_NAME: &str = "countersign-plugin-sdk";
const SDK_MANIFEST: &str = include_str!("templates/sdk.toml");

const RUST_MANIFEST: &str = include_str!("templates/cargo.toml");

const C_SOURCE: &str = include_str!("templates/signal.c");

const C_BUILD: &str = include_str!("templates/build.sh");

const C_KINDS: &str = "in C there is a template of a signal only; begin with that one, and see plugins/OPERATIONS.md for the other hooks";

/// Writes the folder `name` into a directory, and gives what to type next.
///
/// # Errors
/// When the name cannot be one, there is no such template, the folder is there already, or it cannot be written.
pub fn write_template(directory: &Path, name: &str, language: Language, kind: Kind) -> io::Result<String> {
    let fine = (1..=40).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.starts_with(|c: char| c.is_ascii_lowercase());
    if !fine {
        return Err(io::Error::other("a name is 1 to 40 of a-z 0-9 and -, and begins with a letter"));
    }
    if name == SDK_NAME {
        return Err(io::Error::other("that is the name of the SDK, which comes with the plugin"));
    }
    if language == Language::C && kind != Kind::Signal {
        return Err(io::Error::other(C_KINDS));
    }
    let folder = directory.join(name);
    fs::create_dir(&folder)?;
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, text.replace(PLACE, name))
    };
    match language {
        Language::Rust => {
            write("Cargo.toml", RUST_MANIFEST)?;
            write("src/lib.rs", kind.rust_source())?;
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
