//! `/openapi.json`, `/openapi.yaml`, and `/docs`: Swagger UI from this server alone, under a policy that
//! allows no inline script and no other host.

use std::sync::Arc;

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

/// The texts, made once.
pub struct Docs {
    json: Arc<str>,
    yaml: Arc<str>,
    script: Arc<str>,
    style: Arc<str>,
}

impl Docs {
    /// `bundled` is the one-page form that poem-openapi makes; script and style are taken out of it.
    #[must_use]
    pub fn new(bundled: &str, document: &Value) -> Self {
        Self {
            json: spec::to_json(document).into(),
            yaml: spec::to_yaml(document).into(),
            script: between(bundled, "<script charset=\"UTF-8\">", "</script>\n</head>").into(),
            style: between(bundled, "<style charset=\"UTF-8\">", "</style>").into(),
        }
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
        Route::new()
            .at("/openapi.json", get(fixed(JSON, self.json)))
            .at("/openapi.yaml", get(fixed("application/yaml", self.yaml)))
            .at("/docs", get(page))
            .at("/docs/swagger-ui.js", get(fixed("text/javascript; charset=utf-8", self.script)))
            .at("/docs/swagger-ui.css", get(fixed("text/css; charset=utf-8", self.style)))
            .at("/docs/start.js", get(fixed("text/javascript; charset=utf-8", START.into())))
            .nest_no_strip("/", operations)
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
