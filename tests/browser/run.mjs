// The documentation page in a real browser. One line for each check, and 'N passed, N failed' at the end.
// Exit 0 only if none failed. Needs Chromium: CHROMIUM names another one than /usr/bin/chromium.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

const here = fileURLToPath(new URL('.', import.meta.url));
const out = join(here, 'out');
const READY_WITHIN_MS = 60_000;
const ARGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

let passed = 0;
let failed = 0;

async function check(name, run) {
  try {
    await run();
    passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${String(error.message).split('\n').slice(0, 12).join(' | ')}`);
  }
}

/** Starts `serve --dev` in a temporary directory, gives its address to `use`, and stops it whatever happens. */
async function withServer(use) {
  const binary = resolve(here, process.env.COUNTERSIGN_BIN ?? '../../target/debug/countersign');
  const dir = await mkdtemp(join(tmpdir(), 'countersign-docs-'));
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
  let timer;
  const started = new Promise((done, fail) => {
    child.stdout.on('data', (chunk) => {
      output += chunk;
      const found = output.match(/listening on (http:\/\/[^\s]+)/);
      if (found) done(found[1]);
    });
    timer = setTimeout(fail, READY_WITHIN_MS, new Error('the server was not ready in time'));
    ended.then((why) => fail(new Error(`${binary}: ${why}\n${log}`)));
  });
  try {
    return await use(await started);
  } finally {
    clearTimeout(timer);
    child.kill('SIGTERM');
    const hard = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await ended;
    clearTimeout(hard);
    await rm(dir, { recursive: true, force: true });
  }
}

async function docs(browser, base) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const complaints = [];
  const elsewhere = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('request', (request) => {
    if (!/^(data|blob):/.test(request.url()) && new URL(request.url()).origin !== base) elsewhere.push(request.url());
  });
  // A violation of the content security policy is an event of its own, whatever the console says.
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => {
      globalThis.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
    });
  });
  const shot = (name) => page.screenshot({ path: join(out, `${name}.png`) });
  const operation = (id) => page.locator(`.opblock[id$="-${id}"]`);

  await check('/docs answers with a policy that allows no inline script and no other host', async () => {
    const response = await page.goto(`${base}/docs`);
    assert.equal(response.status(), 200);
    const policy = response.headers()['content-security-policy'];
    assert.match(policy, /default-src 'none'/);
    assert.match(policy, /script-src 'self';/);
    assert.match(policy, /connect-src 'self'/);
  });
  await check('the title stands', async () => {
    assert.equal(await page.title(), 'Countersign API');
    await page.locator('.info .title').filter({ hasText: 'Countersign' }).waitFor();
  });
  await check('signInWithIdToken is shown, and it is the first of the page', async () => {
    await operation('signInWithIdToken').waitFor();
    const first = await page.locator('.opblock-tag').first().textContent();
    assert.match(first, /^Sign-in/);
    await shot('docs');
  });
  await check('expanding it shows examples of the request, of both answers and of refusals', async () => {
    const block = operation('signInWithIdToken');
    await block.locator('.opblock-summary-control').click();
    const body = block.locator('.opblock-section-request-body');
    await body.waitFor();
    const request = body.locator('textarea, .microlight').first();
    assert.match(await request.evaluate((e) => e.value ?? e.textContent), /"id_token": "eyJ/);
    const success = block.locator('tr.response[data-code="200"]');
    const examples = await success.locator('select option').allTextContents();
    assert.ok(examples.some((e) => /Signed in/.test(e)) && examples.some((e) => /factor/.test(e)), examples.join());
    assert.match(await success.locator('.microlight').first().textContent(), /"access_token"/);
    const refused = block.locator('tr.response[data-code="401"]');
    assert.match(await refused.textContent(), /id_token_expired/);
    await page.screenshot({ path: join(out, 'sign-in.png'), fullPage: true });
  });
  await check('"Try it out" on GET /health/live sees 200', async () => {
    const block = operation('healthLive');
    await block.locator('.opblock-summary-control').click();
    await block.locator('.opblock-body').waitFor();
    const tryOut = block.locator('.try-out__btn:not(.cancel)');
    if (await tryOut.count()) await tryOut.click();
    await block.locator('button.execute').click();
    const live = block.locator('.live-responses-table');
    await live.waitFor();
    assert.equal((await live.locator('tr.response td.response-col_status').first().textContent()).trim().slice(0, 3), '200');
    assert.match(await live.textContent(), /"status": "ok"/);
    await block.scrollIntoViewIfNeeded();
    await shot('try-it-out');
  });
  await check('a sign-in can be tried on the page', async () => {
    const form = new URLSearchParams({ sub: 'ada' });
    const token = await (await fetch(`${base}/dev/token`, { method: 'POST', body: form })).text();
    const block = operation('signInWithIdToken');
    await block.locator('textarea').fill(JSON.stringify({ provider: 'dev', id_token: token }));
    await block.locator('button.execute').click();
    const live = block.locator('.live-responses-table');
    await live.waitFor();
    assert.equal((await live.locator('tr.response td.response-col_status').first().textContent()).trim().slice(0, 3), '200');
  });
  await check('no error and no warning in the console', () => assert.deepEqual(complaints, []));
  await check('no violation of the content security policy', async () => {
    assert.deepEqual(await page.evaluate(() => globalThis.violations), []);
  });
  await check('no request to any other host', () => assert.deepEqual(elsewhere, []));

  await check('on a narrow screen nothing is cut off', async () => {
    await page.setViewportSize({ width: 390, height: 800 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    await shot('narrow');
    assert.ok(wide <= 0, `the page is ${wide} pixels wider than the window`);
  });
}

try {
  await mkdir(out, { recursive: true });
  await withServer(async (base) => {
    const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
    const browser = await chromium.launch({ executablePath, args: ARGS });
    try {
      await docs(browser, base);
    } finally {
      await browser.close();
    }
  });
} catch (error) {
  failed += 1;
  console.log(`FAILED  the run broke off: ${error.stack}`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
