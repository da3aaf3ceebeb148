//! Output of many hosts, each identical one once.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use signet_common::messages::Stream;

use crate::api::Piece;
use crate::limits::{KEPT_BYTES_ALL_MAX, KEPT_BYTES_MAX};

/// What is new in a piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fresh<'a> {
    /// Bytes before it that the agent did not keep.
    pub omitted: u64,
    /// Bytes that were not seen before; a resumed stream repeats some.
    pub data: &'a [u8],
}

/// One stream of one host, as far as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Capture {
    /// Where the next piece begins.
    next: u64,
    kept: Vec<u8>,
    /// Bytes that came and are not in `kept`.
    beyond: u64,
    hasher: DefaultHasher,
}

impl Capture {
    /// Says what of a piece is new.
    pub(crate) fn advance<'a>(&mut self, piece: &'a Piece) -> Fresh<'a> {
        let end = piece.offset + piece.data.len() as u64;
        let omitted = piece.offset.saturating_sub(self.next);
        let known = usize::try_from(self.next.saturating_sub(piece.offset)).unwrap_or(usize::MAX);
        self.next = self.next.max(end);
        Fresh { omitted, data: piece.data.get(known..).unwrap_or_default() }
    }

    /// Keeps what is new, within `room` bytes.
    fn keep(&mut self, fresh: &Fresh<'_>, room: usize) {
        if fresh.omitted > 0 {
            self.hasher.write_u64(fresh.omitted);
            self.kept.extend(omission(fresh.omitted).into_bytes());
        }
        self.hasher.write(fresh.data);
        let room = room.min(KEPT_BYTES_MAX.saturating_sub(self.kept.len()));
        let (kept, beyond) = fresh.data.split_at(room.min(fresh.data.len()));
        self.kept.extend_from_slice(kept);
        self.beyond += beyond.len() as u64;
    }
}

/// The line that stands for bytes that were not kept.
pub(crate) fn omission(bytes: u64) -> String {
    format!("\n[{bytes} bytes were not kept]\n")
}

/// Both streams of one host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output {
    stdout: Capture,
    stderr: Capture,
}

impl Output {
    /// One of them.
    pub(crate) fn of(&mut self, stream: Stream) -> &mut Capture {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// What makes outputs identical. The order is the one in which they are shown: what failed comes last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Same {
    ending: String,
    stdout: Text,
    stderr: Text,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Text {
    kept: Vec<u8>,
    beyond: u64,
    digest: u64,
}

impl From<Capture> for Text {
    fn from(capture: Capture) -> Self {
        let Capture { next, kept, beyond, mut hasher } = capture;
        next.hash(&mut hasher);
        Self { kept, beyond, digest: hasher.finish() }
    }
}

/// Hosts with the same end and the same output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// Their names, sorted.
    pub hosts: Vec<String>,
    /// How they ended, empty when well.
    pub ending: String,
    /// Standard output, then standard error.
    pub streams: [Vec<u8>; 2],
    /// Bytes of each that came, but are too many to be shown here.
    pub beyond: [u64; 2],
}

/// Collects and folds.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    hosts: BTreeMap<String, Output>,
    bytes: usize,
}

impl Fold {
    /// Takes a piece in and says what of it is new.
    pub(crate) fn take<'a>(&mut self, piece: &'a Piece) -> Fresh<'a> {
        let capture = self.hosts.entry(piece.hostname.clone()).or_default().of(piece.stream);
        let fresh = capture.advance(piece);
        let before = capture.kept.len();
        capture.keep(&fresh, KEPT_BYTES_ALL_MAX.saturating_sub(self.bytes));
        self.bytes += capture.kept.len() - before;
        fresh
    }

    /// What a host has said so far on one stream.
    pub(crate) fn so_far(&self, host: &str, stream: Stream) -> &[u8] {
        let output = self.hosts.get(host);
        output.map_or(&[], |o| if stream == Stream::Stdout { &o.stdout.kept } else { &o.stderr.kept })
    }

    /// Folds the hosts with these ends: what ended well first, large groups before small ones.
    pub(crate) fn groups(mut self, endings: impl IntoIterator<Item = (String, String)>) -> Vec<Group> {
        let mut same: BTreeMap<Same, Vec<String>> = BTreeMap::new();
        for (host, ending) in endings {
            let Output { stdout, stderr } = self.hosts.remove(&host).unwrap_or_default();
            same.entry(Same { ending, stdout: stdout.into(), stderr: stderr.into() }).or_default().push(host);
        }
        let mut groups: Vec<Group> = same.into_iter().map(|(same, hosts)| group(same, hosts)).collect();
        groups.sort_by(|a, b| {
            let place = |g: &Group| (!g.ending.is_empty(), std::cmp::Reverse(g.hosts.len()));
            place(a).cmp(&place(b)).then_with(|| a.hosts.cmp(&b.hosts))
        });
        groups
    }
}

fn group(same: Same, mut hosts: Vec<String>) -> Group {
    hosts.sort();
    let Same { ending, stdout, stderr } = same;
    Group { hosts, ending, beyond: [stdout.beyond, stderr.beyond], streams: [stdout.kept, stderr.kept] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn piece(host: &str, offset: u64, data: &str) -> Piece {
        Piece { hostname: host.into(), stream: Stream::Stdout, offset, data: data.into() }
    }

    fn ends(hosts: &[(&str, &str)]) -> Vec<(String, String)> {
        hosts.iter().map(|(h, e)| ((*h).to_owned(), (*e).to_owned())).collect()
    }

    #[test]
    fn identical_outputs_are_one_group_and_failures_come_last() {
        let mut fold = Fold::default();
        for (host, text) in [("c", "x"), ("a", "x"), ("b", "y"), ("d", "x")] {
            fold.take(&piece(host, 0, text));
        }
        let groups =
            fold.groups(ends(&[("a", ""), ("b", ""), ("c", ""), ("d", "exit 1"), ("e", "rejected")]));
        let shown: Vec<(String, &str, &[u8])> =
            groups.iter().map(|g| (g.hosts.join(","), g.ending.as_str(), g.streams[0].as_slice())).collect();
        let expected: [(String, &str, &[u8]); 4] = [
            ("a,c".into(), "", b"x"),
            ("b".into(), "", b"y"),
            ("d".into(), "exit 1", b"x"),
            ("e".into(), "rejected", b""),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_comes_again_is_not_shown_again_and_what_is_missing_is_named() {
        let mut fold = Fold::default();
        assert_eq!(fold.take(&piece("a", 0, "abc")), Fresh { omitted: 0, data: b"abc" });
        assert_eq!(fold.take(&piece("a", 0, "abc")), Fresh { omitted: 0, data: b"" });
        assert_eq!(fold.take(&piece("a", 1, "bcde")), Fresh { omitted: 0, data: b"de" });
        assert_eq!(fold.take(&piece("a", 10, "k")), Fresh { omitted: 5, data: b"k" });
        assert_eq!(fold.so_far("a", Stream::Stdout), b"abcde\n[5 bytes were not kept]\nk");
    }

    #[test]
    fn hosts_that_differ_beyond_what_is_kept_are_told_apart() {
        let mut fold = Fold::default();
        let long = "x".repeat(KEPT_BYTES_MAX);
        for (host, last) in [("a", "1"), ("b", "2"), ("c", "1")] {
            fold.take(&piece(host, 0, &long));
            fold.take(&piece(host, KEPT_BYTES_MAX as u64, last));
        }
        let groups = fold.groups(ends(&[("a", ""), ("b", ""), ("c", "")]));
        assert_eq!(groups.iter().map(|g| g.hosts.join(",")).collect::<Vec<_>>(), ["a,c", "b"]);
        assert_eq!(groups[0].beyond, [1, 0]);
    }

    proptest! {
        #[test]
        fn a_resumed_stream_shows_each_byte_once(
            text in "[a-z]{0,60}",
            spans in prop::collection::vec((any::<prop::sample::Index>(), 0usize..20), 0..12),
        ) {
            let mut capture = Capture::default();
            let mut seen = Vec::new();
            // Pieces without a hole, each beginning anywhere in what was seen.
            let starts = spans.iter().map(|(start, extra)| (Some(start), *extra)).chain([(None, text.len())]);
            for (start, extra) in starts {
                let from = start.map_or(0, |start| start.index(seen.len() + 1));
                let to = (seen.len() + extra).min(text.len()).max(from);
                let fresh_piece = piece("a", from as u64, &text[from..to]);
                let fresh = capture.advance(&fresh_piece);
                prop_assert_eq!(fresh.omitted, 0);
                seen.extend_from_slice(fresh.data);
            }
            prop_assert_eq!(seen, text.as_bytes());
        }
    }
}
