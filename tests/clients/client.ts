// What an application in TypeScript does, with the client generated from the document. Names and types of
// this file are checked by the compiler: a field that the document does not have does not compile.

import assert from 'node:assert/strict';

import createClient from 'openapi-fetch';

import type { components, paths } from './out/schema.js';

type Login = components['schemas']['dto.LoginResponse'];
type Refusal = components['schemas']['dto.Error'];
type Step = readonly [name: string, run: () => Promise<void>];

/** What an application shows, by the stable word of a refusal. */
function advice(refusal: Refusal): 'new sign-in' | 'another code' | 'wait' | 'give up' {
  switch (refusal.error) {
    case 'invalid_mfa_code':
      return 'another code';
    case 'id_token_replayed':
    case 'id_token_expired':
    case 'challenge_used':
    case 'challenge_expired':
    case 'invalid_refresh_token':
    case 'session_ended':
      return 'new sign-in';
    case 'mfa_locked':
    case 'provider_unavailable':
      return 'wait';
    default:
      return 'give up';
  }
}

function present<T>(value: T | undefined, name: string): T {
  assert.ok(value !== undefined, `${name} is absent`);
  return value;
}

async function text(address: string, form?: Record<string, string>): Promise<string> {
  const response = await fetch(address, form ? { method: 'POST', body: new URLSearchParams(form) } : {});
  assert.equal(response.status, 200);
  return response.text();
}

export function steps(base: string): readonly Step[] {
  const client = createClient<paths>({ baseUrl: base });
  const idToken = () => text(`${base}/dev/token`, { sub: 'ada' });
  const bearer = (access: string) => ({ Authorization: `Bearer ${access}` });
  const signIn = async (token: string, device: string, country: string): Promise<Login> => {
    const { data, error } = await client.POST('/auth/id-token/signin', {
      body: { provider: 'dev', id_token: token, device_id: device },
      headers: { 'Countersign-Dev-Country': country },
    });
    if (error) throw new Error(`${error.code} ${error.error}: ${error.message}`);
    return data;
  };
  const answer = (challenge: string, code: string) => client.POST('/auth/mfa/verify-challenge', {
    body: { challenge_token: challenge, code, mfa_method: 'totp', device_id: 'phone' },
  });

  let challenge: string;
  let login: Login;
  let spent: string;

  return [
    ['a sign-in from home gives tokens', async () => {
      const home = await signIn(await idToken(), 'laptop', 'SE');
      assert.equal(home.requires_mfa, false);
      assert.equal(home.token_type, 'Bearer');
      assert.equal(present(home.user, 'user').username, 'ada');
      assert.equal(home.challenge_token, undefined);
    }],
    ['a sign-in from another country gives a challenge and no token', async () => {
      const away = await signIn(await idToken(), 'phone', 'BR');
      assert.equal(away.requires_mfa, true);
      assert.equal(away.access_token, undefined);
      assert.equal(away.user, undefined);
      assert.ok(present(away.required_mfa_methods, 'required_mfa_methods').includes('totp'));
      assert.ok(present(away.mfa_check_reason, 'mfa_check_reason').length > 0);
      const risk = present(away.risk_assessment, 'risk_assessment');
      assert.equal(risk.level, away.risk_level);
      assert.ok(Number.isInteger(risk.score));
      challenge = present(away.challenge_token, 'challenge_token');
    }],
    ['a wrong code is told apart from a lost session', async () => {
      const { error, response } = await answer(challenge, '000000x');
      assert.equal(response.status, 400);
      assert.equal(advice(present(error, 'error')), 'another code');
    }],
    ['the right code gives tokens', async () => {
      const { data, error } = await answer(challenge, await text(`${base}/dev/totp`));
      assert.ok(data, error?.message);
      assert.equal(data.requires_mfa, false);
      login = data;
    }],
    ['the challenge is good once', async () => {
      const { error } = await answer(challenge, '123456');
      assert.equal(present(error, 'error').error, 'challenge_used');
    }],
    ['a refresh gives another pair', async () => {
      spent = present(login.refresh_token, 'refresh_token');
      const { data, error } = await client.POST('/auth/refresh', { body: { refresh_token: spent } });
      assert.ok(data, error?.message);
      assert.notEqual(data.refresh_token, spent);
      login = data;
    }],
    ['/auth/me says who is signed in', async () => {
      const headers = bearer(present(login.access_token, 'access_token'));
      const { data, error } = await client.GET('/auth/me', { headers });
      assert.ok(data, error?.message);
      assert.equal(data.code, 0);
      assert.equal(data.data.id, login.user_id);
      assert.ok(!Number.isNaN(Date.parse(present(data.data.created_at, 'created_at'))));
    }],
    ['after the logout the access token opens nothing', async () => {
      const headers = bearer(present(login.access_token, 'access_token'));
      const { data, error } = await client.POST('/auth/logout', { headers });
      assert.ok(data, error?.message);
      const after = await client.GET('/auth/me', { headers });
      assert.equal(after.response.status, 401);
      assert.equal(advice(present(after.error, 'error')), 'new sign-in');
    }],
    ['nor does the refresh token', async () => {
      const { error, response } = await client.POST('/auth/refresh', {
        body: { refresh_token: present(login.refresh_token, 'refresh_token') },
      });
      assert.equal(response.status, 400);
      assert.equal(advice(present(error, 'error')), 'new sign-in');
    }],
  ];
}
