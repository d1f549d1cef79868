// A certified OpenID provider on loopback. Whoever `login_hint` names is signed in without being asked.

import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';

import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

export const emailOf = (sub) => `${sub}@example.com`;

// Name of the algorithm -> how its key is made. One RSA key serves both RSA algorithms.
const KEYS = { RS256: ['RS256'], ES256: ['ES256'], EdDSA: ['Ed25519'] };

async function newKeys() {
  const keys = await Promise.all(Object.values(KEYS).map(async ([algorithm]) => {
    const { privateKey } = await generateKeyPair(algorithm, { extractable: true });
    return { ...(await exportJWK(privateKey)), kid: randomUUID(), use: 'sig' };
  }));
  return { keys };
}

/**
 * Starts the provider.
 *
 * @param {Record<string, string>} clients client id -> id_token_signed_response_alg
 */
export async function startProvider(clients) {
  let answer;
  const server = createServer((request, response) => answer(request, response));
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const redirectUri = `${issuer}/app/callback`; // nobody listens there: the flow reads the redirect itself

  async function rotate() {
    const provider = new Provider(issuer, configuration(clients, redirectUri, await newKeys()));
    const handle = provider.callback();
    answer = (request, response) => (request.url.startsWith('/interaction/')
      ? interact(provider, request, response)
      : handle(request, response));
  }

  await rotate();
  return { issuer, redirectUri, rotate, close: () => server.close() };
}

function configuration(clients, redirectUri, jwks) {
  return {
    jwks,
    clients: Object.entries(clients).map(([clientId, algorithm]) => ({
      client_id: clientId,
      application_type: 'native',
      redirect_uris: [redirectUri],
      response_types: ['code'],
      grant_types: ['authorization_code'],
      token_endpoint_auth_method: 'none',
      id_token_signed_response_alg: algorithm,
    })),
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'] },
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
    conformIdTokenClaims: false, // the claims of the scopes stand in the ID token itself
    cookies: { keys: [randomUUID()] },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    pkce: { required: () => true },
    ttl: { IdToken: 300, AccessToken: 300, Session: 600, Interaction: 600, Grant: 600 },
    findAccount: (_, sub) => ({
      accountId: sub,
      claims: () => ({ sub, name: sub, email: emailOf(sub), email_verified: true }),
    }),
  };
}

async function interact(provider, request, response) {
  try {
    const { prompt, params, session } = await provider.interactionDetails(request, response);
    if (prompt.name === 'login') {
      return await provider.interactionFinished(request, response, { login: { accountId: params.login_hint } });
    }
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    return await provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } });
  } catch (error) {
    response.writeHead(500).end(String(error));
    return undefined;
  }
}
