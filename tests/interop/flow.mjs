// A user through the authorization code flow with PKCE, by a certified relying party library and a plain
// HTTP client in the browser's place.

import * as client from 'openid-client';

/**
 * Gives `{idToken, nonce}` as an application would hold them after a sign-in. The provider's access token is
 * left aside: ID tokens of this flow carry no `at_hash` (it is optional, OpenID Connect Core 3.1.3.6).
 */
export async function signInAtProvider({ issuer, redirectUri }, clientId, algorithm, user) {
  const options = { execute: [client.allowInsecureRequests] };
  const metadata = { id_token_signed_response_alg: algorithm };
  const config = await client.discovery(new URL(issuer), clientId, metadata, client.None(), options);
  client.enableNonRepudiationChecks(config); // the library verifies the signature as well
  const verifier = client.randomPKCECodeVerifier();
  const nonce = client.randomNonce();
  const state = client.randomState();
  const url = client.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: 'openid email profile',
    login_hint: user,
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    nonce,
    state,
  });
  const callback = await browse(url, redirectUri);
  const checks = { pkceCodeVerifier: verifier, expectedNonce: nonce, expectedState: state, idTokenExpected: true };
  const tokens = await client.authorizationCodeGrant(config, callback, checks);
  return { idToken: tokens.id_token, nonce };
}

/** Follows redirects with cookies until one leads back to the application. */
async function browse(start, redirectUri) {
  const cookies = new Map();
  let url = start;
  for (let step = 0; step < 10; step += 1) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(url, { redirect: 'manual', headers: cookie ? { cookie } : {} });
    for (const line of response.headers.getSetCookie()) {
      const [pair] = line.split(';');
      const at = pair.indexOf('=');
      const value = pair.slice(at + 1);
      if (value) cookies.set(pair.slice(0, at), value); else cookies.delete(pair.slice(0, at));
    }
    const location = response.headers.get('location');
    if (!location) throw new Error(`status ${response.status} at ${url.pathname}: ${await response.text()}`);
    url = new URL(location, url);
    if (url.href.startsWith(redirectUri)) return url;
  }
  throw new Error('ten redirects led nowhere');
}
