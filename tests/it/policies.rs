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

const WATCHED: &str = r#"// Which lines are run.
import "lib/steps" as steps;
const MUCH = 40;

fn assess(s, risk) {
    let h = s.history;
    switch h.device {
        "new" => risk.add(25, "new_device"),
        "partial" => {
            risk.add(10, "browser_changed");
        }
        _ => (),
    }
    if h.known_country == false {
        risk.add(20, "new_country");
    } else if h.known_asn == false {
        risk.add(8, "new_network");
    } else {
        steps::quiet(s);
    }
    for n in 0..2 {
        if n == 7 {
            risk.add(global::MUCH, "fast_travel");
        }
    }
    steps::loud(s, risk);
}

fn token(s, d, token) {
    token.claim("plan", "gold");
    if "https://api.example" in d.audiences {
        token.audience("https://api.example");
    }
    if "sms" in d.factors_used { token.claim("weak", true); }
}
"#;

const STEPS: &str = r#"fn quiet(s) {
    let known = s.history.known_asn;
    known
}

fn loud(s, risk) {
    if s.user.privileged {
        risk.require_mfa("privileged_user");
    }
}

fn nobody() {
    1
}
"#;

const WATCHED_CASES: &str = r#"
[[case]]
name = "a new device"
set = { "history.device" = "new" }
expect = { score = 25 }

[[case]]
name = "another network, and the tokens"
set = { "history.known_asn" = false }
audiences = ["https://id.example", "https://api.example"]
expect = { score = 8, token = { plan = "gold" }, audience = "https://api.example" }
"#;

/// The shipped policies with a watched script of tenant `default`.
fn watched(cases: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    crate::support::service::copy_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("policies"), dir.path());
    std::fs::write(dir.path().join("risk/default.rhai"), WATCHED).unwrap();
    std::fs::write(dir.path().join("risk/default.test.toml"), cases).unwrap();
    std::fs::write(dir.path().join("lib/steps.rhai"), STEPS).unwrap();
    dir
}

#[test]
fn the_lines_that_no_case_runs_are_told() {
    let dir = watched(WATCHED_CASES);
    let report = run_cases(dir.path()).unwrap();
    assert!(report.passed(), "{report}");
    let of = |name: &str| report.lines.iter().find(|file| file.file == name).unwrap();
    let own = of("risk/default.rhai");
    let line = |text: &str| WATCHED.lines().position(|line| line.contains(text)).unwrap() + 1;
    let never = ["browser_changed", "new_country", "MUCH, "].map(line);
    assert_eq!(own.never, never, "{own:?}");
    assert_eq!(own.never_told(), never.map(|n| n.to_string()).join(", "));
    // import, const, let, switch, two arms and (), if, new_country, else if, new_network, quiet, for, if, MUCH, loud;
    // claim, if, audience, if
    assert_eq!(own.lines, 20, "{own:?}");
    // What a helper does is seen as well, whoever calls it.
    assert_eq!(of("lib/steps.rhai").never, [8, 13]);
    // A tenant's setting, and a fact that is not filled yet: what no case can set.
    assert_eq!(of("risk/_default.rhai").never, [7]);

    let by_sms = "\n[[case]]\nname = \"weak\"\nfactor = \"sms\"\nset = { \"history.device\" = \"partial\", \
                  \"history.known_country\" = false, \"user.privileged\" = true }\n\
                  expect = { token = { plan = \"gold\", weak = true } }\n";
    let dir = watched(&format!("{WATCHED_CASES}{by_sms}"));
    let report = run_cases(dir.path()).unwrap();
    assert!(report.passed(), "{report}");
    let of = |name: &str| report.lines.iter().find(|file| file.file == name).unwrap();
    assert_eq!(
        (of("risk/default.rhai").never_told(), of("lib/steps.rhai").never_told()),
        ("23".into(), "13".into())
    );
}

#[test]
fn what_the_tokens_shall_be_is_compared() {
    for (wrong, told) in [
        ("expect = { token = {} }", "token: expected {}"),
        ("expect = { token = { plan = \"silver\" } }", "\"gold\""),
        ("expect = { audience = \"https://api.example\" }", "audience: expected"),
        ("factor = \"smoke\"\nexpect = { token = {} }", "is no method"),
    ] {
        let dir = watched(&format!("[[case]]\nname = \"wrong\"\n{wrong}\n"));
        let report = run_cases(dir.path()).unwrap();
        let own = report.cases.iter().find(|case| case.name == "wrong").unwrap();
        assert!(own.differences.iter().any(|difference| difference.contains(told)), "{wrong}: {own:?}");
    }
}

#[test]
fn coverage_is_told_to_people_and_to_programs() {
    let dir = watched(WATCHED_CASES);
    let run = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
        let output = command.args(["policy", "test", "--dir"]).arg(dir.path()).args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let told = run(&["--coverage"]);
    assert!(told.contains("risk/default.rhai: no case runs line 10, 15, 23\n"), "{told}");
    assert!(
        told.contains("%  risk/_default.rhai: no case runs line 7\n") && told.contains("% of the lines are run"),
        "{told}"
    );
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    let files = json["lines"]["files"].as_array().unwrap();
    let own = files.iter().find(|file| file["file"] == "risk/default.rhai").unwrap();
    assert_eq!(own["never_run"], serde_json::json!([10, 15, 23]));
    assert_eq!((&own["lines"], &own["percent"]), (&20.into(), &85.into()));
    assert_eq!(json["passed"], true);
    assert!(json["reasons"]["percent"].as_u64().unwrap() > 50 && json["cases"].as_array().unwrap().len() > 60);
}
