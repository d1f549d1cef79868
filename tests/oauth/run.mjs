// The OAuth endpoints of `serve --dev`, driven by openid-client here and by Authlib in client.py; access tokens
// are verified from the published keys by jose and by PyJWT. One line for each check, and 'N passed, N failed'
// at the end. Exit 0 only if none failed.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import * as jose from 'jose';
import * as oidc from 'openid-client';

import { check, failed, passed, tally } from '../clients/check.mjs';
import { withServer } from '../clients/server.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const venv = join(here, 'out/venv');
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ID_TOKEN = 'urn:ietf:params:oauth:token-type:id_token';
const SECRET = 'dev-web-secret-for-this-machine-only';

async function text(base, path, form) {
  const response = await fetch(base + path, form && { method: 'POST', body: new URLSearchParams(form) });
  return response.text();
}

async function subjectToken(base, sub) {
  return { subject_token: await text(base, '/dev/token', { sub }), subject_token_type: ID_TOKEN, device_id: `${sub}-1` };
}

const refused = (error, reason) => (caught) => {
  assert.equal(caught.error, error, caught.stack);
  if (reason) assert.equal(caught.cause?.reason, reason);
  return true;
};

async function javascript(base) {
  const plain = { execute: [oidc.allowInsecureRequests] };
  const discover = (id, secret, method) => oidc.discovery(new URL(base), id, secret, method, plain);
  const app = await check('openid-client discovers a public client', () => discover('dev-app', undefined, oidc.None()));
  const web = await check('openid-client discovers a client with a secret', () => (
    discover('dev-web', SECRET, oidc.ClientSecretBasic(SECRET))
  ));
  const posted = await check('and one that posts its secret', () => (
    discover('dev-web', SECRET, oidc.ClientSecretPost(SECRET))
  ));
  if (!app || !web || !posted) return;
  const metadata = app.serverMetadata();
  const jwks = jose.createRemoteJWKSet(new URL(metadata.jwks_uri));
  const verify = (token, audience = metadata.issuer) => (
    jose.jwtVerify(token, jwks, { issuer: metadata.issuer, audience, typ: 'at+jwt' })
  );
  const exchange = async (config, sub, more = {}, options) => (
    oidc.genericGrantRequest(config, EXCHANGE, { ...await subjectToken(base, sub), ...more }, options)
  );

  await check('openid-client, OAuth discovery: the same metadata', async () => {
    const other = await oidc.discovery(new URL(base), 'dev-app', undefined, oidc.None(), { ...plain, algorithm: 'oauth2' });
    assert.equal(other.serverMetadata().token_endpoint, metadata.token_endpoint);
  });
  for (const [name, config, client] of [['public', app, 'dev-app'], ['basic', web, 'dev-web'], ['post', posted, 'dev-web']]) {
    await check(`openid-client (${name}): exchange, refresh, introspection, revocation`, async () => {
      const tokens = await exchange(config, `user-${name}`);
      assert.equal(tokens.token_type, 'bearer');
      const { payload } = await verify(tokens.access_token);
      assert.equal(payload.client_id, client);
      const again = await oidc.refreshTokenGrant(config, tokens.refresh_token);
      assert.notEqual(again.refresh_token, tokens.refresh_token);
      const known = await oidc.tokenIntrospection(web, again.access_token);
      assert.equal(known.active, true);
      assert.equal(known.sub, payload.sub);
      await oidc.tokenRevocation(config, again.refresh_token);
      assert.deepEqual(await oidc.tokenIntrospection(web, again.access_token), { active: false });
      await assert.rejects(oidc.refreshTokenGrant(config, again.refresh_token), refused('invalid_grant', 'invalid_refresh_token'));
    });
  }
  await check('openid-client: an audience of the client, and none of another', async () => {
    const tokens = await exchange(app, 'aud', { audience: 'https://api.example.com' });
    await verify(tokens.access_token, 'https://api.example.com');
    await assert.rejects(verify(tokens.access_token), { code: 'ERR_JWT_CLAIM_VALIDATION_FAILED' });
    await assert.rejects(exchange(web, 'aud', { audience: 'https://api.example.com' }), refused('invalid_target'));
  });
  await check('openid-client: a wrong secret is invalid_client', async () => {
    const wrong = await discover('dev-web', 'wrong', oidc.ClientSecretBasic('wrong'));
    await assert.rejects(exchange(wrong, 'wrong'), (caught) => {
      assert.equal(caught.status, 401, caught.stack);
      return true;
    });
  });
  await check('openid-client: an ID token works once', async () => {
    const form = await subjectToken(base, 'once');
    await oidc.genericGrantRequest(app, EXCHANGE, form);
    await assert.rejects(oidc.genericGrantRequest(app, EXCHANGE, form), refused('invalid_request', 'id_token_replayed'));
  });
  await check('openid-client: DPoP binds tokens, refreshes and requests to its key', async () => {
    const handle = oidc.getDPoPHandle(app, await oidc.randomDPoPKeyPair('ES256'));
    const tokens = await exchange(app, 'bound', {}, { DPoP: handle });
    assert.equal(tokens.token_type, 'dpop');
    const { payload } = await verify(tokens.access_token);
    assert.equal(payload.cnf.jkt, await handle.calculateThumbprint());
    const again = await oidc.refreshTokenGrant(app, tokens.refresh_token, undefined, { DPoP: handle });
    const me = new URL('/auth/me', base);
    const fine = await oidc.fetchProtectedResource(app, again.access_token, me, 'GET', undefined, undefined, { DPoP: handle });
    assert.equal(fine.status, 200);
    const bearer = await fetch(me, { headers: { authorization: `Bearer ${again.access_token}` } });
    assert.equal(bearer.status, 401);
    assert.match(bearer.headers.get('www-authenticate'), /^DPoP /);
    const thief = oidc.getDPoPHandle(app, await oidc.randomDPoPKeyPair('EdDSA'));
    await assert.rejects(oidc.refreshTokenGrant(app, again.refresh_token, undefined, { DPoP: thief }), refused('invalid_dpop_proof'));
  });
  await check('openid-client: a demand for a second factor is mfa_required with a challenge', async () => {
    const form = { ...await subjectToken(base, 'ada'), device_id: 'far-away', grant_type: EXCHANGE, client_id: 'dev-app' };
    const home = await fetch(`${base}/oauth/token`, {
      method: 'POST', body: new URLSearchParams({ ...form, device_id: 'laptop' }), headers: { 'countersign-dev-country': 'SE' },
    });
    assert.equal(home.status, 200, await home.clone().text());
    const away = await fetch(`${base}/oauth/token`, {
      method: 'POST',
      body: new URLSearchParams({ ...form, ...await subjectToken(base, 'ada'), device_id: 'far-away' }),
      headers: { 'countersign-dev-country': 'BR', 'user-agent': 'another/1' },
    });
    const demand = await away.json();
    assert.equal(away.status, 403, JSON.stringify(demand));
    assert.equal(demand.error, 'mfa_required');
    const answered = await fetch(`${base}/auth/mfa/verify-challenge`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ challenge_token: demand.challenge_token, device_id: 'far-away', code: await text(base, '/dev/totp') }),
    });
    const tokens = await answered.json();
    assert.equal(answered.status, 200, JSON.stringify(tokens));
    assert.equal((await verify(tokens.access_token)).payload.client_id, 'dev-app');
    await oidc.refreshTokenGrant(app, tokens.refresh_token);
  });
}

function run(program, args) {
  return new Promise((done, fail) => {
    const child = spawn(program, args, { cwd: here, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => { output += chunk; });
    child.stderr.on('data', (chunk) => { output += chunk; });
    child.once('error', fail);
    child.once('exit', (code) => (code === 0 ? done(output) : fail(new Error(`exit ${code}: ${output}`))));
  });
}

async function python(base) {
  const installed = await check('Authlib and PyJWT install', async () => {
    if (existsSync(join(venv, 'done'))) return true;
    await mkdir(join(here, 'out'), { recursive: true });
    await run('python3', ['-m', 'venv', venv]);
    await run(join(venv, 'bin/pip'), ['install', '--quiet', '--disable-pip-version-check', '-r', 'requirements.txt']);
    await run('touch', [join(venv, 'done')]);
    return true;
  });
  if (!installed) return;
  const output = await run(join(venv, 'bin/python'), ['client.py', base]);
  for (const line of output.trim().split('\n')) {
    const [, word, name] = line.match(/^(ok|FAILED) +(.*)$/) ?? [];
    if (word === 'ok') passed(name); else failed(name ?? 'python', name ? 'see above' : line);
  }
}

try {
  await withServer(async (base) => {
    await javascript(base);
    await python(base);
  });
} catch (error) {
  failed('the run broke off', error.stack);
}
console.log(`${tally.passed} passed, ${tally.failed} failed`);
process.exit(tally.failed === 0 ? 0 : 1);
