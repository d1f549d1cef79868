//! `countersign policy sign`.

use std::io::Write;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::Ed25519KeyPair;
use data_encoding::BASE64;

use super::{FINE, Failure, USAGE};
use crate::policy::signature::{public_key, sign};
use crate::scripts::bundle::read_folder;

/// What a private key in PEM is called (RFC 7468 section 10).
const LABEL: &str = "PRIVATE KEY";

#[derive(clap::Args)]
pub(super) struct Sign {
    /// The policies folder; its signature is printed.
    #[arg(value_name = "DIR", required_unless_present_any = ["public_key", "new_key"])]
    dir: Option<PathBuf>,
    /// The Ed25519 private key in PEM, as `openssl genpkey -algorithm ed25519` makes it.
    #[arg(long, value_name = "FILE", required_unless_present = "new_key")]
    key: Option<PathBuf>,
    /// Print the public half instead, for [policies] signing_keys.
    #[arg(long, conflicts_with = "dir", requires = "key")]
    public_key: bool,
    /// Make a key, write it to this file, and print its public half. Nothing that is there is overwritten.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "key", "public_key"])]
    new_key: Option<PathBuf>,
}

impl Sign {
    pub(super) fn run(self) -> Result<u8, Failure> {
        if let Some(path) = self.new_key {
            println!("{}", BASE64.encode(public_key(&new_key(&path)?)));
            return Ok(FINE);
        }
        let key = self.key.as_deref().ok_or_else(|| Failure::new(USAGE, "--key is missing"))?;
        let key = read_key(key)?;
        if let Some(dir) = self.dir {
            let bundle = read_folder(&dir).map_err(|error| Failure::new(USAGE, error.to_string()))?;
            println!("{}", BASE64.encode(&sign(&key, &bundle)));
        } else {
            println!("{}", BASE64.encode(public_key(&key)));
        }
        Ok(FINE)
    }
}

fn failure(path: &Path, what: &str) -> Failure {
    Failure::new(USAGE, format!("{}: {what}", path.display()))
}

fn read_key(path: &Path) -> Result<Ed25519KeyPair, Failure> {
    let text = std::fs::read(path).map_err(|error| failure(path, &error.to_string()))?;
    let wrong = || failure(path, "is no Ed25519 private key in PEM (PKCS#8)");
    let block = pem::parse(text).ok().filter(|block| block.tag() == LABEL).ok_or_else(wrong)?;
    Ed25519KeyPair::from_pkcs8(block.contents()).map_err(|_| wrong())
}

fn new_key(path: &Path) -> Result<Ed25519KeyPair, Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    let made = || -> Option<_> {
        let key = Ed25519KeyPair::generate().ok()?;
        let document = key.to_pkcs8v1().ok()?;
        Some((key, pem::encode(&pem::Pem::new(LABEL, document.as_ref()))))
    };
    let (key, text) = made().ok_or_else(|| failure(path, "no key could be made"))?;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| failure(path, &error.to_string()))?;
    Ok(key)
}
