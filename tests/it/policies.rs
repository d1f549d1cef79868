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

/// The README's rule, as a reader would write it.
#[test]
fn the_rule_and_the_cases_of_the_readme_work() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let readme = std::fs::read_to_string(shipped.join("README.md")).unwrap();
    let block = |language: &str, holds: &str| -> String {
        let fence = format!("```{language}\n");
        let found = readme.split(&fence).skip(1).map(|b| b.split("```").next().unwrap());
        let text = found.filter(|b| b.contains(holds)).collect::<String>();
        text.lines().map(|l| l.strip_prefix("   ").unwrap_or(l)).collect::<Vec<_>>().join("\n")
    };
    let dir = tempfile::tempdir().unwrap();
    crate::support::service::copy_dir(&shipped, dir.path());
    let reasons = std::fs::read_to_string(shipped.join("reasons.toml")).unwrap();
    std::fs::write(dir.path().join("reasons.toml"), reasons + &*block("toml", "[outside_office]")).unwrap();
    std::fs::create_dir_all(dir.path().join("lists")).unwrap();
    std::fs::write(dir.path().join("lists/office.txt"), "10.0.0.0/8\n").unwrap();
    std::fs::write(dir.path().join("risk/default.rhai"), block("rhai", "outside_office")).unwrap();
    std::fs::write(dir.path().join("risk/default.test.toml"), block("toml", "[[case]]")).unwrap();
    let report = run_cases(dir.path()).unwrap();
    assert!(report.passed(), "{report}");
    let own = report.cases.iter().filter(|c| c.file == "risk/default.test.toml").count();
    assert_eq!(own, 2);
}

/// Each example is put where a tenant would put it: over the shipped policies.
#[test]
fn every_example_passes_its_cases_and_the_check_but_for_a_fixed_denial() {
    use countersign::policy::ports::PolicyLab;
    use countersign::scripts::bundle::read_folder;
    use countersign::scripts::lab::Lab;

    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let examples: Vec<_> =
        std::fs::read_dir(shipped.join("examples")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        let dir = tempfile::tempdir().unwrap();
        crate::support::service::copy_dir(&shipped, dir.path());
        std::fs::remove_dir_all(dir.path().join("examples")).unwrap();
        let read = |name: &str| std::fs::read_to_string(example.join(name)).unwrap();
        let reasons = std::fs::read_to_string(shipped.join("reasons.toml")).unwrap() + &*read("reasons.toml");
        std::fs::write(dir.path().join("reasons.toml"), reasons).unwrap();
        std::fs::write(dir.path().join("risk/default.rhai"), read("risk.rhai")).unwrap();
        std::fs::write(dir.path().join("risk/default.test.toml"), read("cases.test.toml")).unwrap();
        if example.join("lists").exists() {
            crate::support::service::copy_dir(&example.join("lists"), &dir.path().join("lists"));
        }
        let report = run_cases(dir.path()).unwrap();
        assert!(report.passed(), "{}: {report}", example.display());
        let check = Lab.check(&read_folder(dir.path()).unwrap()).unwrap();
        for script in &check.scripts {
            assert!(script.faults.is_empty(), "{}: {check}", example.display());
        }
        // No generated sign-in is one of a pipeline.
        let own = check.scripts.iter().find(|s| s.file == "risk/default.rhai").unwrap();
        assert_eq!(own.denies_everything, example.ends_with("workload"), "{check}");
    }
}
