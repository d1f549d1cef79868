// Real answers held against the document: status, media type, headers and every member of the body. A
// member that the schema does not name is a fault as well, and so is a refusal that the operation does not list.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';

import Ajv from 'ajv';
import addFormats from 'ajv-formats';

import { check } from './check.mjs';

const JSON_TYPE = 'application/json';

/** Checks of values against schemas of the document. */
function validatorOf(document) {
  const ajv = new Ajv({ allErrors: true, strict: false });
  addFormats(ajv);
  const natural = (most) => ({ type: 'number', validate: (n) => Number.isInteger(n) && n >= 0 && n <= most });
  ajv.addFormat('uint32', natural(2 ** 32 - 1));
  ajv.addFormat('uint64', natural(Number.MAX_SAFE_INTEGER));
  const closed = structuredClone(document);
  for (const schema of Object.values(closed.components.schemas)) {
    if (schema.type === 'object') schema.additionalProperties = false;
  }
  ajv.addSchema(closed, 'document');
  return (pointer, value, place) => {
    const validate = ajv.compile({ $ref: `document#${pointer}` });
    assert.ok(validate(value), `${place}: ${ajv.errorsText(validate.errors)}`);
  };
}

const escaped = (name) => name.replaceAll('~', '~0').replaceAll('/', '~1');

function operationsOf(document) {
  return Object.entries(document.paths).flatMap(([path, item]) => (
    Object.entries(item).map(([method, operation]) => ({ path, method, operation }))
  ));
}

/** Every example of the document fits its schema. */
function examplesFit(document, validate) {
  let count = 0;
  for (const { path, method, operation } of operationsOf(document)) {
    const at = `/paths/${escaped(path)}/${method}`;
    const request = operation.requestBody?.content[JSON_TYPE];
    if (request) {
      validate(`${at}/requestBody/content/${escaped(JSON_TYPE)}/schema`, request.example, `${method} ${path}`);
      count += 1;
    }
    for (const [status, response] of Object.entries(operation.responses)) {
      const pointer = `${at}/responses/${status}/content/${escaped(JSON_TYPE)}/schema`;
      for (const [name, { value }] of Object.entries(response.content?.[JSON_TYPE]?.examples ?? {})) {
        validate(pointer, value, `${method} ${path} ${status} ${name}`);
        count += 1;
      }
    }
  }
  assert.ok(count > 50, `only ${count} examples`);
}

/** The code of an authenticator app (RFC 6238: SHA-1, six digits, 30 s). */
function totp(secret) {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const bits = [...secret].map((c) => alphabet.indexOf(c).toString(2).padStart(5, '0')).join('');
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const mac = createHmac('sha1', key).update(counter).digest();
  const number = mac.readUInt32BE(mac[19] & 15) & 0x7fff_ffff;
  return String(number % 1_000_000).padStart(6, '0');
}

export async function answerChecks(document, base) {
  const validate = validatorOf(document);
  const find = (id) => operationsOf(document).find(({ operation }) => operation.operationId === id);
  await check('every example of the document fits its schema', () => examplesFit(document, validate));

  /** Calls an operation as it is documented, and holds the answer against the document. */
  async function call(id, { body, raw, headers, type = JSON_TYPE } = {}) {
    const { path, method, operation } = find(id);
    const content = raw ?? (body === undefined ? undefined : JSON.stringify(body));
    const response = await fetch(base + path, {
      method: method.toUpperCase(),
      headers: { ...(content === undefined ? {} : { 'content-type': type }), ...headers },
      body: content,
    });
    const text = await response.text();
    const place = `${id} ${response.status}`;
    const described = operation.responses[response.status];
    assert.ok(described, `${place}: the operation does not list this status: ${text}`);
    const media = response.headers.get('content-type').split(';')[0];
    assert.ok(described.content[media], `${place}: ${media} is not listed`);
    for (const [name, { required }] of Object.entries(described.headers ?? {})) {
      const here = response.headers.has(name);
      assert.ok(here || !required, `${place}: the header ${name} is absent`);
    }
    if (media !== JSON_TYPE) return { status: response.status, json: text };
    const at = `/paths/${escaped(path)}/${method}/responses/${response.status}`;
    const json = JSON.parse(text);
    validate(`${at}/content/${escaped(JSON_TYPE)}/schema`, json, place);
    if (response.status !== 200) {
      assert.ok(described.content[JSON_TYPE].examples[json.error], `${place}: ${json.error} is not listed`);
      assert.equal(described.content[JSON_TYPE].examples[json.error].value.code, json.code);
      assert.equal(Math.floor(json.code / 1000), response.status);
      assert.equal(json.request_id, response.headers.get('x-request-id'));
    }
    return { status: response.status, json };
  }

  const token = async (claims) => {
    const response = await fetch(`${base}/dev/token`, { method: 'POST', body: new URLSearchParams(claims) });
    assert.equal(response.status, 200, await response.clone().text());
    return response.text();
  };
  const signIn = async (claims, country, more = {}) => call('signInWithIdToken', {
    body: { provider: 'dev', device_id: `${claims.sub}-${country}`, id_token: await token(claims), ...more },
    headers: { 'countersign-dev-country': country },
  });
  const success = (name, run) => check(`success: ${name}`, async () => {
    const { status, json } = await run();
    assert.equal(status, 200, `status ${status}: ${json.error} ${json.message}`);
    return json;
  });
  const refusal = (error, name, run) => check(`refusal ${error}: ${name}`, async () => {
    const { status, json } = await run();
    assert.notEqual(status, 200);
    assert.equal(json.error, error, `${json.code} ${json.error}: ${json.message}`);
    return json;
  });

  // What succeeds.
  for (const id of ['healthLive', 'healthReady', 'metrics', 'getJwks', 'issueNonce']) {
    await success(id, () => call(id));
  }
  const home = await success('signInWithIdToken, tokens', () => signIn({ sub: 'ada' }, 'SE'));
  const away = await success('signInWithIdToken, a challenge', () => signIn({ sub: 'ada' }, 'BR'));
  const answer = (challenge, code, more = {}) => call('verifyMfaChallenge', {
    body: { challenge_token: challenge, code, device_id: 'ada-BR', ...more },
  });
  await refusal('mfa_method_not_allowed', 'a method that the challenge does not take', () => (
    answer(away.challenge_token, '123456', { mfa_method: 'sms' })
  ));
  await refusal('invalid_challenge', 'from another device', () => (
    answer(away.challenge_token, '123456', { device_id: 'another' })
  ));
  await refusal('invalid_mfa_code', 'no code', () => answer(away.challenge_token, ''));
  await success('verifyMfaChallenge', async () => {
    const code = await (await fetch(`${base}/dev/totp`)).text();
    return answer(away.challenge_token, code);
  });
  await refusal('challenge_used', 'answered twice', () => answer(away.challenge_token, '123456'));
  const next = await success('refresh', () => call('refresh', { body: { refresh_token: home.refresh_token } }));
  const bearer = { authorization: `Bearer ${next?.access_token}` };
  await success('getMe', () => call('getMe', { headers: bearer }));

  const claims = { sub: 'bea', email: 'bea@example.com', email_verified: 'true', name: 'Bea' };
  const bea = await success('signInWithIdToken, a new user', () => signIn(claims, 'SE', { profile: { name: 'B' } }));
  const own = { authorization: `Bearer ${bea?.access_token}` };
  const pending = await success('beginTotpEnrolment', () => call('beginTotpEnrolment', { headers: own }));
  await refusal('invalid_mfa_code', 'the enrolment with a wrong code', () => (
    call('confirmTotpEnrolment', { headers: own, body: { factor_id: pending.factor_id, code: 'wrong' } })
  ));
  await refusal('unknown_factor', 'an enrolment that nobody began', () => (
    call('confirmTotpEnrolment', { headers: own, body: { factor_id: 'fac_0', code: '123456' } })
  ));
  await success('confirmTotpEnrolment', () => (
    call('confirmTotpEnrolment', { headers: own, body: { factor_id: pending.factor_id, code: totp(pending.secret) } })
  ));
  const listed = await success('listMyFactors', () => call('listMyFactors', { headers: own }));
  await check('the enrolled factor is listed', () => assert.equal(listed.factors.length, 1));
  await success('logout', () => call('logout', { headers: bearer }));
  await refusal('session_ended', 'the access token after the logout', () => call('getMe', { headers: bearer }));
  await refusal('invalid_refresh_token', 'the refresh token after the logout', () => (
    call('refresh', { body: { refresh_token: next.refresh_token } })
  ));

  // What is refused.
  const send = (body, more) => call('signInWithIdToken', { body, ...more });
  await refusal('missing_id_token', 'an empty object', () => send({}));
  await refusal('malformed_id_token', 'a text that is no JWS', () => send({ id_token: 'abc', provider: 'dev' }));
  await refusal('malformed_request', 'a number for a text', () => send({ id_token: 5 }));
  await refusal('malformed_request', 'no JSON', () => send(undefined, { raw: '{' }));
  await refusal('malformed_request', 'a member twice', () => send(undefined, { raw: '{"id_token":"a","id_token":"b"}' }));
  await refusal('unsupported_media_type', 'a form', () => (
    send(undefined, { raw: 'id_token=a', type: 'application/x-www-form-urlencoded' })
  ));
  await refusal('body_too_large', '70 KiB', () => send({ id_token: 'a'.repeat(70 * 1024) }));
  await refusal('unknown_provider', 'a provider that is not there', async () => (
    send({ provider: 'nobody', id_token: await token({ sub: 'cyd' }) })
  ));
  await refusal('unknown_tenant', 'a tenant that is not there', () => (
    send({ id_token: 'a' }, { headers: { 'x-tenant-id': 'nobody' } })
  ));
  await refusal('id_token_expired', 'a token of yesterday', () => {
    const then = Math.floor(Date.now() / 1000) - 86_400;
    return signIn({ sub: 'cyd', iat: String(then), exp: String(then + 300) }, 'SE');
  });
  await refusal('id_token_audience_mismatch', 'a token for another application', () => (
    signIn({ sub: 'cyd', aud: 'another' }, 'SE')
  ));
  await refusal('id_token_replayed', 'a token twice', async () => {
    const body = { provider: 'dev', id_token: await token({ sub: 'cyd' }) };
    await send(body);
    return send(body);
  });
  await refusal('id_token_signature_invalid', 'a changed signature', async () => {
    const [header, payload] = (await token({ sub: 'cyd' })).split('.');
    return send({ provider: 'dev', id_token: `${header}.${payload}.${'A'.repeat(86)}` });
  });
  await refusal('missing_access_token', 'no bearer token', () => call('getMe'));
  await refusal('invalid_access_token', 'a bearer token of nobody', () => (
    call('getMe', { headers: { authorization: 'Bearer abc' } })
  ));
  await refusal('missing_access_token', 'a logout of nobody', () => call('logout'));

  await check('refusal mfa_locked: ten wrong codes over two challenges', async () => {
    let last;
    for (let round = 0; round < 3 && last?.status !== 429; round += 1) {
      const { json } = await signIn({ sub: 'ada' }, 'JP', { device_id: `locked-${round}` });
      assert.ok(json.challenge_token, `no challenge: ${JSON.stringify(json)}`);
      for (let tries = 0; tries < 5 && last?.status !== 429; tries += 1) {
        last = await answer(json.challenge_token, 'wrong', { device_id: `locked-${round}` });
      }
    }
    assert.equal(last.json.error, 'mfa_locked');
  });

  // Addresses that the document does not list answer in the same form.
  await check('refusal not_found and method_not_allowed have the form of all refusals', async () => {
    for (const [method, path, error] of [['GET', '/nothing', 'not_found'], ['GET', '/auth/refresh', 'method_not_allowed']]) {
      const response = await fetch(base + path, { method });
      const json = await response.json();
      validate('/components/schemas/dto.Error', json, path);
      assert.equal(json.error, error);
      if (error === 'method_not_allowed') assert.equal(response.headers.get('allow'), 'POST');
    }
  });
}
