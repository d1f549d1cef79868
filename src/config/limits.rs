//! `[limits]`.

use super::layers::Table;
use super::problem::Findings;
use super::{networks, values};
use crate::signin::networks::NetworkLimit;

pub(super) fn read(table: &Table<'_>, findings: &mut Findings) -> Option<NetworkLimit> {
    let exempt = networks(table, "exempt", values::exempt_network, findings);
    let written = table.number("sign_ins_per_minute")?;
    let per_minute = findings.take(&written.at, per_minute(written.value))?;
    Some(NetworkLimit { per_minute, exempt })
}

/// `None`: no limit.
fn per_minute(number: i64) -> Result<Option<u32>, String> {
    match u32::try_from(number) {
        Ok(0) => Ok(None),
        Ok(n) if n <= 60_000 => Ok(Some(n)),
        _ => Err(format!("sign_ins_per_minute = {number} is out of bounds; it must be from 0 (no limit) to 60000")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::HEAD;
    use super::super::{ConfigError, Settings, parse};

    fn read(lines: &str) -> Result<Settings, ConfigError> {
        parse(Path::new("countersign.toml"), &format!("{HEAD}[limits]\n{lines}\n"), std::iter::empty())
    }

    #[test]
    fn a_number_limits_zero_does_not_and_without_one_it_is_600() {
        let of = |lines: &str| read(lines).unwrap().network_limit.per_minute;
        assert_eq!(of(""), Some(600));
        assert_eq!(of("sign_ins_per_minute = 0"), None);
        assert_eq!(of("sign_ins_per_minute = 60000"), Some(60_000));
        let exempt = read("exempt = [\"10.0.0.0/8\"]").unwrap().network_limit.exempt;
        assert_eq!(exempt, ["10.0.0.0/8".parse().unwrap()]);
    }

    #[test]
    fn what_is_no_limit_is_refused_with_what_would_be_one() {
        for (lines, told) in [
            ("sign_ins_per_minute = -1", "it must be from 0 (no limit) to 60000"),
            ("sign_ins_per_minute = 60001", "it must be from 0 (no limit) to 60000"),
            ("sign_ins_per_minute = \"600\"", "it must be a whole number"),
            ("exempt = [\"0.0.0.0/0\"]", "write sign_ins_per_minute = 0"),
            ("exempt = [\"10.0.0.1/8\"]", "write \"10.0.0.0/8\""),
            ("sign_in_per_minute = 1", "nearest is \"sign_ins_per_minute\""),
        ] {
            let error = read(lines).unwrap_err().to_string();
            assert!(error.contains(told), "{lines}: {error}");
        }
    }
}
