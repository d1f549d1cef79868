//! Linking and unlinking: every link has a proof of both sides.

use std::time::Duration;

use countersign::clock::UnixTime;
use countersign::mfa::totp::code_at;
use countersign::signin::user::UserStatus;
use serde_json::{Value, json};

use super::{mail, of_second, sign_in, through_second, with_second};
use crate::mfa::{code, enrol_with, verify};
use crate::support::service::{Answer, JsonBody, Service, Setup};

const PATH: &str = "/auth/me/identities";

/// A server whose second provider links after confirmation, and Ada, known with a verified address.
async fn confirming() -> (Service, String, Value) {
    let service = with_second("linking = \"confirm\"").await;
    let (access, body) = sign_in(&service, mail(service.issuer.token(), "ada@example.com", true)).await;
    (service, access, body["user_id"].clone())
}

async fn refused_with_token(service: &Service, subject: &str) -> String {
    let token = mail(service.issuer.token().subject(subject), "ada@example.com", false);
    let refused = through_second(service, token).await;
    refused.expect(409, "account_exists").body["link_token"].as_str().unwrap().to_owned()
}

async fn redeem(service: &Service, access: &str, link_token: &str) -> Answer {
    service.post_with(PATH, access, json!({"link_token": link_token})).await
}

async fn listed(service: &Service, access: &str) -> Vec<Value> {
    service.get_with(PATH, access).await.body["identities"].as_array().unwrap().clone()
}

async fn unlink(service: &Service, access: &str, id: &Value) -> Answer {
    let path = service.url(&format!("{PATH}/{}", id.as_str().unwrap()));
    service.send(service.http().delete(path).bearer_auth(access)).await
}

#[tokio::test]
async fn a_refused_identity_is_linked_by_a_fresh_session_of_the_account_and_its_link_token() {
    let (service, access, ada) = confirming().await;
    let link_token = refused_with_token(&service, "ada-at-second").await;
    let linked = redeem(&service, &access, &link_token).await;
    assert_eq!((linked.status, &linked.body["provider"]), (200, &json!("second")), "{}", linked.text);
    assert_eq!(listed(&service, &access).await.len(), 2);
    let again = through_second(&service, service.issuer.token().subject("ada-at-second")).await;
    assert_eq!(again.signed_in()["user_id"], ada);
}

#[tokio::test]
async fn a_link_token_is_good_once_for_ten_minutes_for_its_account_and_in_its_tenant() {
    let (service, access, _) = confirming().await;
    let link_token = refused_with_token(&service, "b").await;
    let (stranger, _) = sign_in(&service, service.issuer.token().subject("stranger")).await;
    redeem(&service, &stranger, &link_token).await.expect(400, "invalid_link_token");
    redeem(&service, &access, &link_token).await;
    redeem(&service, &access, &link_token).await.expect(400, "invalid_link_token");
    let late = refused_with_token(&service, "c").await;
    service.clock.advance(Duration::from_secs(600));
    let (fresh, _) = sign_in(&service, service.issuer.token()).await;
    redeem(&service, &fresh, &late).await.expect(400, "invalid_link_token");
    for token in ["x", "lnk_0.x", &format!("{}AAAA", link_token.split_once('.').unwrap().0)] {
        redeem(&service, &fresh, token).await.expect(400, "invalid_link_token");
    }
}

/// CVE-2026-9087: the proof was keyed by the address and the provider, and a second upstream account used it.
#[tokio::test]
async fn cve_2026_9087_a_link_proof_of_one_identity_links_no_other() {
    let (service, access, ada) = confirming().await;
    let honest = refused_with_token(&service, "honest").await;
    let _attackers_own = refused_with_token(&service, "attacker").await;
    redeem(&service, &access, &honest).await;
    let attacker = mail(service.issuer.token().subject("attacker"), "ada@example.com", false);
    through_second(&service, attacker).await.expect(409, "account_exists");
    let subjects: Vec<Value> = listed(&service, &access).await.iter().map(|i| i["subject"].clone()).collect();
    assert_eq!(subjects, [json!("subject-1"), json!("honest")]);
    let honest = through_second(&service, service.issuer.token().subject("honest")).await;
    assert_eq!(honest.signed_in()["user_id"], ada);
}

#[tokio::test]
async fn providers_that_do_not_confirm_give_no_link_token() {
    for linking in ["never", "verified_email"] {
        let service = with_second(&format!("linking = \"{linking}\"")).await;
        sign_in(&service, mail(service.issuer.token(), "ada@example.com", true)).await;
        let token = mail(service.issuer.token().subject("b"), "ada@example.com", false);
        let refused = through_second(&service, token).await;
        assert!(refused.expect(409, "account_exists").body.get("link_token").is_none());
    }
}

#[tokio::test]
async fn a_disabled_account_is_offered_for_linking_to_nobody() {
    let (service, _, ada) = confirming().await;
    service.store.set_user_status(ada.as_str().unwrap().parse().unwrap(), UserStatus::Disabled).await.unwrap();
    let token = mail(service.issuer.token().subject("b"), "ada@example.com", true);
    assert!(through_second(&service, token).await.expect(409, "account_exists").body.get("link_token").is_none());
}

#[tokio::test]
async fn an_address_verified_on_both_sides_is_linked_by_the_accounts_factor() {
    let (service, access, ada) = confirming().await;
    let secret = enrol_with(&service, &access).await;
    service.clock.advance(Duration::from_secs(60));
    let code = || code_at(&secret, UnixTime::from_secs(service.clock.now_s())).unwrap();
    let token = || mail(service.issuer.token().subject("b"), "ada@example.com", true).claim("amr", json!(["mfa"]));
    let answer = through_second(&service, token()).await;
    assert_eq!(answer.challenged()["mfa_check_reason"], "link_confirmation");
    let editor = service.admin_key(countersign::admin::access::Role::Editor, Some("default")).await;
    let export = format!("/admin/users/{}/export", ada.as_str().unwrap());
    let export = service.post_with(&export, &editor, json!({})).await;
    let waiting = &export.body["records"]["challenge_links"][0];
    assert_eq!((&waiting["provider"], &waiting["subject"]), (&json!("second"), &json!("b")), "{}", export.text);
    let verify = "/auth/mfa/verify-challenge";
    let challenge = &answer.body["challenge_token"];
    let wrong = service.post(verify, json!({"challenge_token": challenge, "code": "000000"})).await;
    wrong.expect(400, "invalid_mfa_code");
    through_second(&service, token()).await.challenged();
    let done = service.post(verify, json!({"challenge_token": challenge, "code": code()})).await;
    assert_eq!(done.signed_in()["user_id"], ada);
    assert_eq!(through_second(&service, token()).await.signed_in()["user_id"], ada);
}

#[tokio::test]
async fn another_subject_of_the_accounts_own_provider_is_not_confirmed_by_a_factor() {
    let service = Service::start_with(Setup::provider("linking = \"confirm\"")).await;
    let (access, _) = sign_in(&service, mail(service.issuer.token(), "ada@example.com", true)).await;
    enrol_with(&service, &access).await;
    let token = mail(service.issuer.token().subject("new-owner"), "ada@example.com", true);
    let refused = service.sign_in(&token.sign()).await;
    let link_token = refused.expect(409, "account_exists").body["link_token"].as_str().unwrap().to_owned();
    assert_eq!(redeem(&service, &access, &link_token).await.status, 200, "the account itself may still say so");
}

#[tokio::test]
async fn a_wrong_or_missing_factor_links_nothing() {
    let (service, access, _) = confirming().await;
    let secret = enrol_with(&service, &access).await;
    let unverified = mail(service.issuer.token().subject("b"), "ada@example.com", false);
    through_second(&service, unverified).await.expect(409, "account_exists");
    let verified = || mail(service.issuer.token().subject("b"), "ada@example.com", true);
    let challenge = through_second(&service, verified()).await.challenged()["challenge_token"].clone();
    let spent = code_at(&secret, UnixTime::from_secs(service.clock.now_s())).unwrap();
    let answer = json!({"challenge_token": challenge, "code": spent});
    service.post("/auth/mfa/verify-challenge", answer).await.expect(400, "invalid_mfa_code");
    assert_eq!(listed(&service, &access).await.len(), 1);
    through_second(&service, verified()).await.challenged();
}

#[tokio::test]
async fn mas_3135_a_signed_in_user_links_with_an_id_token_that_is_checked_and_spent_as_at_a_sign_in() {
    let service = with_second("").await;
    let (access, body) = sign_in(&service, service.issuer.token()).await;
    let token = of_second(&service, "b").sign();
    let link = |token: &str| json!({"id_token": token, "provider": "second"});
    let linked = service.post_with(PATH, &access, link(&token)).await;
    assert_eq!((linked.status, &linked.body["subject"]), (200, &json!("b")), "{}", linked.text);
    service.post_with(PATH, &access, link(&token)).await.expect(401, "id_token_replayed");
    let same = service.post_with(PATH, &access, link(&of_second(&service, "b").sign())).await;
    assert_eq!(same.status, 200, "linking what is linked already changes nothing");
    assert_eq!(
        through_second(&service, service.issuer.token().subject("b")).await.signed_in()["user_id"],
        body["user_id"]
    );
    let foreign = of_second(&service, "c").claim("aud", "another-app").sign();
    service.post_with(PATH, &access, link(&foreign)).await.expect(401, "id_token_audience_mismatch");
    let mut forged = of_second(&service, "c").sign();
    forged.truncate(forged.len() - 8);
    service
        .post_with(PATH, &access, link(&format!("{forged}AAAAAAAA")))
        .await
        .expect(401, "id_token_signature_invalid");
    service.post_with(PATH, &access, json!({})).await.expect(400, "missing_id_token");
    let both = json!({"id_token": "a", "link_token": "b"});
    service.post_with(PATH, &access, both).await.expect(400, "malformed_request");
    service.post(PATH, json!({})).await.expect(401, "missing_access_token");
}

#[tokio::test]
async fn an_identity_of_another_account_is_not_taken_over() {
    let service = with_second("").await;
    through_second(&service, service.issuer.token().subject("theirs")).await.signed_in();
    let (access, _) = sign_in(&service, service.issuer.token()).await;
    let token = of_second(&service, "theirs").sign();
    let answer = service.post_with(PATH, &access, json!({"id_token": token, "provider": "second"})).await;
    answer.expect(409, "identity_taken");
}

#[tokio::test]
async fn linking_and_unlinking_need_a_fresh_session_and_refreshing_does_not_make_one() {
    let service = with_second("").await;
    let (access, body) = sign_in(&service, service.issuer.token()).await;
    service.clock.advance(Duration::from_secs(601));
    let token = of_second(&service, "b").sign();
    let link = json!({"id_token": token, "provider": "second"});
    service.post_with(PATH, &access, link.clone()).await.expect(403, "fresh_session_needed");
    let refreshed = service.post("/auth/refresh", json!({"refresh_token": body["refresh_token"]})).await;
    let refreshed = refreshed.signed_in()["access_token"].as_str().unwrap().to_owned();
    service.post_with(PATH, &refreshed, link.clone()).await.expect(403, "fresh_session_needed");
    let id = listed(&service, &refreshed).await[0]["id"].clone();
    unlink(&service, &refreshed, &id).await.expect(403, "fresh_session_needed");
    let (fresh, _) = sign_in(&service, service.issuer.token()).await;
    assert_eq!(service.post_with(PATH, &fresh, link).await.status, 200, "the refused token was not spent");
}

#[tokio::test]
async fn unlinking_never_strands_and_ends_the_sessions_of_the_provider() {
    let service = with_second("").await;
    let (access, _) = sign_in(&service, service.issuer.token()).await;
    let only = listed(&service, &access).await[0]["id"].clone();
    unlink(&service, &access, &only).await.expect(409, "last_identity");
    let token = of_second(&service, "b").sign();
    service.post_with(PATH, &access, json!({"id_token": token, "provider": "second"})).await;
    let through = through_second(&service, service.issuer.token().subject("b")).await;
    let through = through.signed_in()["access_token"].as_str().unwrap().to_owned();
    let second_id = listed(&service, &access).await[1]["id"].clone();
    let gone = unlink(&service, &access, &second_id).await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    service.get_with("/auth/me", &through).await.expect(401, "session_ended");
    assert_eq!(service.get_with("/auth/me", &access).await.status, 200);
    unlink(&service, &access, &second_id).await.expect(404, "unknown_identity");
    unlink(&service, &access, &json!("idn_x")).await.expect(404, "unknown_identity");
    let stranger = through_second(&service, service.issuer.token().subject("b")).await;
    assert_ne!(stranger.signed_in()["user_id"], service.get_with("/auth/me", &access).await.body["data"]["id"]);
}

#[tokio::test]
async fn unlinking_ends_the_open_challenges_of_the_provider_and_no_others() {
    let dir = tempfile::TempDir::new().unwrap();
    let service = Service::start().await;
    let more_config = super::second(&service, "").more_config;
    let setup = Setup::with_policies(dir.path(), &[("risk/_default.rhai", crate::mfa::DEMAND)]);
    let service = service.restart(Setup { more_config, ..setup }).await;
    let (access, _) = sign_in(&service, service.issuer.token()).await;
    let secret = enrol_with(&service, &access).await;
    let token = of_second(&service, "b").sign();
    service.post_with(PATH, &access, json!({"id_token": token, "provider": "second"})).await;
    service.clock.advance(Duration::from_secs(60));
    let through = through_second(&service, service.issuer.token().subject("b")).await;
    let through = through.challenged()["challenge_token"].clone();
    let other = crate::mfa::challenge(&service).await;
    let second_id = listed(&service, &access).await[1]["id"].clone();
    assert_eq!(unlink(&service, &access, &second_id).await.status, 200);
    verify(&service, &through, &code(&service, &secret, 0)).await.expect(400, "challenge_expired");
    verify(&service, &other, &code(&service, &secret, 0)).await.signed_in();
}

#[tokio::test]
async fn an_identity_of_a_provider_that_is_gone_does_not_count_as_a_way_in() {
    let service = with_second("").await;
    let (access, _) = sign_in(&service, service.issuer.token()).await;
    let token = of_second(&service, "b").sign();
    service.post_with(PATH, &access, json!({"id_token": token, "provider": "second"})).await;
    let service = service.restart(Setup::default()).await;
    let first = listed(&service, &access).await[0]["id"].clone();
    unlink(&service, &access, &first).await.expect(409, "last_identity");
}

#[tokio::test]
async fn two_unlinkings_at_once_leave_one_identity() {
    let service = with_second("").await;
    let (access, _) = sign_in(&service, service.issuer.token()).await;
    let token = of_second(&service, "b").sign();
    service.post_with(PATH, &access, json!({"id_token": token, "provider": "second"})).await;
    let ids: Vec<Value> = listed(&service, &access).await.iter().map(|i| i["id"].clone()).collect();
    let answers = futures_util::future::join_all(ids.iter().map(|id| unlink(&service, &access, id))).await;
    let mut seen: Vec<u16> = answers.iter().map(|a| a.status).collect();
    seen.sort_unstable();
    assert_eq!(seen, [200, 409]);
}

#[tokio::test]
async fn nobody_links_or_unlinks_for_another_user_or_tenant() {
    let service = with_second("").await;
    let (ada, _) = sign_in(&service, service.issuer.token()).await;
    let (eve, _) = sign_in(&service, service.issuer.token().subject("eve")).await;
    let adas = listed(&service, &ada).await[0]["id"].clone();
    unlink(&service, &eve, &adas).await.expect(404, "unknown_identity");
    let elsewhere = service.http().post(service.url(PATH)).bearer_auth(&ada).header("x-tenant-id", "other");
    let token = of_second(&service, "b").sign();
    let elsewhere = elsewhere.json(&json!({"id_token": token, "provider": "second"}));
    service.send(elsewhere).await.expect(401, "invalid_access_token");
}

/// CVE-2026-49757: the user was matched by the address.
#[tokio::test]
async fn cve_2026_49757_two_subjects_with_one_unverified_address_are_never_one_user() {
    for linking in ["never", "verified_email", "confirm"] {
        let service = with_second(&format!("linking = \"{linking}\"")).await;
        let (_, ada) = sign_in(&service, mail(service.issuer.token(), "ada@example.com", false)).await;
        let token = mail(service.issuer.token().subject("b"), "ada@example.com", false);
        let other = through_second(&service, token).await;
        assert_ne!(other.signed_in()["user_id"], ada["user_id"], "{linking}");
    }
}

/// CVE-2026-1486: a disabled provider was still trusted on one of the ways in.
#[tokio::test]
async fn cve_2026_1486_a_provider_that_is_disabled_proves_no_identity_to_link() {
    let service = with_second("enabled = false").await;
    let (access, _) = sign_in(&service, service.issuer.token()).await;
    let named = json!({"id_token": of_second(&service, "b").sign(), "provider": "second"});
    service.post_with(PATH, &access, named).await.expect(403, "provider_disabled");
    let found_by_issuer = json!({"id_token": of_second(&service, "b").sign()});
    service.post_with(PATH, &access, found_by_issuer).await.expect(403, "provider_disabled");
}

/// Google domain reuse: the new owner of a lapsed domain gets the same address and `hd`, and another `sub`.
#[tokio::test]
async fn a_reused_domain_gives_the_same_address_and_another_subject_and_not_the_old_account() {
    for linking in ["never", "confirm"] {
        let service = Service::start().await;
        let service = service.restart(Setup::provider(&format!("linking = \"{linking}\""))).await;
        let claims = |subject: &str| mail(service.issuer.token().subject(subject), "ceo@lapsed.example", true);
        sign_in(&service, claims("old-owner").claim("hd", "lapsed.example")).await;
        let new_owner = service.sign_in(&claims("new-owner").claim("hd", "lapsed.example").sign()).await;
        new_owner.expect(409, "account_exists");
    }
}
