//! One message: text and HTML, marked as sent by a machine.

use countersign_plugin_sdk::PluginError;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message};

use crate::template::Text;

/// Its `Message-ID` is made of the delivery, so that one message is one message wherever it is counted.
pub(crate) fn build(from: &Mailbox, to: Address, delivery_id: &str, text: Text) -> Result<Message, PluginError> {
    let id = format!("<{delivery_id}@{}>", from.email.domain());
    // RFC 3834 section 5: nobody answers it automatically.
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(text.subject)
        .message_id(Some(id))
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
        .multipart(MultiPart::alternative_plain_html(text.text, text.html))
        .map_err(|error| PluginError::new(format!("the message: {error}")))
}
