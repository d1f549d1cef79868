//! `field.tsv` says row by row which test shows a behaviour. This holds it to the truth: every test that it names is
//! one, one test of each row bears the name of the row, every advisory that has a test has a row, and what is not
//! here is told in words.

use std::collections::BTreeSet;
use std::path::Path;

const TABLE: &str = include_str!("field.tsv");

/// The names of all tests below a folder.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut marked = false;
            for line in text.lines().map(str::trim) {
                let name = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|l| l.split('(').next());
                match name {
                    Some(name) if marked => drop(found.insert(name.to_owned())),
                    _ => {}
                }
                let is_mark = line.starts_with("#[test") || line.starts_with("#[tokio::test");
                marked = is_mark || (marked && line.starts_with("#["));
            }
        }
    }
}

fn rows() -> Vec<[&'static str; 3]> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    let split = |line: &'static str| {
        let cells: Vec<&str> = line.split('\t').collect();
        <[&str; 3]>::try_from(cells).unwrap_or_else(|cells| panic!("three cells, not {cells:?}"))
    };
    lines.map(split).collect()
}

/// The names that a row goes by, as tests bear them: what stands before a colon, apart by commas. A number alone is
/// another one of the project before it: `MAS 2089, 4506` are `mas_2089` and `mas_4506`.
fn names(row: &str) -> Vec<String> {
    let head = row.split(": ").next().unwrap_or(row);
    let mut names = Vec::new();
    let mut project = "";
    for piece in head.split([',', ';']).map(str::trim) {
        let is_number = piece.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let whole = if is_number { format!("{project} {piece}") } else { piece.to_owned() };
        if !is_number {
            project = piece.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').trim_end();
        }
        names.push(normal(&whole));
    }
    names
}

/// Small letters and digits, with one `_` for whatever stands between.
fn normal(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    words.join("_")
}

#[test]
fn a_row_goes_by_its_projects_and_numbers() {
    let projects = names("MAS 2089, 4506: four answers to a conflict");
    assert_eq!(projects, ["mas_2089", "mas_4506"]);
    assert_eq!(names("keycloak 51000, 51004; dex 4397"), ["keycloak_51000", "keycloak_51004", "dex_4397"]);
    assert_eq!(names("OidcProxy.Net 242: a cache"), ["oidcproxy_net_242"]);
    assert_eq!(names("a missing kid"), ["a_missing_kid"]);
}

#[test]
fn one_test_of_each_row_bears_its_name() {
    let mut nameless = Vec::new();
    for [_, row, shown] in rows().into_iter().filter(|[.., shown]| !shown.starts_with("- ")) {
        let bears = |test: &str| {
            names(row).iter().any(|name| test.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('_')))
        };
        if !shown.split(' ').any(bears) {
            nameless.push((row, names(row)));
        }
    }
    assert!(nameless.is_empty(), "no test bears the name of {nameless:#?}");
}

#[test]
fn every_test_that_the_table_names_is_one_and_every_advisory_has_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = BTreeSet::new();
    tests(&root.join("tests/it"), &mut known);
    tests(&root.join("src"), &mut known);
    let mut named = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for [section, row, shown] in rows() {
        assert!(seen.insert((section, row)), "{row} stands twice");
        assert!(!shown.is_empty(), "{row} says nothing");
        if shown.starts_with("- ") {
            continue;
        }
        for test in shown.split(' ') {
            assert!(known.contains(test), "{row}: there is no test {test}");
            named.insert(test.to_owned());
        }
    }
    let is_advisory = |name: &&String| name.starts_with("cve_") || name.starts_with("ghsa_");
    let left_out: Vec<&String> = known.iter().filter(is_advisory).filter(|name| !named.contains(*name)).collect();
    assert!(left_out.is_empty(), "without a row: {left_out:?}");
}
