//! `/openapi.json`, `/openapi.yaml`, and `/docs`: Swagger UI from this server alone, under a policy that
//! allows no inline script and no other host.

use std::sync::{Arc, OnceLock};

use poem::endpoint::{BoxEndpoint, make_sync};
use poem::http::{HeaderValue, header};
use poem::{EndpointExt, Response, Route, get};
use serde_json::Value;

use super::body::JSON;
use super::spec;

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Countersign API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="data:,">
</head>
<body>
<div id="ui" style="overflow-x: auto"></div>
<script src="docs/swagger-ui.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"#;

/// `validatorUrl` must be null: else the page asks another host to judge the document.
const START: &str = "SwaggerUIBundle({ dom_id: '#ui', url: 'openapi.json', deepLinking: true, validatorUrl: null, \
                     tryItOutEnabled: true, docExpansion: 'list', defaultModelsExpandDepth: 0 });\n";

const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                              img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; \
                              form-action 'none'";

/// The texts of the document, and where the page's script and style come from.
pub struct Docs {
    json: Arc<str>,
    yaml: Arc<str>,
    bundled: fn() -> String,
}

/// Script and style of Swagger UI. Two megabytes, so they are made when somebody opens the page.
struct Assets {
    script: String,
    style: String,
}

impl Docs {
    /// `bundled` gives the one-page form that poem-openapi makes; script and style are taken out of it.
    #[must_use]
    pub fn new(bundled: fn() -> String, document: &Value) -> Self {
        Self { json: spec::to_json(document).into(), yaml: spec::to_yaml(document).into(), bundled }
    }

    /// The documentation's addresses before those of the operations.
    pub fn routes(self, operations: BoxEndpoint<'static>) -> Route {
        let page = make_sync(|_| {
            let mut response = text("text/html; charset=utf-8", PAGE);
            response
                .headers_mut()
                .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
            response
        });
        let bundled = self.bundled;
        let assets = Arc::new(OnceLock::new());
        let asset = move |content_type: &'static str, pick: fn(&Assets) -> &str| {
            let assets = Arc::clone(&assets);
            make_sync(move |_| {
                let made = assets.get_or_init(|| Assets::of(&bundled()));
                text(content_type, pick(made))
            })
        };
        Route::new()
            .at("/openapi.json", get(fixed(JSON, self.json)))
            .at("/openapi.yaml", get(fixed("application/yaml", self.yaml)))
            .at("/docs", get(page))
            .at("/docs/swagger-ui.js", get(asset("text/javascript; charset=utf-8", |a| &a.script)))
            .at("/docs/swagger-ui.css", get(asset("text/css; charset=utf-8", |a| &a.style)))
            .at("/docs/start.js", get(fixed("text/javascript; charset=utf-8", START.into())))
            .nest_no_strip("/", operations)
    }
}

impl Assets {
    fn of(bundled: &str) -> Self {
        Self {
            script: between(bundled, "<script charset=\"UTF-8\">", "</script>\n</head>").to_owned(),
            style: between(bundled, "<style charset=\"UTF-8\">", "</style>").to_owned(),
        }
    }
}

fn fixed(content_type: &'static str, body: Arc<str>) -> BoxEndpoint<'static> {
    make_sync(move |_| text(content_type, &body)).boxed()
}

fn text(content_type: &str, body: &str) -> Response {
    Response::builder().content_type(content_type).body(body.to_owned())
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let Some(from) = text.find(begin).map(|at| at + begin.len()) else { return "" };
    text[from..].find(end).map_or("", |to| &text[from..from + to])
}
