//! Keys on disk: what a restarted cache takes from there, and what it passes over.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::disk::{Binding, KeyFiles};
use super::test_server as server;
use super::test_world::{World, fetcher, key_set};
use super::{KeyCache, schedule};
use crate::clock::Clock;
use crate::ids::TenantId;
use crate::secret::Secret;
use crate::signin::ports::{KeyError, KeySource};
use crate::signin::provider::{IssuerRule, Provider, SignatureAlgorithm};

const HOUR: u64 = 3600;

struct Disk {
    world: World,
    dir: tempfile::TempDir,
}

impl Disk {
    /// A provider whose key `k1` a first cache fetched, and whose endpoints are down since.
    async fn new() -> Self {
        let disk = Self { world: World::new().await, dir: tempfile::tempdir().expect("a folder") };
        assert!(find(&disk.cache(), &disk.world.provider, "k1").await.is_ok());
        disk.world.fail();
        disk
    }

    fn files(&self, key: u8) -> KeyFiles {
        KeyFiles::new(self.dir.path().join("provider-keys"), Secret::new(vec![key; 32]))
    }

    /// As after a restart.
    fn cache(&self) -> KeyCache {
        KeyCache::with_files(fetcher(), Arc::clone(&self.world.clock) as Arc<dyn Clock>, self.files(7))
    }

    fn binding(&self) -> Binding {
        let p = &self.world.provider;
        Binding::new(&p.tenant, &p.name, &p.issuer, p.jwks_uri.as_ref())
    }

    fn file(&self) -> PathBuf {
        self.files(7).path(&self.binding())
    }

    async fn find_after_restart(&self) -> Result<(), KeyError> {
        find(&self.cache(), &self.world.provider, "k1").await
    }
}

async fn find(cache: &KeyCache, provider: &Provider, kid: &str) -> Result<(), KeyError> {
    cache.find_key(provider, Some(kid), SignatureAlgorithm::EdDsa).await.map(drop)
}

fn is_unavailable(result: &Result<(), KeyError>) -> bool {
    matches!(result, Err(KeyError::Unavailable { .. }))
}

#[tokio::test]
async fn a_cache_that_starts_while_the_issuer_is_down_finds_the_keys_of_the_last_fetch() {
    let disk = Disk::new().await;
    let before = disk.world.fetches();
    let cache = disk.cache();
    cache.restore(std::slice::from_ref(&disk.world.provider)).await;
    for _ in 0..10 {
        assert!(find(&cache, &disk.world.provider, "k1").await.is_ok());
    }
    assert_eq!(disk.world.fetches(), before, "a set that is not due asks nobody");
    assert!(matches!(find(&cache, &disk.world.provider, "k9").await, Err(KeyError::UnknownKey)));
}

#[tokio::test]
async fn a_key_that_was_rotated_in_while_the_server_was_down_is_fetched() {
    let disk = Disk::new().await;
    disk.world.publish(&["k1", "k2"]);
    disk.world.clock.advance(60);
    assert!(find(&disk.cache(), &disk.world.provider, "k2").await.is_ok());
}

#[tokio::test]
async fn an_overdue_set_from_disk_is_served_only_while_the_endpoint_fails() {
    let disk = Disk::new().await;
    disk.world.clock.advance(5 * HOUR);
    assert!(disk.find_after_restart().await.is_ok());
    disk.world.publish(&["k2"]);
    assert!(matches!(disk.find_after_restart().await, Err(KeyError::UnknownKey)), "a withdrawn key is gone");
}

#[tokio::test]
async fn a_set_that_would_be_too_old_in_memory_is_too_old_on_disk() {
    let disk = Disk::new().await;
    let last = HOUR + schedule::STALE_IF_ERROR.as_secs() - 60;
    disk.world.clock.advance(last);
    assert!(disk.find_after_restart().await.is_ok());
    disk.world.clock.advance(61);
    assert!(is_unavailable(&disk.find_after_restart().await));
}

#[tokio::test]
async fn the_age_of_a_set_goes_on_while_the_server_is_down() {
    let disk = Disk::new().await;
    disk.world.clock.advance(20 * HOUR);
    let cache = disk.cache();
    assert!(find(&cache, &disk.world.provider, "k1").await.is_ok());
    disk.world.clock.advance(6 * HOUR);
    assert!(is_unavailable(&find(&cache, &disk.world.provider, "k1").await), "a restart gives no second life");
}

#[tokio::test]
async fn a_file_from_the_future_is_passed_over() {
    let disk = Disk::new().await;
    disk.world.clock.0.fetch_sub(301_000, std::sync::atomic::Ordering::SeqCst);
    assert!(is_unavailable(&disk.find_after_restart().await));
    disk.world.clock.advance(2);
    assert!(disk.find_after_restart().await.is_ok(), "clocks of nodes differ a little");
}

#[tokio::test]
async fn a_changed_configuration_never_trusts_the_file() {
    let disk = Disk::new().await;
    let change = |change: &dyn Fn(&mut Provider)| {
        let mut changed = Provider::clone(&disk.world.provider);
        change(&mut changed);
        changed
    };
    let other = disk.world.server.url("/other");
    for changed in [
        change(&|p| p.jwks_uri = Some(disk.world.server.url("/keys"))),
        change(&|p| p.issuer = IssuerRule::Exact(vec![other.clone()])),
        change(&|p| p.issuer = IssuerRule::Exact(vec![disk.world.server.url(""), other.clone()])),
        change(&|p| p.tenant = TenantId::parse("another").expect("a tenant")),
        change(&|p| p.name = "renamed".into()),
    ] {
        assert!(is_unavailable(&find(&disk.cache(), &changed, "k1").await), "{changed:?}");
    }
    assert!(disk.find_after_restart().await.is_ok());
}

#[tokio::test]
async fn a_template_is_bound_to_its_allowed_tenants() {
    let rule = |allowed: &[&str]| IssuerRule::PerTenant {
        prefix: "https://login.example/".into(),
        suffix: "/v2.0".into(),
        allowed_tenant_ids: allowed.iter().map(|t| (*t).to_owned()).collect(),
    };
    let tenant = TenantId::parse("default").expect("a tenant");
    let one = Binding::new(&tenant, "p", &rule(&["t1"]), None);
    assert_ne!(one, Binding::new(&tenant, "p", &rule(&["t1", "t2"]), None));
    assert_eq!(one, Binding::new(&tenant, "p", &rule(&["t1"]), None));
}

#[tokio::test]
async fn a_file_of_another_provider_in_its_place_is_passed_over() {
    let disk = Disk::new().await;
    let mut renamed = Provider::clone(&disk.world.provider);
    renamed.name = "renamed".into();
    let place = disk.files(7).path(&Binding::new(&renamed.tenant, &renamed.name, &renamed.issuer, None));
    std::fs::copy(disk.file(), place).expect("a copy");
    assert!(is_unavailable(&find(&disk.cache(), &renamed, "k1").await));
}

#[tokio::test]
async fn a_tampered_or_broken_file_is_passed_over_and_mended_by_the_next_fetch() {
    let disk = Disk::new().await;
    let honest = std::fs::read(disk.file()).expect("a file");
    let text = String::from_utf8(honest.clone()).expect("text");
    let foreign = key_set(&["k1"])["keys"][0]["x"].as_str().expect("a text").to_owned();
    let body: Value = serde_json::from_str(text.split_once('\n').expect("two parts").1).expect("JSON");
    let own = body["set"]["keys"][0]["x"].as_str().expect("a text");
    for broken in [
        Vec::new(),
        b"{}".to_vec(),
        vec![0xff; 5000],
        b"\n{}".to_vec(),
        vec![b' '; 2_000_000],
        honest[..honest.len() / 2].to_vec(),
        text.replace(own, &foreign).into_bytes(),
        text.replace("\"ttl_s\": 3600", "\"ttl_s\": 86400").into_bytes(),
        text.split_once('\n').expect("two parts").1.as_bytes().to_vec(),
    ] {
        assert_ne!(broken, honest);
        std::fs::write(disk.file(), &broken).expect("written");
        assert!(is_unavailable(&disk.find_after_restart().await), "{}", String::from_utf8_lossy(&broken));
    }
    disk.world.publish(&["k1"]);
    assert!(disk.find_after_restart().await.is_ok());
    disk.world.fail();
    assert!(disk.find_after_restart().await.is_ok(), "the fetch replaced the file");
}

#[tokio::test]
async fn a_file_of_another_master_key_is_passed_over() {
    let disk = Disk::new().await;
    let clock = Arc::clone(&disk.world.clock) as Arc<dyn Clock>;
    let cache = KeyCache::with_files(fetcher(), clock, disk.files(8));
    assert!(is_unavailable(&find(&cache, &disk.world.provider, "k1").await));
}

#[tokio::test]
async fn only_public_members_of_usable_keys_are_written() {
    let world = World::new().await;
    let disk = Disk { world, dir: tempfile::tempdir().expect("a folder") };
    let mut set = key_set(&["k1", "k2"]);
    set["keys"][0]["note"] = "hunter2".into();
    set["keys"][0]["x5c"] = json!(["hunter2"]);
    set["keys"][1]["d"] = "hunter2".into();
    set["keys"].as_array_mut().expect("a list").push(json!({"kty": "oct", "kid": "s", "k": "hunter2"}));
    set["comment"] = "hunter2".into();
    disk.world.server.set("/keys", server::json(&set));
    assert!(find(&disk.cache(), &disk.world.provider, "k1").await.is_ok());
    let text = std::fs::read_to_string(disk.file()).expect("a file");
    assert!(!text.contains("hunter2") && text.contains("k1") && !text.contains("k2"), "{text}");
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_readable_by_their_owner_alone_and_nothing_else_is_left_behind() {
    use std::os::unix::fs::PermissionsExt;
    let disk = Disk::new().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let folder = disk.dir.path().join("provider-keys");
    assert_eq!((mode(&disk.file()), mode(&folder)), (0o600, 0o700));
    assert_eq!(std::fs::read_dir(folder).expect("a folder").count(), 1);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_stops_no_sign_in() {
    let world = World::new().await;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a-file");
    std::fs::write(&file, "in the way").expect("written");
    let files = KeyFiles::new(file, Secret::new(vec![7; 32]));
    let cache = KeyCache::with_files(fetcher(), Arc::clone(&world.clock) as Arc<dyn Clock>, files);
    assert!(find(&cache, &world.provider, "k1").await.is_ok());
}
