//! `countersign openapi [--check]`.

use std::path::PathBuf;

use super::{FINDINGS, FINE, Failure, USAGE};
use crate::http::{openapi_document, problem, spec};

#[derive(clap::Args)]
pub(super) struct Openapi {
    /// The folder of openapi.json, openapi.yaml and errors.md.
    #[arg(long, value_name = "DIR", default_value = "openapi")]
    dir: PathBuf,
    /// Change nothing; end with 1 when a file differs from what the code says.
    #[arg(long)]
    check: bool,
}

impl Openapi {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let document = openapi_document();
        let files = [
            ("openapi.json", spec::to_json(&document)),
            ("openapi.yaml", spec::to_yaml(&document)),
            ("errors.md", problem::error_table()),
        ];
        let mut differing = Vec::new();
        for (name, text) in files {
            let path = self.dir.join(name);
            if self.check {
                if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
                    differing.push(path.display().to_string());
                }
            } else {
                std::fs::create_dir_all(&self.dir)
                    .and_then(|()| std::fs::write(&path, text))
                    .map_err(|error| Failure::new(USAGE, format!("{}: {error}", path.display())))?;
                println!("wrote {}", path.display());
            }
        }
        if differing.is_empty() {
            return Ok(FINE);
        }
        eprintln!("{} differ from the code; run `countersign openapi` and review the change", differing.join(", "));
        Ok(FINDINGS)
    }
}
