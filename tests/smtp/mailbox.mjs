// A mail server on loopback (smtp-server), with a certificate of its own, that keeps what it takes.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { simpleParser } from 'mailparser';
import { SMTPServer } from 'smtp-server';

export const USER = 'mailer';
export const PASSWORD = 'a password of the mail server';

/** A certificate for localhost that nobody signed but itself. */
export function certificate(dir) {
  const [key, cert] = [join(dir, 'key.pem'), join(dir, 'cert.pem')];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-addext', 'basicConstraints=critical,CA:FALSE',
    '-keyout', key, '-out', cert], { stdio: 'ignore' });
  return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
}

/** `refuse`: the status that every recipient is refused with. */
export async function startMailbox(tls, { refuse, ...options }) {
  const messages = [];
  const server = new SMTPServer({
    ...tls,
    logger: false,
    authOptional: Boolean(options.authOptional),
    onAuth: ({ username, password }, _session, done) => (
      username === USER && password === PASSWORD ? done(null, { user: username }) : done(new Error('wrong password'))
    ),
    onRcptTo: (_address, _session, done) => (
      done(refuse && Object.assign(new Error('no such mailbox here'), { responseCode: refuse }))
    ),
    onData: (stream, session, done) => {
      simpleParser(stream).then((mail) => {
        const { envelope, secure } = session;
        messages.push({ mail, secure, to: envelope.rcptTo.map((r) => r.address), from: envelope.mailFrom.address });
        done();
      }, done);
    },
    ...options,
  });
  server.on('error', () => {}); // A client that does not trust the certificate ends the connection.
  await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
  return { port: server.server.address().port, messages, stop: () => new Promise((done) => { server.close(done); }) };
}
