// One line for each check, and 'N passed, N failed' at the end. Exit 0 only if none failed.
//
//   node run.mjs                 tokens of a real provider, and sign-ins at Countersign with them
//   node run.mjs --tokens-only   the provider's half alone: Countersign is not started

import assert from 'node:assert/strict';

import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose';

import { signInAtCountersign, startCountersign } from './countersign.mjs';
import { signInAtProvider } from './flow.mjs';
import { emailOf, startProvider } from './provider.mjs';

const ALGORITHMS = ['RS256', 'PS256', 'ES256', 'EdDSA'];
const clientOf = (algorithm) => `app-${algorithm.toLowerCase()}`;
// A user for each algorithm, and one whose sign-ins are refused: refusals count in a user's history.
const userOf = (algorithm) => `user-${algorithm.toLowerCase()}`;
const REFUSED_USER = 'user-refused';
// After a fetch of keys, unknown key ids do not cause another one for ten seconds.
const COOL_DOWN_MS = 10_500;

let passed = 0;
let failed = 0;

async function check(name, run) {
  try {
    const value = await run();
    passed += 1;
    console.log(`ok      ${name}`);
    return value;
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${String(error.message).split('\n').slice(0, 12).join(' | ')}`);
    return undefined;
  }
}

const refusal = async (countersign, body, status, error) => {
  const answer = await signInAtCountersign(countersign.base, body);
  assert.equal(answer.status, status, `status ${answer.status} ${answer.json.error}`);
  if (error) assert.equal(answer.json.error, error);
  assert.equal(answer.json.access_token, undefined);
  assert.equal(Math.floor(answer.json.code / 1000), status);
};

function providerChecks(provider, round) {
  return Promise.all(ALGORITHMS.map((algorithm) => check(
    `${round}: the provider issues an ID token with ${algorithm}, and jose verifies it`,
    async () => {
      const tokens = await signInAtProvider(provider, clientOf(algorithm), algorithm, userOf(algorithm));
      const header = decodeProtectedHeader(tokens.idToken);
      assert.equal(header.alg, algorithm);
      const keys = createRemoteJWKSet(new URL(`${provider.issuer}/jwks`));
      const { payload } = await jwtVerify(tokens.idToken, keys, {
        issuer: provider.issuer, audience: clientOf(algorithm), algorithms: [algorithm],
      });
      assert.equal(payload.sub, userOf(algorithm));
      assert.equal(payload.email, emailOf(userOf(algorithm)));
      assert.equal(payload.email_verified, true);
      assert.equal(payload.nonce, tokens.nonce);
      return { ...tokens, kid: header.kid };
    },
  )));
}

async function signInChecks(countersign, tokens, round) {
  for (const [index, algorithm] of ALGORITHMS.entries()) {
    const { idToken, nonce } = tokens[index] ?? {};
    if (!idToken) continue; // its check has failed already
    const body = { id_token: idToken, nonce };
    await check(`${round}: a sign-in with ${algorithm} gives tokens`, async () => {
      const answer = await signInAtCountersign(countersign.base, body);
      assert.equal(answer.status, 200, `status ${answer.status} ${answer.json.error}: ${answer.json.message}`);
      assert.equal(answer.json.requires_mfa, false, `a factor is asked for: ${answer.json.mfa_check_reason}`);
      assert.equal(answer.json.token_type, 'Bearer');
      assert.match(answer.headers.get('cache-control') ?? '', /no-store/);
      assert.equal(answer.json.user.email, emailOf(userOf(algorithm)));
      assert.ok(answer.json.refresh_token);
      const keys = createRemoteJWKSet(new URL(`${countersign.base}/.well-known/jwks.json`));
      const { payload } = await jwtVerify(answer.json.access_token, keys, {
        issuer: countersign.base, typ: 'at+jwt', algorithms: ['EdDSA'],
      });
      assert.equal(payload.sub, answer.json.user_id);
    });
    await check(`${round}: the same token with ${algorithm} is refused the second time`, () => (
      refusal(countersign, body, 401, 'id_token_replayed')
    ));
  }
}

async function main() {
  const tokensOnly = process.argv.includes('--tokens-only');
  const clients = Object.fromEntries(ALGORITHMS.map((algorithm) => [clientOf(algorithm), algorithm]));
  const provider = await startProvider({ ...clients, stranger: 'RS256', 'app-ed25519': 'Ed25519' });
  let countersign;
  try {
    if (!tokensOnly) {
      countersign = await check('countersign starts and is ready', () => startCountersign({
        issuer: provider.issuer,
        clientIds: [...Object.keys(clients), 'app-ed25519'],
        algorithms: ALGORITHMS,
      }));
    }
    const first = await providerChecks(provider, 'before rotation');
    const unused = await signInAtProvider(provider, clientOf('RS256'), 'RS256', REFUSED_USER);
    let fetchedAt = Date.now();
    if (countersign) {
      await signInChecks(countersign, first, 'before rotation');
      fetchedAt = Date.now();
      const stranger = await signInAtProvider(provider, 'stranger', 'RS256', REFUSED_USER);
      await check('a token for another client of the same provider is refused', () => (
        refusal(countersign, { id_token: stranger.idToken, nonce: stranger.nonce }, 401, 'id_token_audience_mismatch')
      ));
      await check('a token with another nonce than the request is refused', () => (
        refusal(countersign, { id_token: unused.idToken, nonce: 'another' }, 401)
      ));
    }
    await check('the provider names the algorithm Ed25519 (RFC 9864) when a client asks for that name', async () => {
      const { idToken, nonce } = await signInAtProvider(provider, 'app-ed25519', 'Ed25519', REFUSED_USER);
      assert.equal(decodeProtectedHeader(idToken).alg, 'Ed25519');
      if (!countersign) return;
      const { status } = await signInAtCountersign(countersign.base, { id_token: idToken, nonce });
      assert.ok(status < 500, `countersign answers ${status}`);
    });

    await provider.rotate();
    const second = await providerChecks(provider, 'after rotation');
    await check('after rotation every key has another id', () => {
      const before = new Set(first.map((t) => t?.kid));
      assert.ok(second.every((t) => t && !before.has(t.kid)));
    });
    if (countersign) {
      const pause = Math.max(0, fetchedAt + COOL_DOWN_MS - Date.now());
      await new Promise((done) => { setTimeout(done, pause); });
      await signInChecks(countersign, second, 'after rotation');
      await check('a token of a key that was withdrawn is refused', () => (
        refusal(countersign, { id_token: unused.idToken, nonce: unused.nonce }, 401)
      ));
    }
  } finally {
    if (countersign && failed > 0) console.error(countersign.output());
    await countersign?.stop();
    provider.close();
  }
}

try {
  await main();
} catch (error) {
  failed += 1;
  console.log(`FAILED  the run broke off: ${error.stack}`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
