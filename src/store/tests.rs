//! The store on real files. Most of it is tested through the front door; here, what the door cannot show.

use std::sync::Arc;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use super::{OpenError, Store, StoreOptions};
use crate::clock::UnixTime;
use crate::ids::{EventId, TenantId, UserId};
use crate::secret::SystemEntropy;
use crate::signin::history::{ContextPrint, PastEnd};
use crate::signin::identity::Profile;
use crate::signin::ports::{CommitResult, NewOutcome, Outcomes, ReplayGuard, SignInCommit, Users};
use crate::signin::record::SignInRecord;
use crate::signin::user::{IdentityKey, PlannedChange, User, UserStatus};

const NOW: UnixTime = UnixTime::from_secs(1_780_315_200);

fn options(dir: &TempDir) -> StoreOptions {
    StoreOptions { url: format!("sqlite://{}", dir.path().join("s.db").display()) }
}

async fn open(dir: &TempDir) -> Arc<Store> {
    Store::open(&options(dir)).await.unwrap()
}

fn identity(subject: &str) -> IdentityKey {
    IdentityKey {
        tenant: TenantId::parse("default").unwrap(),
        provider: "acme".into(),
        issuer: "https://idp.example".into(),
        subject: subject.into(),
    }
}

fn record(user: UserId, at: UnixTime) -> SignInRecord {
    SignInRecord {
        id: EventId::generate(at, &SystemEntropy),
        at,
        tenant: TenantId::parse("default").unwrap(),
        provider: "acme".into(),
        user: Some(user),
        end: PastEnd::SignedIn,
        code: None,
        context: ContextPrint::default(),
        assessment: None,
        session: None,
    }
}

fn create(subject: &str, email: Option<&str>) -> SignInCommit {
    let id = UserId::generate(NOW, &SystemEntropy);
    let user = User {
        id,
        tenant: TenantId::parse("default").unwrap(),
        status: UserStatus::Active,
        profile: Profile {
            kind: crate::signin::identity::UserKind::Person,
            email: email.map(str::to_owned),
            email_verified: email.is_some(),
            name: None,
            username: None,
            phone: None,
            phone_verified: false,
            locale: None,
            attributes: std::collections::BTreeMap::new(),
            groups: Vec::new(),
            roles: Vec::new(),
        },
        created_at: NOW,
        password: None,
    };
    let change = PlannedChange::Create { user: Box::new(user), identity: identity(subject) };
    SignInCommit { change, came_by: None, outcome: NewOutcome::Denial, record: record(id, NOW), sealed: None }
}

fn again(user: UserId, at: UnixTime) -> SignInCommit {
    SignInCommit {
        change: PlannedChange::None,
        came_by: None,
        outcome: NewOutcome::Denial,
        record: record(user, at),
        sealed: None,
    }
}

#[tokio::test]
async fn one_key_is_remembered_for_one_of_many_callers_and_is_new_once_its_time_has_passed() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let until = NOW.plus(Duration::from_secs(60));
    let all = futures_util::future::join_all((0..50).map(|_| store.remember([7; 32], until, NOW))).await;
    assert_eq!(all.into_iter().filter(|r| *r.as_ref().unwrap()).count(), 1);
    assert!(!store.remember([7; 32], until, until.minus(Duration::from_millis(1))).await.unwrap());
    let later = until.plus(Duration::from_secs(60));
    assert!(store.remember([7; 32], later, until).await.unwrap());
    assert!(!store.remember([7; 32], later, until).await.unwrap());
}

#[tokio::test]
async fn a_conflict_undoes_its_own_command_and_no_other_of_the_batch() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let subjects: Vec<String> = (0..50).map(|n| format!("s-{}", n / 2)).collect();
    let commits = subjects.iter().map(|subject| store.commit(create(subject, None)));
    let results: Vec<CommitResult> =
        futures_util::future::join_all(commits).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.iter().filter(|r| **r == CommitResult::Done).count(), 25);
    for n in 0..25 {
        let known = store.find_by_identity(&identity(&format!("s-{n}")), NOW).await.unwrap().unwrap();
        assert_eq!(known.history.entries.len(), 1, "the loser's record is not written");
    }
}

#[tokio::test]
async fn a_verified_address_has_one_holder_whatever_its_case() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    assert_eq!(store.commit(create("a", Some("Ada@Example.com"))).await.unwrap(), CommitResult::Done);
    assert_eq!(store.commit(create("b", Some("ada@example.COM"))).await.unwrap(), CommitResult::Conflict);
    assert!(store.find_by_identity(&identity("b"), NOW).await.unwrap().is_none());
    let tenant = TenantId::parse("default").unwrap();
    let holder = store.find_by_verified_email(&tenant, "ADA@example.com", NOW).await.unwrap();
    assert!(holder.is_some());
}

#[tokio::test]
async fn a_user_who_was_disabled_meanwhile_gets_no_commit() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let made = create("a", None);
    let id = made.record.user.unwrap();
    store.commit(made).await.unwrap();
    store.set_user_status(id, UserStatus::Disabled).await.unwrap();
    assert_eq!(store.commit(again(id, NOW)).await.unwrap(), CommitResult::Conflict);
    store.set_user_status(id, UserStatus::Active).await.unwrap();
    assert_eq!(store.commit(again(id, NOW)).await.unwrap(), CommitResult::Done);
}

#[tokio::test]
async fn whoever_came_by_an_identity_that_was_unlinked_meanwhile_gets_no_commit() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let made = create("a", None);
    let id = made.record.user.unwrap();
    store.commit(made).await.unwrap();
    let by = |subject: &str| SignInCommit { came_by: Some(identity(subject)), ..again(id, NOW) };
    let profile = Profile { name: Some("Ada".to_owned()), ..Profile::default() };
    let update = |subject: &str| {
        let change = PlannedChange::Update { user: id, profile: profile.clone() };
        SignInCommit { change, ..by(subject) }
    };
    // In one batch: each is judged by itself.
    let (own, gone, update, update_gone) = tokio::join!(
        store.commit(by("a")),
        store.commit(by("b")),
        store.commit(update("a")),
        store.commit(update("b"))
    );
    assert_eq!([own.unwrap(), update.unwrap()], [CommitResult::Done; 2]);
    assert_eq!([gone.unwrap(), update_gone.unwrap()], [CommitResult::Conflict; 2]);
}

#[tokio::test]
async fn what_comes_late_leaves_nothing_of_an_erased_user() {
    use sqlx::Row;

    use crate::mfa::ports::Challenges;

    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let made = create("a", None);
    let id = made.record.user.unwrap();
    store.commit(made).await.unwrap();
    store.set_user_status(id, UserStatus::Deleted).await.unwrap();
    let late = || record(id, NOW.plus(Duration::from_secs(1)));
    store.record_wrong_code(late()).await.unwrap();
    store.record_refusal(late());
    assert_eq!(store.commit(again(id, NOW)).await.unwrap(), CommitResult::Conflict);
    let rows = sqlx::query("SELECT count(*) FROM sign_ins WHERE user_id = ?1").bind(id.as_bytes().to_vec());
    assert_eq!(rows.fetch_one(&store.pool).await.unwrap().get::<i64, _>(0), 1, "the first one alone");
}

#[tokio::test]
async fn history_is_the_newest_200_entries_newest_first() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let made = create("a", None);
    let id = made.record.user.unwrap();
    store.commit(made).await.unwrap();
    for n in 1..=250 {
        store.commit(again(id, NOW.plus(Duration::from_secs(n)))).await.unwrap();
    }
    let later = NOW.plus(Duration::from_secs(300));
    let history = store.find_by_identity(&identity("a"), later).await.unwrap().unwrap().history;
    assert_eq!(history.entries.len(), 200);
    assert_eq!(history.entries[0].at, NOW.plus(Duration::from_secs(250)));
    assert!(history.entries.windows(2).all(|pair| pair[0].at >= pair[1].at));
    assert!(history.first.is_some());
}

#[tokio::test]
async fn what_was_acknowledged_stands_in_a_copy_of_the_files() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    assert_eq!(store.commit(create("a", None)).await.unwrap(), CommitResult::Done);
    let copy = TempDir::new().unwrap();
    for name in ["s.db", "s.db-wal"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let other = open(&copy).await;
    assert!(other.find_by_identity(&identity("a"), NOW).await.unwrap().is_some());
}

#[tokio::test]
async fn another_kind_of_address_and_a_schema_of_another_build_are_refused() {
    for url in ["postgres://localhost/x", "sqlite://", "s.db", ""] {
        let refused = Store::open(&StoreOptions { url: url.to_owned() }).await;
        assert!(matches!(refused, Err(OpenError::Address)), "{url}");
    }
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    store
        .write(|connection| {
            Box::pin(async move {
                sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00'").execute(connection).await.map(|_| ())
            })
        })
        .await
        .unwrap();
    store.close().await;
    let refused = Store::open(&options(&dir)).await.err().unwrap().to_string();
    assert!(refused.contains("modified"), "{refused}");
}

/// Everything that waits for the writer, and what it was told.
async fn refusals(store: &Store, user: UserId) -> Vec<String> {
    let (remembered, returning, created, task) = tokio::join!(
        store.remember([9; 32], NOW.plus(Duration::from_secs(60)), NOW),
        store.commit(again(user, NOW)),
        store.commit(create("b", None)),
        store.set_user_status(user, UserStatus::Active),
    );
    let refused = [remembered.err(), returning.err(), created.err(), task.err()];
    refused.into_iter().map(|error| error.expect("nothing was written").0.to_string()).collect()
}

#[tokio::test]
async fn a_write_lock_that_somebody_else_holds_is_told_as_such_to_all_who_wait() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let made = create("a", None);
    let user = made.record.user.unwrap();
    store.commit(made).await.unwrap();
    let path = SqliteConnectOptions::new().filename(dir.path().join("s.db"));
    let mut other = path.connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    for told in refusals(&store, user).await {
        assert!(told.contains("was not committed") && told.contains("locked"), "{told}");
    }
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    store.set_user_status(user, UserStatus::Active).await.unwrap();
}

#[tokio::test]
async fn a_statement_that_fails_for_all_is_told_to_those_after_it_as_well() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let made = create("a", None);
    let user = made.record.user.unwrap();
    store.commit(made).await.unwrap();
    let path = SqliteConnectOptions::new().filename(dir.path().join("s.db"));
    let mut other = path.connect().await.unwrap();
    sqlx::query("ALTER TABLE replays RENAME TO away").execute(&mut other).await.unwrap();
    let (remembered, task) = tokio::join!(
        store.remember([9; 32], NOW.plus(Duration::from_secs(60)), NOW),
        store.set_user_status(user, UserStatus::Active),
    );
    let told = remembered.expect_err("there is no such table").0.to_string();
    assert!(told.contains("was not committed") && told.contains("replays"), "{told}");
    let told = task.expect_err("it was in the same transaction").0.to_string();
    assert!(told.contains("was not committed") && told.contains("replays"), "{told}");
}

#[tokio::test]
async fn a_closed_store_says_that_it_is_closing() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    store.close().await;
    for told in refusals(&store, UserId::generate(NOW, &SystemEntropy)).await {
        assert!(told.contains("closing"), "{told}");
    }
}

#[test]
fn what_a_policy_makes_of_tokens_is_kept_by_factor_and_the_one_that_passed_chooses() {
    use std::collections::BTreeMap;

    use serde_json::{Map, json};

    use crate::mfa::MfaMethod;
    use crate::session::{Caps, Grant, TokenShape};
    use crate::signin::rules::Level;

    let claims = |how: &str| Map::from_iter([("how".to_owned(), json!(how))]);
    let grant = Grant {
        tenant: TenantId::parse("default").unwrap(),
        user: UserId::generate(NOW, &SystemEntropy),
        provider: "acme".into(),
        provider_generation: 3,
        client_id: "app".into(),
        auth_time: NOW,
        amr: Vec::new(),
        acr: None,
        level: Level::Medium,
        caps: Caps::default(),
        local_mfa: false,
        client: Some("app".into()),
        client_generation: 4,
        audience: Some("https://a.example.com".into()),
        jkt: None,
        upstream_sid: None,
        claims: Map::new(),
        shape_by_factor: BTreeMap::from([
            (MfaMethod::Email, TokenShape { claims: claims("email"), audience: None }),
            (MfaMethod::Sms, TokenShape { claims: claims("sms"), audience: Some("https://b.example.com".into()) }),
        ]),
    };
    let text = super::rows::GrantRow::from(&grant).to_json().unwrap();
    let mut read = super::rows::GrantRow::read(&text).unwrap();
    assert_eq!(read, grant);
    let mut by_email = read.clone();
    by_email.add_factor(MfaMethod::Email);
    assert_eq!((&by_email.claims, by_email.audience.as_deref()), (&claims("email"), Some("https://a.example.com")));
    read.add_factor(MfaMethod::Sms);
    assert_eq!((&read.claims, read.shape_by_factor.len()), (&claims("sms"), 0));
    assert_eq!(read.audience.as_deref(), Some("https://b.example.com"));
    assert!(super::rows::GrantRow::read(&text.replace("\"sms\":{", "\"smoke\":{")).is_err());
}

#[tokio::test]
async fn sessions_of_providers_that_are_there_go_on_over_the_migration_to_generations() {
    use sqlx::Row;
    use sqlx::migrate::Migrator;

    let dir = TempDir::new().unwrap();
    let file = SqliteConnectOptions::new().filename(dir.path().join("s.db")).create_if_missing(true);
    let mut old = file.connect().await.unwrap();
    let before = super::open::migrations().iter().filter(|m| m.version < 110).cloned().collect();
    Migrator::with_migrations(before).run_direct(None, &mut old, false).await.unwrap();
    sqlx::raw_sql(
        r#"INSERT INTO providers (tenant, name, settings, created_at, updated_at) VALUES ('default', 'api', '{}', 50, 50);
        INSERT INTO sessions (id, user_id, "grant", created_at) VALUES
            (x'01', x'aa', '{"tenant":"default","provider":"api"}', 60),
            (x'02', x'aa', '{"tenant":"default","provider":"api"}', 40),
            (x'03', x'aa', '{"tenant":"default","provider":"file"}', 60),
            (x'04', x'aa', '{"tenant":"other","provider":"api"}', 60);"#,
    )
    .execute(&mut old)
    .await
    .unwrap();
    drop(old);
    let store = open(&dir).await;
    let rows = sqlx::query(r#"SELECT "grant" ->> 'provider_generation' FROM sessions ORDER BY id"#);
    let rows = rows.fetch_all(&store.pool).await.unwrap();
    let generations: Vec<Option<i64>> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(generations, [Some(1), None, None, None]);
    let directory = crate::admin::directory::DirectoryStore::load(&*store).await.unwrap();
    assert_eq!(directory.providers[0].generation, 1);
}

#[tokio::test]
async fn identities_under_apples_other_name_are_found_after_the_migration() {
    use sqlx::migrate::Migrator;

    let dir = TempDir::new().unwrap();
    let file = SqliteConnectOptions::new().filename(dir.path().join("s.db")).create_if_missing(true);
    let mut old = file.connect().await.unwrap();
    let before = super::open::migrations().iter().filter(|m| m.version < 142).cloned().collect();
    Migrator::with_migrations(before).run_direct(None, &mut old, false).await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO identities (tenant, provider, issuer, subject, user_id, created_at) VALUES
            ('t', 'apple', 'https://account.apple.com', 'moves', x'01', 1),
            ('t', 'apple', 'https://account.apple.com', 'both', x'02', 1),
            ('t', 'apple', 'https://appleid.apple.com', 'both', x'02', 1),
            ('t', 'apple', 'https://account.apple.com', 'two users', x'03', 1),
            ('t', 'apple', 'https://appleid.apple.com', 'two users', x'04', 1),
            ('t', 'other', 'https://account.example.com', 'stays', x'05', 1);
        INSERT INTO invitations (id, tenant, user_id, provider, issuer, subject, note, created_at, expires_at) VALUES
            (x'01', 't', x'06', 'apple', 'https://account.apple.com', 'invited', '', 1, 2);",
    )
    .execute(&mut old)
    .await
    .unwrap();
    drop(old);
    let store = open(&dir).await;
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT subject, issuer, unicode(user_id) FROM identities UNION ALL SELECT subject, issuer, 6 FROM invitations \
         ORDER BY 3",
    )
    .fetch_all(&store.pool)
    .await
    .unwrap();
    let rows: Vec<(&str, &str)> =
        rows.iter().map(|(subject, issuer, _)| (subject.as_str(), issuer.as_str())).collect();
    assert_eq!(
        rows,
        [
            ("moves", "https://appleid.apple.com"),
            ("both", "https://appleid.apple.com"),
            ("two users", "https://account.apple.com"),
            ("two users", "https://appleid.apple.com"),
            ("stays", "https://account.example.com"),
            ("invited", "https://appleid.apple.com"),
        ]
    );
}

#[tokio::test]
async fn what_a_plugin_holds_is_bounded_and_known_without_adding_it_up() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let (later, limit) = (NOW.plus(Duration::from_secs(60)), 10 * (4 + 6 + 32));
    let set = async |key: usize, value: &[u8], until: UnixTime, now: UnixTime| {
        let key = format!("k{key:03}");
        store.set_plugin_value("p", key.as_bytes(), Some((value.to_vec(), until)), limit, now).await.unwrap()
    };
    for key in 0..10 {
        assert!(set(key, b"123456", later, NOW).await);
    }
    assert!(!set(10, b"", later, NOW).await, "an empty value takes its place too");
    assert!(set(3, b"654321", later, NOW).await && !set(3, b"7654321", later, NOW).await);
    assert!(store.set_plugin_value("other", b"k", Some((vec![0; 300], later)), limit, NOW).await.unwrap());
    store.set_plugin_value("p", b"k000", None, limit, NOW).await.unwrap();
    assert!(set(11, b"123456", later, NOW).await && !set(12, b"123456", later, NOW).await);
    // What has expired makes room, whether it was swept or not.
    let after = later.plus(Duration::from_secs(1));
    assert!(set(12, b"123456", after.plus(Duration::from_secs(60)), after).await);
    let counted: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT plugin, sum(length(key) + length(value) + 32), (SELECT bytes FROM plugin_usage u WHERE u.plugin = v.plugin) \
         FROM plugin_values v GROUP BY plugin ORDER BY plugin",
    )
    .fetch_all(&store.pool)
    .await
    .unwrap();
    assert_eq!(counted, [("other".to_owned(), 333, 333), ("p".to_owned(), 42, 42)]);
    assert_eq!(store.plugin_value("p", b"k012", after).await.unwrap().as_deref(), Some(&b"123456"[..]));
}
