//! `policies/README.md` takes a tenant from nothing to an active rule and back: every file and command of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::service::{Service, copy_dir};

fn shipped() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/policies"))
}

/// A section of the page.
fn section(title: &str) -> String {
    let page = fs::read_to_string(shipped().join("README.md")).unwrap();
    let from = page.find(&format!("## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    page[from + 3..].split("\n## ").next().unwrap().to_owned()
}

/// The fenced blocks of a language in a list, without its indentation.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let inside = section.split(&fence).skip(1).map(|rest| rest.split("   ```").next().unwrap());
    inside
        .map(|block| block.lines().map(|l| l.strip_prefix("   ").unwrap_or(l)).collect::<Vec<_>>().join("\n"))
        .collect()
}

/// Signs in until the score is that.
async fn scores(service: &Service, score: i64) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = service.sign_in(&service.issuer.token().sign()).await;
        if answer.body["risk_assessment"]["score"] == score {
            return;
        }
        assert!(Instant::now() < until, "the score is never {score}: {}", answer.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_page_goes_from_nothing_to_an_active_rule_and_back() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let place = TempDir::new().unwrap();
    let policies = place.path().join("policies");
    copy_dir(shipped(), &policies);

    // The files, as the page has them.
    let first = section("A rule in ten minutes");
    let [name, cases] = &blocks(&first, "toml")[..] else { panic!("a name and the cases") };
    let [rule] = &blocks(&first, "rhai")[..] else { panic!("one rule") };
    let reasons = fs::read_to_string(policies.join("reasons.toml")).unwrap();
    fs::write(policies.join("reasons.toml"), format!("{reasons}\n{name}\n")).unwrap();
    fs::create_dir_all(policies.join("lists")).unwrap();
    assert!(first.contains("`lists/office.txt`") && first.contains("`10.0.0.0/8`"));
    fs::write(policies.join("lists/office.txt"), "10.0.0.0/8\n").unwrap();
    fs::write(policies.join("risk/default.rhai"), rule).unwrap();
    fs::write(policies.join("risk/default.test.toml"), cases).unwrap();

    // The commands, as the page has them.
    let config = service.dir.path().join("countersign.toml");
    let run = |line: &str| {
        let words = line.replace("\"outside the office\"", "outside\u{a0}the\u{a0}office");
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.current_dir(&place).args(words.split(' ').skip(1).map(|w| w.replace('\u{a0}', " ")));
        // Two commands look at a folder alone.
        if !line.contains("--dir") {
            command.arg("--config").arg(&config);
        }
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &*String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}\n{told}");
        told
    };
    let second = section("From a draft to an active rule, and back");
    let commands: Vec<&str> = second.lines().filter_map(|line| line.strip_prefix("    countersign ")).collect();
    let mut seen = Vec::new();
    for line in commands {
        let line = line.split("   ").next().unwrap();
        let told = run(&format!("countersign {line}"));
        let verb = line.split(' ').nth(1).unwrap();
        match verb {
            "test" => assert!(told.contains("passed, 0 failed") && !told.contains("outside_office"), "{told}"),
            "activate" => scores(&service, 20).await,
            "status" => assert!(told.contains("outside the office") || told.contains("pol_"), "{told}"),
            "rollback" => scores(&service, 0).await,
            _ => {}
        }
        seen.push(verb.to_owned());
    }
    assert_eq!(seen, ["check", "test", "replay", "shadow", "activate", "status", "rollback"]);
}
