//! Server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>), read
//! piece by piece.

use crate::limits::EVENT_BYTES_MAX;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its type; `message` unless it says otherwise.
    pub name: String,
    /// Its lines, joined by `\n`.
    pub data: String,
    /// The newest id of the stream, this event's or an earlier one's.
    pub id: String,
}

/// An event is larger than any that the controller sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the live stream is larger than {EVENT_BYTES_MAX} bytes")]
pub(crate) struct TooLarge;

/// The state between two pieces.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    /// The last byte was `\r`: a `\n` right after it ends nothing more.
    after_return: bool,
    begun: bool,
    name: String,
    data: String,
    has_data: bool,
    id: String,
}

impl Parser {
    /// Takes more bytes and gives the events that are whole now.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        for &byte in bytes {
            let follows_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if follows_return => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.line(&String::from_utf8_lossy(&line)));
                }
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                return Err(TooLarge);
            }
        }
        Ok(events)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        let first = !std::mem::replace(&mut self.begun, true);
        let line = if first { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            // Comments keep the connection alive; `retry` and what is unknown say nothing to us.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(Event { name, data, id: self.id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(name: &str, data: &str, id: &str) -> Event {
        Event { name: name.into(), data: data.into(), id: id.into() }
    }

    fn parse(text: &str) -> Vec<Event> {
        Parser::default().push(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_standards_examples() {
        assert_eq!(parse("data: YHOO\ndata: +2\ndata: 10\n\n"), [event("message", "YHOO\n+2\n10", "")]);
        let streams =
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        let three = [
            event("message", "first event", "1"),
            event("message", "second event", ""),
            event("message", " third event", ""),
        ];
        assert_eq!(parse(streams), three);
        assert_eq!(
            parse("data\n\ndata\ndata\n\ndata:"),
            [event("message", "", ""), event("message", "\n", "")]
        );
        assert_eq!(parse("\u{feff}data:test\r\n\r\ndata: test\r\r"), vec![event("message", "test", ""); 2]);
        assert_eq!(parse("event: state\nid: 7\ndata: {}\n\n"), [event("state", "{}", "7")]);
        assert_eq!(parse("event: nothing\n\ndata: x\n\n"), [event("message", "x", "")]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let mib = vec![b'x'; 1024 * 1024];
        assert!((0..5).any(|_| parser.push(&mib).is_err()));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            text in "(data: ?[a-z]{0,3}|event:[a-z]|id: ?[0-9]|: c|é|\r|\n|\r\n|\n\n){0,40}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|i| i.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut parser = Parser::default();
            let (mut events, mut at) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([bytes.len()]) {
                events.extend(parser.push(&bytes[at..cut]).unwrap());
                at = cut;
            }
            prop_assert_eq!(events, parse(&text));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Parser::default().push(&bytes).is_ok());
        }

        #[test]
        fn what_is_written_is_read(events in prop::collection::vec(("[a-z]{1,8}", "[^\r\n]{0,30}", "[0-9]{1,4}"), 0..5)) {
            let text: String = events.iter().map(|(n, d, i)| format!("event: {n}\ndata: {d}\nid: {i}\n\n")).collect();
            let expected: Vec<Event> = events.iter().map(|(n, d, i)| event(n, d, i)).collect();
            // A leading U+FEFF of the whole stream would be a byte order mark; ours begins with "event".
            prop_assert_eq!(parse(&text), expected);
        }
    }
}
