// Codes through a mail server into a mailbox. One line for each check, and 'N passed, N failed' at the end. Exit 0
// only if none failed.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { check, tally } from '../clients/check.mjs';
import { startIssuer, withCountersign } from './countersign.mjs';
import { certificate, PASSWORD, startMailbox, USER } from './mailbox.mjs';

const root = await mkdtemp(join(tmpdir(), 'countersign-smtp-'));
const issuer = await startIssuer();
const tls = certificate(root);
const login = { user: USER, password_secret: 'smtp_password' };
const trusted = { host: 'localhost', ca_pem: tls.cert, ...login };

/** Signs in twice: the second time a code by e-mail is asked for; gives what became of it. */
async function walk(mailbox, options, use) {
  const server = await startMailbox(tls, mailbox);
  const dir = await mkdtemp(join(root, 'run-'));
  const { password = PASSWORD, ...config } = options;
  const smtp = { from: 'Example <no-reply@example.com>', product: 'Example & Co', ...config };
  try {
    await withCountersign(dir, issuer.url, { ...smtp, port: server.port }, password, async (post, log) => {
      const signIn = async () => post('/auth/id-token/signin', {
        id_token: await issuer.mint({ sub: 'ada', locale: 'sv-SE' }), provider: 'acme',
      });
      const first = await signIn();
      assert.equal(first.status, 200, JSON.stringify(first.json));
      const { json: challenge } = await signIn();
      assert.deepEqual(challenge.required_mfa_methods, ['email'], JSON.stringify(challenge));
      const token = challenge.challenge_token;
      const sent = await post('/auth/mfa/challenge', { challenge_token: token, mfa_method: 'email' });
      const verify = (code) => (
        post('/auth/mfa/verify-challenge', { challenge_token: token, mfa_method: 'email', code })
      );
      await use({ sent, verify, messages: server.messages, log });
    });
  } finally {
    await server.stop();
  }
}

function refused(status, error) {
  return ({ sent, messages, log }) => {
    assert.deepEqual([sent.status, sent.json.error], [status, error], log());
    assert.equal(messages.length, 0, 'no message was taken');
    assert.ok(!log().includes('ada@example.com') && !log().includes(PASSWORD), 'the log tells no address and no secret');
  };
}

async function delivered({ sent, verify, messages }) {
  assert.equal(sent.status, 200, JSON.stringify(sent.json));
  assert.equal(sent.json.destination, 'a…@example.com');
  assert.equal(messages.length, 1);
  const [{ mail, to, from }] = messages;
  assert.deepEqual([to, from], [['ada@example.com'], 'no-reply@example.com']);
  assert.equal(mail.subject, 'Example & Co: din inloggningskod');
  const [code] = mail.text.match(/\b\d{6}\b/);
  assert.match(mail.html, new RegExp(`<strong>${code}</strong>`));
  assert.match(mail.html, /Example &amp; Co/);
  const wrong = await verify(code === '123456' ? '654321' : '123456');
  assert.equal(wrong.json.error, 'invalid_mfa_code');
  const done = await verify(code);
  assert.equal(done.status, 200, JSON.stringify(done.json));
  assert.ok(done.json.access_token);
  assert.equal((await verify(code)).json.error, 'challenge_used');
}

try {
  await check('STARTTLS and a password: the code reaches the mailbox and finishes the sign-in', () => (
    walk({}, { ...trusted, tls: 'starttls' }, async (run) => {
      await delivered(run);
      assert.ok(run.messages[0].secure);
    })
  ));
  await check('TLS from the first byte: the same', () => (
    walk({ secure: true }, { ...trusted, tls: 'implicit' }, delivered)
  ));
  await check('a relay on this machine without TLS: the same', () => (
    walk({ authOptional: true, disabledCommands: ['STARTTLS', 'AUTH'] }, { host: '127.0.0.1', tls: 'none' }, delivered)
  ));
  await check('a server that does not offer STARTTLS gets neither password nor message', () => (
    walk({ hideSTARTTLS: true, disabledCommands: ['STARTTLS'], allowInsecureAuth: true }, { ...trusted, tls: 'starttls' },
      refused(503, 'channel_unavailable'))
  ));
  await check('a server whose certificate the system does not trust gets nothing', () => (
    walk({}, { host: 'localhost', ...login, tls: 'starttls' }, refused(503, 'channel_unavailable'))
  ));
  await check('nor does one whose certificate is for another name', () => (
    walk({}, { ...trusted, host: '127.0.0.1', tls: 'starttls' }, refused(503, 'channel_unavailable'))
  ));
  await check('a wrong password: the channel is out of reach', () => (
    walk({}, { ...trusted, tls: 'starttls', password: 'another' }, refused(503, 'channel_unavailable'))
  ));
  await check('a mailbox that is not there: the method is not allowed', () => (
    walk({ refuse: 550 }, { ...trusted, tls: 'starttls' }, refused(400, 'mfa_method_not_allowed'))
  ));
  await check('a mailbox that is full for now: the channel is out of reach', () => (
    walk({ refuse: 452 }, { ...trusted, tls: 'starttls' }, refused(503, 'channel_unavailable'))
  ));
} finally {
  issuer.stop();
  await rm(root, { recursive: true, force: true });
}
console.log(`${tally.passed} passed, ${tally.failed} failed`);
process.exitCode = tally.failed === 0 && tally.passed > 0 ? 0 : 1;
