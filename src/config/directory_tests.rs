//! The directory of the file alone.

use super::tests::{HEAD, read, with_provider};
use crate::ids::TenantId;
use crate::signin::ports::Directory;

#[test]
fn a_tenant_is_found_by_header_then_host_then_default_and_never_by_a_wrong_header() {
    let source = format!(
        "{HEAD}[[tenants]]\nid = \"default\"\n[[tenants]]\nid = \"acme\"\nhosts = [\"ID.acme.example\", \"::1\"]\n"
    );
    let directory = read(&source, &[]).unwrap().directory();
    let find = |header, host| directory.find_tenant(header, host).map(|t| t.id.to_string());
    let cases = [
        (None, None, Some("default")),
        (None, Some("other.example"), Some("default")),
        (None, Some("id.ACME.example"), Some("acme")),
        (None, Some("id.acme.example."), Some("acme")),
        (None, Some("[::1]"), Some("acme")),
        (Some("default"), Some("id.acme.example"), Some("default")),
        (Some("acme"), None, Some("acme")),
        (Some("nobody"), Some("id.acme.example"), None),
        (Some("ACME"), None, None),
        (Some(""), None, None),
    ];
    for (header, host, expected) in cases {
        assert_eq!(find(header, host).as_deref(), expected, "{header:?} {host:?}");
    }
    let only =
        read(&format!("{HEAD}[[tenants]]\nid = \"acme\"\nhosts = [\"a.example\"]\n"), &[]).unwrap().directory();
    assert!(only.find_tenant(None, Some("b.example")).is_none());
    assert!(only.find_tenant(None, Some("a.example")).is_some());
}

#[test]
fn providers_are_those_of_the_tenant_alone() {
    let source = with_provider("[[tenants]]\nid = \"default\"\n[[tenants]]\nid = \"acme\"\n");
    let directory = read(&source, &[]).unwrap().directory();
    assert_eq!(directory.providers(&TenantId::parse("default").unwrap()).len(), 1);
    assert!(directory.providers(&TenantId::parse("acme").unwrap()).is_empty());
}
