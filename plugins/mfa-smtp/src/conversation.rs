//! One conversation with the mail server, within the time of the call.
//!
//! The library's time-out is for each read, and a message takes a dozen of them. So each step gets what is left of
//! the call, divided by the answers that the step waits for: together they cannot outlast it.

use std::time::Duration;

use lettre::Message;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{SmtpConnection, Tls};
use lettre::transport::smtp::extension::ClientId;

/// Answers of each step: the connection, to two addresses at most, with its TLS handshake, greeting and EHLO; STARTTLS
/// with handshake and EHLO; AUTH; MAIL, RCPT, DATA and the message itself.
const CONNECT: u32 = 5;
const STARTTLS: u32 = 4;
const AUTH: u32 = 3;
const SEND: u32 = 4;
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

/// Where messages go.
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Tls,
    pub(crate) credentials: Option<Credentials>,
}

/// The time for each of so many answers; `None` when there is none left.
fn share(left_ms: i64, answers: u32) -> Option<Duration> {
    let left = Duration::from_millis(u64::try_from(left_ms).ok()?) / answers;
    (left >= Duration::from_millis(1)).then_some(left)
}

impl Server {
    /// Sends one message. `Err(None)`: no time was left.
    pub(crate) fn send(&self, message: &Message, remaining_ms: &dyn Fn() -> i64) -> Result<(), Option<Error>> {
        let time = |answers| share(remaining_ms(), answers).ok_or(None);
        let hello = ClientId::default();
        let wrapper = if let Tls::Wrapper(parameters) = &self.tls { Some(parameters) } else { None };
        let address = (self.host.as_str(), self.port);
        let mut connection = SmtpConnection::connect(address, Some(time(CONNECT)?), &hello, wrapper, None)?;
        let patient = |connection: &mut SmtpConnection, answers| {
            // A socket that takes no time-out is closed.
            connection.set_timeout(Some(time(answers)?)).map_err(|_| None)
        };
        if let Tls::Required(parameters) = &self.tls {
            patient(&mut connection, STARTTLS)?;
            connection.starttls(parameters, &hello)?;
        }
        if let Some(credentials) = &self.credentials {
            patient(&mut connection, AUTH)?;
            connection.auth(&MECHANISMS, credentials)?;
        }
        patient(&mut connection, SEND)?;
        connection.send(message.envelope(), &message.formatted())?;
        // The message is theirs: whether they say goodbye makes no difference.
        if let Some(time) = share(remaining_ms(), 1) {
            let _ = connection.set_timeout(Some(time));
            let _ = connection.quit();
        }
        Ok(())
    }
}
