//! Marks and colours of what people read: colour on a terminal only, and never with `NO_COLOR`.

use std::io::IsTerminal;

use serde_json::{Value, json};

/// How one line of a report ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Ok,
    Warn,
    Fail,
    Idle,
}

impl Mark {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Idle => "skipped",
        }
    }

    const fn sign(self) -> (&'static str, &'static str) {
        match self {
            Self::Ok => ("✓", "32"),
            Self::Warn => ("!", "33"),
            Self::Fail => ("✗", "31"),
            Self::Idle => ("·", "2"),
        }
    }
}

/// Writes with or without colour.
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    pub(super) fn of_stdout() -> Self {
        Self { on: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(super) fn mark(&self, mark: Mark) -> String {
        let (sign, code) = mark.sign();
        self.paint(code, sign)
    }

    pub(super) fn strong(&self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn faint(&self, text: &str) -> String {
        self.paint("2", text)
    }
}

/// One line of a report.
pub(super) struct Line {
    pub what: String,
    pub mark: Mark,
    pub found: String,
    pub mend: Option<String>,
}

/// The lines of a report, in order.
#[derive(Default)]
pub(super) struct Lines(pub Vec<Line>);

impl Lines {
    pub(super) fn add(&mut self, what: &str, mark: Mark, found: impl Into<String>, mend: Option<String>) {
        self.0.push(Line { what: what.to_owned(), mark, found: found.into(), mend });
    }

    pub(super) fn ok(&mut self, what: &str, found: impl Into<String>) {
        self.add(what, Mark::Ok, found, None);
    }

    pub(super) fn warn(&mut self, what: &str, found: impl Into<String>, mend: &str) {
        self.add(what, Mark::Warn, found, Some(mend.to_owned()));
    }

    pub(super) fn fail(&mut self, what: &str, found: impl Into<String>, mend: &str) {
        self.add(what, Mark::Fail, found, Some(mend.to_owned()));
    }

    pub(super) fn idle(&mut self, what: &str, found: impl Into<String>) {
        self.add(what, Mark::Idle, found, None);
    }

    pub(super) fn count(&self, mark: Mark) -> usize {
        self.0.iter().filter(|l| l.mark == mark).count()
    }

    pub(super) fn to_json(&self) -> Value {
        let line = |l: &Line| {
            let mut value = json!({"check": l.what, "status": l.mark.word(), "found": l.found});
            if let Some(mend) = &l.mend {
                value["mend"] = mend.as_str().into();
            }
            value
        };
        self.0.iter().map(line).collect()
    }

    pub(super) fn to_text(&self, paint: &Paint) -> String {
        let width = self.0.iter().map(|l| l.what.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for line in &self.0 {
            text.push_str(&format!("  {} {:width$}  {}\n", paint.mark(line.mark), line.what, line.found));
            if let Some(mend) = &line.mend {
                text.push_str(&format!("    {:width$}  {}\n", "", paint.faint(&format!("→ {mend}"))));
            }
        }
        text
    }
}

/// The causes of an error on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts.join(": ")
}
