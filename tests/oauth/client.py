"""What an application in Python does at the OAuth endpoints, by Authlib; tokens are checked by PyJWT.

Usage: client.py ADDRESS. Prints one line for each check.
"""

import os
import sys
import traceback
import urllib.parse
import urllib.request

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # the development server is on loopback

import jwt  # noqa: E402
from authlib.integrations.base_client.errors import OAuthError  # noqa: E402
from authlib.integrations.requests_client import OAuth2Session  # noqa: E402

BASE = sys.argv[1]
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
SECRET = "dev-web-secret-for-this-machine-only"


def id_token(sub):
    data = urllib.parse.urlencode({"sub": sub}).encode()
    with urllib.request.urlopen(BASE + "/dev/token", data) as response:
        return response.read().decode()


def session(client, secret=None, method="none"):
    return OAuth2Session(client, secret, token_endpoint_auth_method=method)


def exchange(oauth, sub, **more):
    return oauth.fetch_token(
        BASE + "/oauth/token",
        grant_type=EXCHANGE,
        subject_token=id_token(sub),
        subject_token_type=ID_TOKEN,
        **more,
    )


def verified(token):
    key = jwt.PyJWKClient(BASE + "/.well-known/jwks.json").get_signing_key_from_jwt(token)
    return jwt.decode(token, key, algorithms=["EdDSA"], audience=BASE, issuer=BASE)


def whole_life(client, secret, method):
    oauth = session(client, secret, method)
    first = exchange(oauth, f"py-{method}")
    claims = verified(first["access_token"])
    assert claims["client_id"] == client and claims["sub"].startswith("usr_"), claims
    second = oauth.refresh_token(BASE + "/oauth/token", refresh_token=first["refresh_token"])
    assert second["refresh_token"] != first["refresh_token"]
    assert verified(second["access_token"])["sid"] == claims["sid"]
    asking = session("dev-web", SECRET, "client_secret_basic")
    known = asking.introspect_token(BASE + "/oauth/introspect", token=second["access_token"]).json()
    assert known["active"] is True and known["sid"] == claims["sid"], known
    gone = oauth.revoke_token(BASE + "/oauth/revoke", token=second["refresh_token"])
    assert gone.status_code == 200, gone.text
    known = asking.introspect_token(BASE + "/oauth/introspect", token=second["access_token"]).json()
    assert known == {"active": False}, known


def refused(call):
    try:
        call()
    except OAuthError as error:
        return error.error
    raise AssertionError("it was not refused")


class Application:
    def a_public_client_lives_its_whole_life(self):
        whole_life("dev-app", None, "none")

    def a_client_with_a_secret_in_the_header(self):
        whole_life("dev-web", SECRET, "client_secret_basic")

    def a_client_with_a_secret_in_the_form(self):
        whole_life("dev-web", SECRET, "client_secret_post")

    def refusals_have_the_words_of_the_rfcs(self):
        app = session("dev-app")
        bad = session("dev-web", "wrong", "client_secret_post")
        assert refused(lambda: exchange(bad, "py-bad")) == "invalid_client"
        assert refused(lambda: exchange(app, "py-aud", audience="https://other.example")) == "invalid_target"
        assert refused(lambda: exchange(app, "py-scope", scope="all")) == "invalid_scope"
        token = exchange(app, "py-reuse")["refresh_token"]
        other = session("dev-web", SECRET, "client_secret_basic")
        stolen = lambda: other.refresh_token(BASE + "/oauth/token", refresh_token=token)  # noqa: E731
        assert refused(stolen) == "invalid_grant"
        app.refresh_token(BASE + "/oauth/token", refresh_token=token)

    def a_token_for_another_audience_is_not_for_this_server(self):
        token = exchange(session("dev-app"), "py-api", audience="https://api.example.com")["access_token"]
        try:
            verified(token)
        except jwt.InvalidAudienceError:
            return
        raise AssertionError("it was taken")


application = Application()
for name in [n for n in vars(Application) if not n.startswith("_")]:
    try:
        getattr(application, name)()
        print(f"ok      python: {name.replace('_', ' ')}")
    except Exception as problem:
        line = traceback.extract_tb(problem.__traceback__)[-1].lineno
        print(f"FAILED  python: {name.replace('_', ' ')}: line {line}: {problem!r}")
