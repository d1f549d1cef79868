//! Families of browsers and systems from a `User-Agent`, through the `woothee` tables.

use std::sync::Arc;

use woothee::parser::Parser;

/// What an agent string tells.
#[derive(Debug, Default)]
pub struct Agent {
    /// Browser family.
    pub browser: Option<Arc<str>>,
    /// Operating system family.
    pub os: Option<Arc<str>>,
    /// `pc`, `smartphone`, `mobilephone`, `tablet`, `crawler`, `appliance` or `misc`.
    pub kind: Option<Arc<str>>,
}

/// Reads an agent string. A client that is no browser is known by its product name (RFC 9110 section
/// 10.1.5), so that `curl` and a native application are different agents too.
#[must_use]
pub fn parse(user_agent: &str) -> Agent {
    if let Some(result) = Parser::new().parse(user_agent) {
        let told = |text: &str| (text != "UNKNOWN" && !text.is_empty()).then(|| Arc::from(text));
        if let (Some(browser), Some(os)) = (told(result.name), told(result.os)) {
            return Agent { browser: Some(browser), os: Some(os), kind: told(result.category) };
        }
    }
    let product: String = user_agent
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .take(64)
        .collect();
    if product.is_empty() {
        return Agent::default();
    }
    Agent { browser: Some(product.into()), os: Some("other".into()), kind: Some("misc".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_programs_and_noise_are_told_apart() {
        let chrome = parse(
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
        );
        assert_eq!(chrome.browser.as_deref(), Some("Chrome"));
        assert_eq!(chrome.kind.as_deref(), Some("pc"));
        let app = parse("ExampleApp/3.1 (build 7)");
        assert_eq!(app.browser.as_deref(), Some("ExampleApp"));
        assert_eq!(parse("").browser, None);
        assert_eq!(parse("\u{1}\u{2}").browser, None);
    }
}
