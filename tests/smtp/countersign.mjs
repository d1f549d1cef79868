// An issuer, and a Countersign that sends codes by the plugin mfa-smtp, each on loopback.

import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import * as jose from 'jose';

const here = fileURLToPath(new URL('.', import.meta.url));
const binary = resolve(here, process.env.COUNTERSIGN_BIN ?? '../../target/debug/countersign');
const suffix = process.platform === 'darwin' ? 'dylib' : 'so';
const library = resolve(binary, `../libcountersign_plugin_mfa_smtp.${suffix}`);
// A JSON text is a TOML basic string as well.
const quote = (text) => JSON.stringify(text);

export async function startIssuer() {
  const { publicKey, privateKey } = await jose.generateKeyPair('ES256');
  const jwk = { ...await jose.exportJWK(publicKey), kid: 'k', use: 'sig', alg: 'ES256' };
  const server = createServer((request, response) => {
    const issuer = `http://${request.headers.host}`;
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(request.url === '/jwks' ? { keys: [jwk] } : {
      issuer, jwks_uri: `${issuer}/jwks`, response_types_supported: ['id_token'], subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['ES256'], authorization_endpoint: `${issuer}/authorize`,
    }));
  });
  await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
  const url = `http://127.0.0.1:${server.address().port}`;
  let serial = 0;
  const mint = (claims) => new jose.SignJWT({ email: `${claims.sub}@example.com`, email_verified: true, ...claims })
    .setProtectedHeader({ alg: 'ES256', kid: 'k', typ: 'JWT' }).setIssuer(url).setAudience('app')
    .setIssuedAt().setExpirationTime('5m').setJti(`t-${serial += 1}`).sign(privateKey);
  return { url, mint, stop: () => server.close() };
}

function write(dir, issuer, smtp, password) {
  cpSync(resolve(here, '../../policies'), join(dir, 'policies'), { recursive: true });
  writeFileSync(join(dir, 'policies/risk/_default.rhai'),
    'fn assess(s, risk) { if s.history.sign_ins_total > 0 { risk.require_mfa("new_device"); } }\n');
  mkdirSync(join(dir, 'secrets'));
  writeFileSync(join(dir, 'secrets/smtp_password'), `${password}\n`, { mode: 0o600 });
  mkdirSync(join(dir, 'lib'), { mode: 0o755 });
  const plugin = join(dir, 'lib', 'mfa_smtp.so');
  cpSync(library, plugin);
  chmodSync(plugin, 0o755);
  const entry = execFileSync(binary, ['plugin', 'lock', plugin], { cwd: dir, encoding: 'utf8' })
    .replace('method = ""', 'method = "email"')
    .replace(/deadline_ms = \d+/, 'deadline_ms = 10000')
    .replace(/^config = \{\}$/m, '[plugin.config]');
  const config = Object.entries(smtp).map(([name, value]) => `${name} = ${quote(value)}\n`).join('');
  writeFileSync(join(dir, 'plugins.lock'), entry + config, { mode: 0o644 });
  writeFileSync(join(dir, 'countersign.toml'), `
[server]
public_url = "http://127.0.0.1:8080"
allow_insecure_issuers = true
[store]
url = ${quote(`sqlite://${join(dir, 'countersign.db')}`)}
[secrets]
master_key_file = ${quote(join(dir, 'master.key'))}
[policies]
dir = ${quote(join(dir, 'policies'))}
[plugins]
lock = ${quote(join(dir, 'plugins.lock'))}
secrets_dir = ${quote(join(dir, 'secrets'))}
[[tenants]]
id = "default"
[[providers]]
tenant = "default"
name = "acme"
issuer = ${quote(issuer)}
client_ids = ["app"]
algorithms = ["ES256"]
email_trust = "claim"
`);
}

/** Gives `use` a function that posts JSON to a server with this mail configuration; stops the server whatever happens. */
export async function withCountersign(dir, issuer, smtp, password, use) {
  write(dir, issuer, smtp, password);
  // The server refuses a COUNTERSIGN_ variable that names no key, so ours is not handed on.
  const { COUNTERSIGN_BIN: _, ...env } = process.env;
  const child = spawn(binary, ['serve', '--config', 'countersign.toml', '--listen', '127.0.0.1:0'], { cwd: dir, env });
  let log = '';
  const ended = new Promise((done) => { child.once('exit', done); });
  try {
    const base = await new Promise((done, fail) => {
      const late = setTimeout(() => fail(new Error(`it was not ready in time\n${log}`)), 60_000);
      const read = (chunk) => {
        log = (log + chunk).slice(-8000);
        const found = log.match(/listening address=([\d.:]+)/);
        if (found) { clearTimeout(late); done(`http://${found[1]}`); }
      };
      child.stdout.on('data', read);
      child.stderr.on('data', read);
      child.once('exit', (code) => { clearTimeout(late); fail(new Error(`it ended with ${code}\n${log}`)); });
    });
    return await use(async (path, body) => {
      const response = await fetch(base + path, {
        method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
      });
      return { status: response.status, json: await response.json() };
    }, () => log);
  } finally {
    child.kill('SIGTERM');
    const hard = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await ended;
    clearTimeout(hard);
  }
}
