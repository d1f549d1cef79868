//! Durations such as `90d`, `30m`, `10s`: a whole number and one unit.

use std::time::Duration;

/// Reads a duration; `None` for every other form.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale).filter(|s| *s <= 86_400 * 3650).map(Duration::from_secs)
}
