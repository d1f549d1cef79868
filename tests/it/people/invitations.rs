//! Providers that let in only who was invited.

use std::time::Duration;

use countersign::admin::audit::{Actor, Author};
use countersign::clock::{Clock, UnixTime};
use countersign::ids::{EventId, InvitationId, TenantId, UserId};
use countersign::people::invitations::{Invitation, Invitee, NewInvitation};
use countersign::people::ports::{Invitations, InviteResult};
use countersign::secret::SystemEntropy;
use countersign::signin::identity::Profile;
use countersign::signin::user::UserStatus;

use super::{mail, sign_in};
use crate::support::service::{Service, Setup};

async fn inviting(lines: &str) -> Service {
    Service::start_with(Setup::provider(&format!("provisioning = \"invite\"\n{lines}"))).await
}

fn author(service: &Service) -> Author {
    let at = service.clock.now();
    let event = EventId::generate(at, &SystemEntropy);
    Author { event, at, tenant: None, actor: Actor::System, request: None }
}

async fn invite(service: &Service, invitee: Invitee) -> (InviteResult, Invitation) {
    let now = service.clock.now();
    let invitation = Invitation {
        id: InvitationId::generate(now, &SystemEntropy),
        user: UserId::generate(now, &SystemEntropy),
        invitee,
        note: String::new(),
        created_at: now,
        expires_at: now.plus(Duration::from_secs(3600)),
        accepted_at: None,
    };
    let tenant = TenantId::parse("default").unwrap();
    let new = NewInvitation { tenant, invitation: invitation.clone(), profile: Profile::default() };
    (service.store.invite(new, author(service)).await.unwrap(), invitation)
}

fn address(address: &str) -> Invitee {
    Invitee::Email { address: address.to_owned(), provider: None }
}

fn subject(service: &Service, subject: &str) -> Invitee {
    let issuer = service.issuer.url.as_str().into();
    Invitee::Identity { provider: "acme".into(), issuer, subject: subject.into() }
}

#[tokio::test]
async fn an_invited_address_comes_in_once_and_as_the_user_that_was_pending() {
    let service = inviting("").await;
    let (_, invitation) = invite(&service, address("Ada@Example.com")).await;
    let token =
        |subject: &str, verified| mail(service.issuer.token().subject(subject), "ada@example.com", verified);
    let stranger = mail(service.issuer.token().subject("s"), "eve@example.com", true);
    service.sign_in(&stranger.sign()).await.expect(403, "user_not_provisioned");
    service.sign_in(&token("ada", false).sign()).await.expect(403, "user_not_provisioned");
    let (_, body) = sign_in(&service, token("ada", true)).await;
    assert_eq!(body["user_id"], invitation.user.to_string());
    assert_eq!((&body["user"]["status"], &body["user"]["email"]), (&"active".into(), &"ada@example.com".into()));
    service.sign_in(&token("second", true).sign()).await.expect(409, "account_exists");
    let (_, again) = sign_in(&service, token("ada", true)).await;
    assert_eq!(again["user_id"], body["user_id"]);
}

#[tokio::test]
async fn an_address_counts_only_of_a_provider_that_is_trusted_for_it() {
    let service = inviting("email_trust = [\"corp.example\"]").await;
    invite(&service, address("ada@example.com")).await;
    let token = mail(service.issuer.token(), "ada@example.com", true);
    service.sign_in(&token.sign()).await.expect(403, "user_not_provisioned");
}

#[tokio::test]
async fn an_invited_identity_needs_no_address_and_no_other_subject_fits() {
    let service = inviting("email_trust = \"never\"").await;
    invite(&service, subject(&service, "ada")).await;
    service.sign_in(&service.issuer.token().subject("eve").sign()).await.expect(403, "user_not_provisioned");
    sign_in(&service, service.issuer.token().subject("ada")).await;
}

#[tokio::test]
async fn an_invitation_ends_by_itself_and_can_be_taken_back_and_made_again() {
    let service = inviting("").await;
    let token = || mail(service.issuer.token(), "ada@example.com", true).sign();
    let (_, first) = invite(&service, address("ada@example.com")).await;
    assert_eq!(invite(&service, address("ADA@example.com")).await.0, InviteResult::AlreadyInvited);
    service.clock.advance(Duration::from_secs(3600));
    service.sign_in(&token()).await.expect(403, "user_not_provisioned");
    let (again, second) = invite(&service, address("ada@example.com")).await;
    assert_eq!(again, InviteResult::Invited);
    let tenant = TenantId::parse("default").unwrap();
    let other = TenantId::parse("other").unwrap();
    assert!(!service.store.revoke_invitation(&tenant, first.id, author(&service)).await.unwrap());
    assert!(!service.store.revoke_invitation(&other, second.id, author(&service)).await.unwrap());
    assert!(service.store.revoke_invitation(&tenant, second.id, author(&service)).await.unwrap());
    service.sign_in(&token()).await.expect(403, "user_not_provisioned");
    invite(&service, address("ada@example.com")).await;
    service.sign_in(&token()).await.signed_in();
    assert_eq!(invite(&service, address("ada@example.com")).await.0, InviteResult::AccountExists);
}

#[tokio::test]
async fn an_invitation_of_one_tenant_lets_nobody_into_another() {
    let service = inviting("").await;
    let now = service.clock.now();
    let (_, mut invitation) = invite(&service, address("someone@example.com")).await;
    invitation.id = InvitationId::generate(UnixTime::from_millis(now.as_millis() + 1), &SystemEntropy);
    invitation.user = UserId::generate(now, &SystemEntropy);
    invitation.invitee = address("ada@example.com");
    let tenant = TenantId::parse("other").unwrap();
    service
        .store
        .invite(NewInvitation { tenant, invitation, profile: Profile::default() }, author(&service))
        .await
        .unwrap();
    let token = mail(service.issuer.token(), "ada@example.com", true);
    service.sign_in(&token.sign()).await.expect(403, "user_not_provisioned");
}

#[tokio::test]
async fn thirty_sign_ins_at_once_accept_an_invitation_as_one_user() {
    let service = inviting("").await;
    let (_, invitation) = invite(&service, address("ada@example.com")).await;
    let tokens: Vec<String> =
        (0..30).map(|_| mail(service.issuer.token(), "ada@example.com", true).sign()).collect();
    for answer in futures_util::future::join_all(tokens.iter().map(|t| service.sign_in(t))).await {
        assert_eq!(answer.signed_in()["user_id"], invitation.user.to_string());
    }
}

#[tokio::test]
async fn a_pending_user_is_refused_on_every_path() {
    let service = Service::start().await;
    let (access, body) = sign_in(&service, service.issuer.token()).await;
    let user = body["user_id"].as_str().unwrap().parse().unwrap();
    service.store.set_user_status(user, UserStatus::Pending).await.unwrap();
    service.sign_in(&service.issuer.token().sign()).await.expect(403, "account_pending");
    service.get_with("/auth/me", &access).await.expect(403, "account_pending");
    let refresh = serde_json::json!({"refresh_token": body["refresh_token"]});
    service.post("/auth/refresh", refresh).await.expect(400, "invalid_refresh_token");
}
