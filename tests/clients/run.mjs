// The committed document, clients generated from it, and real answers held against it. One line for each
// check, and 'N passed, N failed' at the end. Exit 0 only if none failed.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { answerChecks } from './answers.mjs';
import { check, failed, passed, tally } from './check.mjs';
import { hostileChecks } from './hostile.mjs';
import { withServer } from './server.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const out = join(here, 'out');
const document = join(here, '../../openapi/openapi.json');
const venv = join(out, 'venv');

/** Runs a program and gives its output; anything but exit 0 is an error that holds the output. */
function run(program, args, extra = {}) {
  const env = { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true', ...extra };
  return new Promise((done, fail) => {
    const child = spawn(program, args, { cwd: here, env, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => { output += chunk; });
    child.stderr.on('data', (chunk) => { output += chunk; });
    child.once('error', fail);
    child.once('exit', (code) => (code === 0 ? done(output) : fail(new Error(`exit ${code}: ${output}`))));
  });
}

const tool = (name, ...args) => run(join(here, 'node_modules/.bin', name), args);

async function typescript() {
  await check('openapi-typescript generates a client', () => (
    tool('openapi-typescript', document, '--output', join(out, 'schema.d.ts'))
  ));
  const compiled = await check('the program compiles with tsc --strict', async () => {
    await tool('tsc', '--strict', '--project', 'tsconfig.json');
    return import('./out/compiled/client.js');
  });
  if (!compiled) return;
  await withServer(async (base) => {
    for (const [name, step] of compiled.steps(base)) await check(`typescript: ${name}`, step);
  });
}

async function python() {
  const installed = await check('openapi-python-client installs', async () => {
    if (existsSync(join(venv, 'bin/openapi-python-client'))) return true;
    await run('python3', ['-m', 'venv', venv]);
    await run(join(venv, 'bin/pip'), ['install', '--quiet', '--disable-pip-version-check', '-r', 'requirements.txt']);
    return true;
  });
  if (!installed) return;
  const target = join(out, 'python');
  await rm(target, { recursive: true, force: true });
  await mkdir(target);
  const generated = await check('openapi-python-client generates a client and leaves nothing out', async () => {
    const PATH = `${join(venv, 'bin')}${delimiter}${process.env.PATH}`;
    const output = await run(join(venv, 'bin/openapi-python-client'), [
      'generate', '--path', document, '--meta', 'none', '--config', join(here, 'python.yaml'),
      '--output-path', join(target, 'countersign_client'),
    ], { PATH });
    assert.doesNotMatch(output, /unable|warning|removal|skipping/i, output);
    return true;
  });
  if (!generated) return;
  await withServer(async (base) => {
    const output = await run(join(venv, 'bin/python'), ['client.py', target, base]);
    for (const line of output.trim().split('\n')) {
      const [, word, name] = line.match(/^(ok|FAILED) +(.*)$/) ?? [];
      if (word === 'ok') passed(name); else failed(name ?? 'python', name ? 'see above' : line);
    }
  });
}

async function main() {
  await mkdir(out, { recursive: true });
  await check('redocly finds the document valid, without a warning', async () => {
    const output = await tool('redocly', 'lint', document, '--config', 'redocly.yaml', '--format', 'summary');
    assert.doesNotMatch(output, /You have \d+ warning/, output);
  });
  await typescript();
  await python();
  const parsed = JSON.parse(await readFile(document, 'utf8'));
  await withServer((base) => answerChecks(parsed, base));
  await withServer((base) => hostileChecks(run, join(out, 'venv-hostile'), join(here, 'requirements-hostile.txt'), base));
}

try {
  await main();
} catch (error) {
  failed('the run broke off', error.stack);
}
console.log(`${tally.passed} passed, ${tally.failed} failed`);
process.exit(tally.failed === 0 ? 0 : 1);
