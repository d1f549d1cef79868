//! What differs between two bundles, file by file and line by line.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use similar::TextDiff;

use super::bundle::Bundle;

/// A difference in the unified form; empty when there is none.
#[must_use]
pub fn unified(old: &Bundle, new: &Bundle) -> String {
    let mut text = String::new();
    let names: BTreeSet<&String> = old.files().keys().chain(new.files().keys()).collect();
    for name in names {
        let side = |bundle: &Bundle| bundle.text(name).cloned();
        let (before, after) = (side(old), side(new));
        if before == after {
            continue;
        }
        let head = |text: &Option<_>, id: String| match text {
            Some(_) => format!("{id}/{name}"),
            None => "/dev/null".to_owned(),
        };
        let heads = (head(&before, old.id()), head(&after, new.id()));
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        let diff = TextDiff::from_lines(&*before, &*after);
        let _ = write!(text, "{}", diff.unified_diff().context_radius(3).header(&heads.0, &heads.1));
    }
    text
}
