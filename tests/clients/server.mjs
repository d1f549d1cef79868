// `countersign serve --dev` in a temporary directory of its own.

import { spawn } from 'node:child_process';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const READY_WITHIN_MS = 60_000;

/** Starts a server on a free port, gives its address to `use`, and stops it whatever happens. */
export async function withServer(use) {
  const binary = resolve(here, process.env.COUNTERSIGN_BIN ?? '../../target/debug/countersign');
  const dir = await mkdtemp(join(tmpdir(), 'countersign-dev-'));
  await cp(resolve(here, '../../policies'), join(dir, 'policies'), { recursive: true });
  // The server refuses a COUNTERSIGN_ variable that names no key, so ours is not handed on.
  const { COUNTERSIGN_BIN: _, ...env } = process.env;
  const child = spawn(binary, ['serve', '--dev', '--listen', '127.0.0.1:0'], {
    cwd: dir, env, stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  let log = '';
  child.stderr.on('data', (chunk) => { log = (log + chunk).slice(-8000); });
  const ended = new Promise((done) => {
    child.once('error', (error) => done(error.message));
    child.once('exit', (code, signal) => done(`it ended with ${code ?? signal}`));
  });
  const address = new Promise((done) => {
    child.stdout.on('data', (chunk) => {
      output += chunk;
      const found = output.match(/listening on (http:\/\/[^\s]+)/);
      if (found) done(found[1]);
    });
  });
  let timer;
  const late = new Promise((done) => { timer = setTimeout(done, READY_WITHIN_MS, 'it was not ready in time'); });
  try {
    const base = await Promise.race([address, ended.then((why) => { throw new Error(`${why}\n${log}`); }),
      late.then((why) => { throw new Error(`${why}\n${log}`); })]);
    return await use(base, () => log);
  } finally {
    clearTimeout(timer);
    child.kill('SIGTERM');
    const hard = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await ended;
    clearTimeout(hard);
    await rm(dir, { recursive: true, force: true });
  }
}
