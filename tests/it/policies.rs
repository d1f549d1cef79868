//! The shipped policies: each script has cases, and all of them pass.

use std::path::Path;

use countersign::scripts::cases::run_cases;

#[test]
fn every_shipped_script_has_cases_and_they_pass() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    for folder in ["mapping", "risk"] {
        for entry in std::fs::read_dir(dir.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "rhai") {
                let cases = path.with_extension("test.toml");
                assert!(cases.exists(), "{} has no cases", path.display());
            }
        }
    }
    let report = run_cases(&dir).unwrap();
    assert!(report.passed(), "{report}");
}
