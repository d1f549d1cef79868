//! Bundles on this node's disk, with their signatures.

use std::io::{self, Write};
use std::path::Path;

use crate::policy::bundle::Bundle;

/// Keeps a bundle, unless it is there.
pub(super) fn keep(dir: &Path, bundle: &Bundle, signature: Option<&[u8]>) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let id = bundle.id();
    if let Some(signature) = signature {
        place(dir, &format!("{id}.sig"), signature)?;
    }
    let name = format!("{id}.json");
    if dir.join(&name).exists() {
        return Ok(());
    }
    place(dir, &name, &serde_json::to_vec(bundle.files())?)
}

/// Whole or not at all.
fn place(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    if std::fs::read(dir.join(name)).is_ok_and(|held| held == content) {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(content)?;
    file.persist(dir.join(name))?;
    Ok(())
}

/// A kept bundle, when its content is what its name says, and its signature.
pub(super) fn find(dir: &Path, id: &str) -> Option<(Bundle, Option<Vec<u8>>)> {
    let plain = id.starts_with("pol_") && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let text = plain.then(|| std::fs::read_to_string(dir.join(format!("{id}.json"))).ok())??;
    let bundle = Bundle::new(serde_json::from_str(&text).ok()?).ok()?;
    let signature = std::fs::read(dir.join(format!("{id}.sig"))).ok();
    (bundle.id() == id).then_some((bundle, signature))
}
