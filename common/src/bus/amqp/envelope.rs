//! The envelope as an AMQP message: the plain payload as body, the payloadType as content type, `keyid` and `sig` as
//! headers.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

use crate::bus::{BusError, check_headers};
use crate::envelope::Envelope;

const KEYID: &str = "keyid";
const SIG: &str = "sig";
const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;

/// The properties that go with the body.
///
/// # Errors
/// [`BusError::Refused`] when they are too large for a frame.
pub(super) fn properties(envelope: &Envelope, persistent: bool) -> Result<BasicProperties, BusError> {
    check_headers(envelope)?;
    let content_type = ShortString::from(envelope.payload_type.as_str());
    let mut headers = FieldTable::default();
    for (name, value) in [(KEYID, &envelope.keyid), (SIG, &envelope.sig)] {
        headers.insert(name.into(), AMQPValue::LongString(LongString::from(value.as_str())));
    }
    let mode = if persistent { PERSISTENT } else { TRANSIENT };
    Ok(BasicProperties::default()
        .with_content_type(content_type)
        .with_headers(headers)
        .with_delivery_mode(mode))
}

/// What arrived. A header that is missing or no text is empty, and refused by the first check.
pub(super) fn envelope(delivery: Delivery) -> Envelope {
    let headers = delivery.properties.headers().as_ref();
    let header = |name: &str| match headers.and_then(|h| h.inner().get(name)) {
        Some(AMQPValue::LongString(text)) => String::from_utf8(text.as_bytes().to_vec()).unwrap_or_default(),
        _ => String::new(),
    };
    let content_type = delivery.properties.content_type().as_ref();
    Envelope {
        payload_type: content_type.map(|t| t.as_str().to_owned()).unwrap_or_default(),
        keyid: header(KEYID),
        sig: header(SIG),
        body: delivery.data.into(),
    }
}
