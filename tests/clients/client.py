"""What an application in Python does, with the client generated from the document.

Usage: client.py FOLDER_OF_THE_PACKAGE ADDRESS. Prints one line for each check.
"""

import sys
import traceback
import urllib.parse
import urllib.request

sys.path.insert(0, sys.argv[1])
BASE = sys.argv[2]

from countersign_client import AuthenticatedClient, Client  # noqa: E402
from countersign_client.api.me import get_me  # noqa: E402
from countersign_client.api.mfa import verify_mfa_challenge  # noqa: E402
from countersign_client.api.operations import get_jwks  # noqa: E402
from countersign_client.api.session import logout, refresh  # noqa: E402
from countersign_client.api.sign_in import sign_in_with_id_token  # noqa: E402
from countersign_client.models import (  # noqa: E402
    DtoError,
    DtoIDTokenSignInRequest,
    DtoLoginResponse,
    DtoLogoutRequest,
    DtoRefreshRequest,
    DtoRiskLevel,
    DtoUserInfoResponse,
    DtoVerifyChallengeRequest,
)


def text(path, **form):
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(BASE + path, data) as response:
        return response.read().decode()


def sign_in(token, device, country):
    client = Client(base_url=BASE, headers={"Countersign-Dev-Country": country})
    body = DtoIDTokenSignInRequest(id_token=token, provider="dev", device_id=device)
    return sign_in_with_id_token.sync(client=client, body=body)


class Application:
    def a_sign_in_from_home_gives_tokens(self):
        self.token = text("/dev/token", sub="ada")
        login = sign_in(self.token, "laptop", "SE")
        assert isinstance(login, DtoLoginResponse), login
        assert login.requires_mfa is False
        assert login.risk_level is DtoRiskLevel.LOW
        assert login.user.created_at.tzinfo is not None

    def the_same_token_is_refused_by_its_word(self):
        refusal = sign_in(self.token, "laptop", "SE")
        assert isinstance(refusal, DtoError), refusal
        assert refusal.error == "id_token_replayed", refusal.error

    def a_challenge_is_answered(self):
        away = sign_in(text("/dev/token", sub="ada"), "phone", "BR")
        assert away.requires_mfa is True and not away.access_token, away
        body = DtoVerifyChallengeRequest(
            challenge_token=away.challenge_token, code=text("/dev/totp"), device_id="phone"
        )
        self.login = verify_mfa_challenge.sync(client=Client(base_url=BASE), body=body)
        assert isinstance(self.login, DtoLoginResponse), self.login

    def a_refresh_gives_another_pair(self):
        body = DtoRefreshRequest(refresh_token=self.login.refresh_token)
        after = refresh.sync(client=Client(base_url=BASE), body=body)
        assert after.refresh_token != self.login.refresh_token
        self.login = after

    def me_says_who_is_signed_in(self):
        client = AuthenticatedClient(base_url=BASE, token=self.login.access_token)
        me = get_me.sync(client=client)
        assert isinstance(me, DtoUserInfoResponse), me
        assert me.data.username == "ada"

    def the_published_keys_hold_the_one_that_signed(self):
        keys = get_jwks.sync(client=Client(base_url=BASE)).keys
        assert [key.alg for key in keys] == ["EdDSA"]

    def the_logout_ends_the_session(self):
        client = AuthenticatedClient(base_url=BASE, token=self.login.access_token)
        logout.sync(client=client, body=DtoLogoutRequest(refresh_token=self.login.refresh_token))
        refusal = get_me.sync(client=client)
        assert isinstance(refusal, DtoError) and refusal.error == "session_ended", refusal


application = Application()
for name in [n for n in vars(Application) if not n.startswith("_")]:
    try:
        getattr(application, name)()
        print(f"ok      python: {name.replace('_', ' ')}")
    except Exception as problem:
        line = traceback.extract_tb(problem.__traceback__)[-1].lineno
        print(f"FAILED  python: {name.replace('_', ' ')}: line {line}: {problem!r}")
