// Starts Countersign with a configuration of its own, and speaks to it as an application does.

import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const READY_WITHIN_MS = 60_000;

async function freePort() {
  const probe = createServer();
  await new Promise((done) => { probe.listen(0, '127.0.0.1', done); });
  const { port } = probe.address();
  await new Promise((done) => { probe.close(done); });
  return port;
}

// A JSON text is a TOML basic string as well.
const quote = (text) => JSON.stringify(text);

function configuration({ port, dir, issuer, clientIds, algorithms }) {
  return `
[server]
listen = "127.0.0.1:${port}"
public_url = "http://127.0.0.1:${port}"
allow_insecure_issuers = true

[store]
url = ${quote(`sqlite://${join(dir, 'countersign.db')}`)}

[secrets]
master_key_file = ${quote(join(dir, 'master.key'))}

[policies]
dir = ${quote(resolve(here, '../../policies'))}

[[tenants]]
id = "default"
hosts = ["127.0.0.1"]

[[providers]]
tenant = "default"
name = "interop"
issuer = ${quote(issuer)}
client_ids = [${clientIds.map(quote).join(', ')}]
algorithms = [${algorithms.map(quote).join(', ')}]
nonce = "required"
replay = "single_use"
email_trust = "claim"
provisioning = "create"
mapping = "default"
`;
}

/** Starts the server and waits until it is ready. */
export async function startCountersign({ issuer, clientIds, algorithms }) {
  const binary = resolve(here, process.env.COUNTERSIGN_BIN ?? '../../target/debug/countersign');
  const dir = await mkdtemp(join(tmpdir(), 'countersign-interop-'));
  const port = await freePort();
  const file = join(dir, 'countersign.toml');
  await writeFile(file, configuration({ port, dir, issuer, clientIds, algorithms }));
  // The server refuses a COUNTERSIGN_ variable that names no key, so ours is not handed on.
  const { COUNTERSIGN_BIN: _, ...env } = process.env;
  const child = spawn(binary, ['serve', '--config', file], { cwd: dir, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const keep = (chunk) => { output = (output + chunk).slice(-8000); };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  let ended;
  const end = new Promise((done) => {
    child.once('error', (error) => { ended = error.message; done(); });
    child.once('exit', (code, signal) => { ended ??= `it ended with ${code ?? signal}`; done(); });
  });
  const stop = async () => {
    if (!ended) child.kill('SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await end;
    clearTimeout(late);
    await rm(dir, { recursive: true, force: true });
  };
  const base = `http://127.0.0.1:${port}`;
  const deadline = Date.now() + READY_WITHIN_MS;
  while (!(await isReady(base))) {
    if (ended || Date.now() > deadline) {
      const why = ended ?? 'it was not ready in time';
      await stop();
      throw new Error(`${binary} did not start: ${why}\n${output}`);
    }
    await Promise.race([end, new Promise((done) => { setTimeout(done, 100); })]);
  }
  return { base, stop, output: () => output };
}

async function isReady(base) {
  try {
    return (await fetch(`${base}/health/ready`)).ok;
  } catch {
    return false;
  }
}

/** `POST /auth/id-token/signin`; gives the status and the JSON. */
export async function signInAtCountersign(base, body) {
  const response = await fetch(`${base}/auth/id-token/signin`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ provider: 'interop', ...body }),
  });
  const text = await response.text();
  let json = {};
  try { json = JSON.parse(text); } catch { /* the checks will say that the answer is no JSON */ }
  return { status: response.status, headers: response.headers, json };
}
