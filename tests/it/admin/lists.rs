//! The order of lists: newest first, also of what came within one millisecond. The clock of these tests stands still.

use serde_json::json;

use super::Role;
use crate::support::service::Service;

/// A member of all items of a list, walked page by page; `between` runs after each page.
async fn walk(service: &Service, key: &str, path: &str, member: &str, between: impl AsyncFn(usize)) -> Vec<String> {
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let after = cursor.map_or_else(String::new, |cursor: String| format!("&cursor={cursor}"));
        let page = service.get_with(&format!("{path}{after}"), key).await;
        assert_eq!(page.status, 200, "{}", page.text);
        for item in page.body["items"].as_array().unwrap() {
            seen.push(item.pointer(member).unwrap().as_str().unwrap().to_owned());
        }
        let Some(next) = page.body["next_cursor"].as_str() else { return seen };
        cursor = Some(next.to_owned());
        between(pages).await;
        pages += 1;
    }
}

#[tokio::test]
async fn the_audit_log_lists_changes_in_the_order_in_which_they_were_written() {
    let service = Service::start().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let make = async |name: String| {
        let body = json!({"client_id": name, "settings": {"kind": "native", "providers": ["acme"]}});
        let made = service.post_with("/admin/clients", &editor, body).await;
        assert_eq!(made.status, 200, "{}", made.text);
    };
    for number in 0..20 {
        make(format!("client-{number}")).await;
    }
    let expected: Vec<String> = (0..20).rev().map(|number| format!("client-{number}")).collect();
    let path = "/admin/audit?action=client.create&limit=3";
    // What comes while somebody reads on belongs before the first page: nothing is skipped or told twice.
    let seen = walk(&service, &editor, path, "/target", async |page| make(format!("late-{page}")).await).await;
    assert_eq!(seen, expected);
    let seen = walk(&service, &editor, path, "/target", async |_| ()).await;
    let (late, early) = seen.split_at(seen.len() - 20);
    assert_eq!(early, expected);
    assert!(late.iter().rev().enumerate().all(|(page, target)| *target == format!("late-{page}")), "{late:?}");
}

#[tokio::test]
async fn what_came_within_one_millisecond_is_listed_in_its_order() {
    let service = Service::start().await;
    let viewer = service.admin_key(Role::Viewer, Some("default")).await;
    let mut users = Vec::new();
    for number in 0..12 {
        let token = service.issuer.token().subject(&format!("user-{number}")).sign();
        users.push(service.sign_in(&token).await.signed_in()["user_id"].as_str().unwrap().to_owned());
    }
    users.reverse();
    for (path, member) in
        [("/admin/sign-ins", "/user_id"), ("/admin/users", "/id"), ("/admin/sessions", "/user_id")]
    {
        let seen = walk(&service, &viewer, &format!("{path}?limit=5"), member, async |_| ()).await;
        assert_eq!(seen, users, "{path}");
    }
}
