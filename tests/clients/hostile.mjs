// Requests that Schemathesis makes out of the document, well-formed and not, against a running server: every
// answer must be one that the document has, in its shape, and no request may end in a defect of the server.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { check } from './check.mjs';

/** The same requests in every run; another number finds others. */
const SEED = 20261125;
/** What a well-formed but invented token, code or identifier gets is a refusal: that is no finding. */
const NOT_A_FINDING = 'positive_data_acceptance';

/** An access token of the development user. */
async function accessToken(base) {
  const idToken = await (await fetch(`${base}/dev/token`, { method: 'POST', body: new URLSearchParams({ sub: 'ada' }) })).text();
  const answer = await fetch(`${base}/auth/id-token/signin`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Countersign-Dev-Country': 'SE' },
    body: JSON.stringify({ provider: 'dev', device_id: 'laptop', id_token: idToken }),
  });
  const { access_token: token } = await answer.json();
  assert.ok(token, 'the development user is signed in');
  return token;
}

/** `run` starts a program, `base` is the server. */
export async function hostileChecks(run, venv, requirements, base) {
  const installed = await check('schemathesis installs', async () => {
    if (existsSync(join(venv, 'bin/schemathesis'))) return true;
    await run('python3', ['-m', 'venv', venv]);
    await run(join(venv, 'bin/pip'), ['install', '--quiet', '--disable-pip-version-check', '-r', requirements]);
    return true;
  });
  if (!installed) return;
  for (const [who, headers] of [['nobody', []], ['a signed-in user', [`Authorization: Bearer ${await accessToken(base)}`]]]) {
    await check(`requests of ${who} get only answers that the document has`, () => run(join(venv, 'bin/schemathesis'), [
      'run', `${base}/openapi.json`, '--max-examples', '40', '--seed', String(SEED), '--exclude-checks', NOT_A_FINDING,
      '--warnings', 'off', '--no-color', '--generation-database', 'none', '--phases', 'examples,coverage,fuzzing',
      ...headers.flatMap((header) => ['-H', header]),
    ], { SCHEMATHESIS_HOOKS: 'media', PYTHONPATH: dirname(fileURLToPath(import.meta.url)) }));
  }
}
