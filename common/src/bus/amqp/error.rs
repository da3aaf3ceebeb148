//! What lapin's errors mean to the bus.

use lapin::ErrorKind;

use crate::bus::BusError;

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// AMQP's reply code, when the broker gave one.
fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// Whether a queue or an exchange isn't there.
pub(super) fn is_missing(error: &lapin::Error) -> bool {
    code(error) == Some(NOT_FOUND)
}

/// Whether a queue or an exchange is there with other arguments than ours.
pub(super) fn is_other(error: &lapin::Error) -> bool {
    code(error) == Some(PRECONDITION_FAILED)
}

/// What an operation on a queue came to.
pub(super) fn on_queue(error: &lapin::Error, queue: &str) -> BusError {
    let text = error.to_string();
    match code(error) {
        Some(NOT_FOUND) => BusError::NoQueue(queue.to_owned()),
        Some(RESOURCE_LOCKED) => BusError::InUse(queue.to_owned()),
        // RabbitMQ says 403 both for a missing permission and for a queue that somebody consumes exclusively.
        Some(ACCESS_REFUSED) if text.contains("exclusive use") => BusError::InUse(queue.to_owned()),
        Some(ACCESS_REFUSED | PRECONDITION_FAILED | NOT_ALLOWED) => BusError::Refused(text),
        _ => BusError::Down(text),
    }
}

/// What an attempt to connect came to: wrong credentials and a missing vhost are told from a broker that is away.
pub(super) fn on_connect(error: &lapin::Error) -> BusError {
    match code(error) {
        Some(ACCESS_REFUSED | NOT_ALLOWED) => BusError::Refused(error.to_string()),
        _ => BusError::Down(error.to_string()),
    }
}
