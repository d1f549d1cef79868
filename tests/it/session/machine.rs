//! Sessions against a small model: whatever is done in whatever order, each token opens what the model says.

use std::time::Duration;

use countersign::admin::audit::Author;
use countersign::clock::Clock;
use countersign::ids::UserId;
use countersign::secret::SystemEntropy;
use countersign::session::rotation::Rotate;
use countersign::signin::user::UserStatus;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::service::{Answer, Service, Setup};

const ACCESS_S: i64 = 600;
const REFRESH_S: i64 = 3600;
const SESSION_S: i64 = 3 * 3600;
const GRACE_S: i64 = 10;
const LIMIT: usize = 3;
const USERS: usize = 2;

/// Sessions and tokens are chosen by number, modulo how many there are.
#[derive(Debug, Clone)]
enum Step {
    SignIn { user: usize },
    Refresh { session: usize, token: usize },
    RefreshNewest { session: usize },
    Me { session: usize, access: usize },
    LogOut { session: usize },
    EndAll { session: usize, keep_current: bool },
    SetActive { user: usize, active: bool },
    Advance { seconds: i64 },
    Rotate { compromised: bool },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..USERS).prop_map(|user| Step::SignIn { user }),
        6 => any::<usize>().prop_map(|session| Step::RefreshNewest { session }),
        4 => any::<(usize, usize)>().prop_map(|(session, token)| Step::Refresh { session, token }),
        5 => any::<(usize, usize)>().prop_map(|(session, access)| Step::Me { session, access }),
        2 => any::<usize>().prop_map(|session| Step::LogOut { session }),
        1 => any::<(usize, bool)>().prop_map(|(session, keep_current)| Step::EndAll { session, keep_current }),
        2 => (0..USERS, any::<bool>()).prop_map(|(user, active)| Step::SetActive { user, active }),
        5 => prop_oneof![Just(1), Just(9), Just(10), Just(599), Just(600), Just(3599), Just(3600)]
            .prop_map(|seconds| Step::Advance { seconds }),
        1 => any::<bool>().prop_map(|compromised| Step::Rotate { compromised }),
        1 => Just(Step::Restart),
    ]
}

struct Refresh {
    token: String,
    expires: i64,
    used: Option<i64>,
}

struct Access {
    token: String,
    expires: i64,
    keys: usize,
}

struct Session {
    user: usize,
    ended: bool,
    ends: i64,
    idle: i64,
    refreshes: Vec<Refresh>,
    accesses: Vec<Access>,
}

impl Session {
    fn lives(&self, now: i64) -> bool {
        !self.ended && now < self.ends && now < self.idle
    }
}

struct Model {
    sessions: Vec<Session>,
    active: [bool; USERS],
    ids: [Option<UserId>; USERS],
    /// How often all earlier keys were declared compromised.
    keys: usize,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn setup() -> Setup {
    let more_config = "[tokens]\naccess_ttl = \"10m\"\nrefresh_ttl = \"1h\"\nrefresh_grace = \"10s\"\n".to_owned();
    Setup { more_config, ..Setup::tenant(&format!("session_ttl = \"3h\"\nmax_sessions = {LIMIT}")) }
}

impl Model {
    fn new() -> Self {
        Self { sessions: Vec::new(), active: [true; USERS], ids: [None; USERS], keys: 0 }
    }

    /// Takes the tokens of an answer into a session.
    fn take(&mut self, session: usize, answer: &Answer, now: i64) {
        let body = answer.signed_in();
        let keys = self.keys;
        let session = &mut self.sessions[session];
        let lifetime = ACCESS_S.min(session.ends - now);
        assert_eq!(body["expires_in"], lifetime);
        session.accesses.push(Access { token: text(&body["access_token"]), expires: now + lifetime, keys });
        let token = text(&body["refresh_token"]);
        if session.refreshes.last().is_some_and(|newest| newest.token == token) {
            return;
        }
        let expires = (now + REFRESH_S).min(session.ends);
        session.idle = expires.max(now + ACCESS_S);
        session.refreshes.push(Refresh { token, expires, used: None });
    }

    async fn sign_in(&mut self, service: &Service, user: usize) {
        service.clock.advance(Duration::from_secs(1));
        let now = service.clock.now_s();
        let token = service.issuer.token().subject(&format!("user-{user}")).sign();
        let answer = service.sign_in(&token).await;
        if !self.active[user] {
            answer.expect(403, "account_disabled");
            return;
        }
        self.ids[user] = Some(text(&answer.signed_in()["user_id"]).parse().unwrap());
        let (ends, idle) = (now + SESSION_S, now);
        self.sessions.push(Session { user, ended: false, ends, idle, refreshes: vec![], accesses: vec![] });
        self.take(self.sessions.len() - 1, &answer, now);
        let living = self.sessions.iter_mut().rev().filter(|s| s.user == user && s.lives(now));
        living.skip(LIMIT).for_each(|oldest| oldest.ended = true);
    }

    async fn refresh(&mut self, service: &Service, number: usize, token: usize) {
        let now = service.clock.now_s();
        let refreshes = &self.sessions[number].refreshes;
        let token = token % refreshes.len();
        let held = json!({"refresh_token": refreshes[token].token});
        let answer = service.post("/auth/refresh", held).await;
        let newest = refreshes.len() - 1;
        let (used, expires) = (refreshes[token].used, refreshes[token].expires);
        let session = &mut self.sessions[number];
        if !session.lives(now) {
            answer.expect(400, "invalid_refresh_token");
        } else if !self.active[session.user] {
            answer.expect(400, "invalid_refresh_token");
            session.ended = true;
        } else if let Some(used) = used {
            let successor_unused = token + 1 == newest;
            if now < used + GRACE_S && successor_unused {
                assert_eq!(answer.signed_in()["refresh_token"], session.refreshes[newest].token.as_str());
                self.take(number, &answer, now);
            } else {
                answer.expect(400, "refresh_token_reused");
                session.ended = true;
            }
        } else if now >= expires {
            answer.expect(400, "invalid_refresh_token");
        } else {
            session.refreshes[token].used = Some(now);
            self.take(number, &answer, now);
            assert_eq!(self.sessions[number].refreshes.len(), newest + 2, "a new token");
        }
    }

    /// What an access token opens: `None` when it is good.
    fn refusal(&self, session: &Session, access: &Access, now: i64) -> Option<(u16, &'static str)> {
        if access.keys != self.keys {
            Some((401, "invalid_access_token"))
        } else if now >= access.expires {
            Some((401, "access_token_expired"))
        } else if !session.lives(now) {
            Some((401, "session_ended"))
        } else if !self.active[session.user] {
            Some((403, "account_disabled"))
        } else {
            None
        }
    }

    /// Asks with an access token; whether it was good.
    async fn ask(&self, service: &Service, method: &str, path: &str, number: usize, access: usize) -> bool {
        let now = service.clock.now_s();
        let session = &self.sessions[number];
        let access = &session.accesses[access % session.accesses.len()];
        let method = method.parse().unwrap();
        let request = service.http().request(method, service.url(path)).bearer_auth(&access.token);
        let answer = service.send(request).await;
        match self.refusal(session, access, now) {
            Some((status, error)) => {
                answer.expect(status, error);
                false
            }
            None => {
                assert_eq!(answer.status, 200, "{}", answer.text);
                if path == "/auth/me/sessions" && answer.body["sessions"].is_array() {
                    let living = self.sessions.iter().filter(|s| s.user == session.user && s.lives(now)).count();
                    assert_eq!(answer.body["sessions"].as_array().unwrap().len(), living);
                }
                true
            }
        }
    }

    async fn apply(&mut self, service: Service, step: Step) -> Service {
        let count = self.sessions.len();
        match step {
            Step::SignIn { user } => self.sign_in(&service, user).await,
            Step::Advance { seconds } => service.clock.advance(Duration::from_secs(seconds.unsigned_abs())),
            Step::Restart => return service.restart(setup()).await,
            Step::Rotate { compromised } => {
                let how = if compromised { Rotate::Compromised } else { Rotate::Now };
                let author = Author::command_line(None, service.clock.now(), &SystemEntropy);
                service.keys().rotate(how, &author).await.unwrap();
                self.keys += usize::from(compromised);
            }
            Step::SetActive { user, active } => {
                if let Some(id) = self.ids[user] {
                    let status = if active { UserStatus::Active } else { UserStatus::Disabled };
                    service.store.set_user_status(id, status).await.unwrap();
                    self.active[user] = active;
                }
            }
            _ if count == 0 => {}
            Step::Refresh { session, token } => self.refresh(&service, session % count, token).await,
            Step::RefreshNewest { session } => {
                let newest = self.sessions[session % count].refreshes.len() - 1;
                self.refresh(&service, session % count, newest).await;
            }
            Step::Me { session, access } => {
                self.ask(&service, "GET", "/auth/me/sessions", session % count, access).await;
            }
            Step::LogOut { session } => {
                let newest = self.sessions[session % count].accesses.len() - 1;
                if self.ask(&service, "POST", "/auth/logout", session % count, newest).await {
                    self.sessions[session % count].ended = true;
                }
            }
            Step::EndAll { session, keep_current } => {
                let (number, path) = (session % count, format!("/auth/me/sessions?keep_current={keep_current}"));
                let newest = self.sessions[number].accesses.len() - 1;
                if self.ask(&service, "DELETE", &path, number, newest).await {
                    let user = self.sessions[number].user;
                    for (other, session) in self.sessions.iter_mut().enumerate().filter(|(_, s)| s.user == user) {
                        session.ended |= !(keep_current && other == number);
                    }
                }
            }
        }
        service
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_token_opens_what_the_model_says_whatever_was_done(steps in prop::collection::vec(step(), 10..60)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut service = Service::start_with(setup()).await;
            let mut model = Model::new();
            for step in steps {
                service = model.apply(service, step).await;
            }
            for number in 0..model.sessions.len() {
                for access in 0..model.sessions[number].accesses.len() {
                    model.ask(&service, "GET", "/auth/me", number, access).await;
                }
            }
        });
    }
}
