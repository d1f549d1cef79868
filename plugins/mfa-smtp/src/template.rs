//! Texts by language, with `{code}`, `{product}` and `{minutes}`.

use std::collections::BTreeMap;

use countersign_plugin_sdk::PluginError;
use serde::Deserialize;

/// A message, before or after its words are filled in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Text {
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
}

/// Language, subject, before the code, after it.
const SHIPPED: [(&str, &str, &str, &str); 4] = [
    (
        "de",
        "{product}: Ihr Anmeldecode",
        "Ihr Code für die Anmeldung bei {product}:",
        "Er gilt {minutes} Minuten. Wenn Sie sich nicht gerade anmelden, geben Sie ihn niemandem weiter.",
    ),
    (
        "en",
        "{product}: your sign-in code",
        "Your code to sign in to {product}:",
        "It is good for {minutes} minutes. If you are not signing in right now, give it to nobody.",
    ),
    (
        "fr",
        "{product} : votre code de connexion",
        "Votre code pour vous connecter à {product} :",
        "Il est valable {minutes} minutes. Si vous n’êtes pas en train de vous connecter, ne le donnez à personne.",
    ),
    (
        "sv",
        "{product}: din inloggningskod",
        "Din kod för att logga in i {product}:",
        "Den gäller i {minutes} minuter. Om du inte håller på att logga in, ge den inte till någon.",
    ),
];

fn shipped() -> impl Iterator<Item = (String, Text)> {
    SHIPPED.iter().map(|(language, subject, before, after)| {
        let text = format!("{before}\n\n    {{code}}\n\n{after}\n");
        let html = format!(
            "<!doctype html>\n<html lang=\"{language}\"><body><p>{before}</p>\n\
             <p style=\"font-size:2em;letter-spacing:.2em\"><strong>{{code}}</strong></p>\n<p>{after}</p></body></html>\n"
        );
        ((*language).to_owned(), Text { subject: (*subject).to_owned(), text, html })
    })
}

/// Templates by language, in lower case.
pub(crate) struct Templates {
    by_language: BTreeMap<String, Text>,
    otherwise: Text,
    product: String,
}

struct Words<'a> {
    code: &'a str,
    product: &'a str,
    minutes: &'a str,
}

impl<'a> Words<'a> {
    fn find(&self, name: &str) -> Option<&'a str> {
        match name {
            "code" => Some(self.code),
            "product" => Some(self.product),
            "minutes" => Some(self.minutes),
            _ => None,
        }
    }

    /// `None`: there is a word that is none of these.
    fn fill(&self, template: &str, escape: fn(&str) -> String) -> Option<String> {
        let mut filled = String::with_capacity(template.len() + 64);
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let (name, after) = after.split_once('}')?;
            filled.push_str(&escape(self.find(name)?));
            rest = after;
        }
        filled.push_str(rest);
        Some(filled)
    }

    fn fill_all(&self, template: &Text) -> Option<Text> {
        let subject = self.fill(&template.subject, one_line)?;
        Some(Text {
            subject,
            text: self.fill(&template.text, str::to_owned)?,
            html: self.fill(&template.html, escape)?,
        })
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

impl Templates {
    /// The shipped ones and these, which take their place.
    pub(crate) fn new(own: BTreeMap<String, Text>, locale: &str, product: String) -> Result<Self, PluginError> {
        let mut by_language: BTreeMap<String, Text> = shipped().collect();
        let sample = Words { code: "000000", product: "", minutes: "5" };
        for (language, text) in own {
            let wrong = |what: &str| PluginError::new(format!("config.templates.{language}: {what}"));
            if text.subject.contains(char::is_control) {
                return Err(wrong("the subject is one line"));
            }
            if !text.text.contains("{code}") || !text.html.contains("{code}") {
                return Err(wrong("text and html need {code}"));
            }
            if sample.fill_all(&text).is_none() {
                return Err(wrong("in braces stand code, product or minutes"));
            }
            by_language.insert(language.to_ascii_lowercase(), text);
        }
        let otherwise = by_language
            .get(&locale.to_ascii_lowercase())
            .cloned()
            .ok_or_else(|| PluginError::new(format!("config.locale: there is no template for \"{locale}\"")))?;
        Ok(Self { by_language, otherwise, product })
    }

    /// The template for a BCP 47 language: `de-AT`, else `de`, else the configured one.
    fn find(&self, locale: Option<&str>) -> &Text {
        let locale = locale.unwrap_or_default().replace('_', "-").to_ascii_lowercase();
        let mut tag = locale.as_str();
        loop {
            if let Some(text) = self.by_language.get(tag) {
                return text;
            }
            match tag.rsplit_once('-') {
                Some((shorter, _)) => tag = shorter,
                None => return &self.otherwise,
            }
        }
    }

    pub(crate) fn render(&self, locale: Option<&str>, code: &str, expires_in_s: u64) -> Text {
        let minutes = (expires_in_s / 60).max(1).to_string();
        let words = Words { code, product: &self.product, minutes: &minutes };
        words.fill_all(self.find(locale)).expect("each template was filled when it was taken")
    }
}
