//! The files of a journal: their names, and how one is read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::record::{self, NoRecord, Record};

/// One segment's path.
pub(super) fn path(dir: &Path, ordinal: u64) -> PathBuf {
    dir.join(format!("{ordinal:012}.seg"))
}

/// The ordinals of all segments, in order.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(ordinal) = name.to_str().and_then(|n| n.strip_suffix(".seg")).and_then(|n| n.parse().ok())
        {
            found.push(ordinal);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes what happened to a directory's entries durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Something that was once synced can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged {
    /// Where in the segment.
    pub offset: usize,
}

/// Which batch comes next, across segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NextBatch(pub Option<u32>);

/// Reads whole batches and hands each record and its offset to `visit`; returns the length of what is intact.
///
/// In the segment that was written last, a broken end is a torn write and is left out, unless a later batch is intact:
/// that one was written only after the broken one was synced. Anywhere else whatever is broken is damage.
pub(super) fn scan(
    bytes: &[u8],
    written_last: bool,
    next: &mut NextBatch,
    mut visit: impl FnMut(&Record, usize),
) -> Result<usize, Damaged> {
    let (mut offset, mut whole) = (0, 0);
    let mut batch: Vec<(Record, usize)> = Vec::new();
    while offset < bytes.len() {
        let (found, size) = match record::decode(&bytes[offset..]) {
            Ok(found) => found,
            Err(NoRecord) if written_last && !later_batch(&bytes[offset..], *next) => break,
            Err(NoRecord) => return Err(Damaged { offset }),
        };
        if next.0.is_some_and(|expected| expected != found.batch) {
            return Err(Damaged { offset });
        }
        *next = NextBatch(Some(if found.last { found.batch.wrapping_add(1) } else { found.batch }));
        let last = found.last;
        batch.push((found, offset));
        offset += size;
        if last {
            batch.drain(..).for_each(|(record, at)| visit(&record, at));
            whole = offset;
        }
    }
    if let Some((first, _)) = batch.first() {
        // An unfinished batch was never synced, so nobody acted upon it.
        *next = NextBatch(Some(first.batch));
    }
    if whole < bytes.len() && !written_last {
        return Err(Damaged { offset: whole });
    }
    Ok(whole)
}

/// Whether an intact record of a later batch than the broken one lies anywhere in `bytes`.
fn later_batch(bytes: &[u8], broken: NextBatch) -> bool {
    let Some(broken) = broken.0 else { return false };
    (1..bytes.len().saturating_sub(record::HEAD)).any(|at| {
        let rest = &bytes[at..];
        // Flags and kind are checked first: that spares nearly every checksum.
        let plausible = rest[record::HEAD - 2] <= 1 && rest[record::HEAD - 1] <= record::KIND_MAX;
        plausible
            && record::decode(rest).is_ok_and(|(found, _)| {
                let ahead = found.batch.wrapping_sub(broken);
                ahead != 0 && ahead < u32::MAX / 2
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::{Content, encode};

    fn event(text: &str) -> Content {
        Content::Event { exp: 0, text: text.into() }
    }

    /// Three batches of two records each; the offsets at which the records begin.
    fn three() -> (Vec<u8>, Vec<usize>) {
        let (mut out, mut offsets) = (Vec::new(), Vec::new());
        for batch in 5..8 {
            for last in [false, true] {
                offsets.push(out.len());
                encode(&mut out, batch, last, &event(&format!("{batch}{last}")));
            }
        }
        (out, offsets)
    }

    fn run(bytes: &[u8], written_last: bool) -> (Result<usize, Damaged>, usize) {
        let mut seen = 0;
        let result = scan(bytes, written_last, &mut NextBatch(Some(5)), |_, _| seen += 1);
        (result, seen)
    }

    #[test]
    fn whole_batches_are_read() {
        let (bytes, _) = three();
        assert_eq!(run(&bytes, true), (Ok(bytes.len()), 6));
        assert_eq!(run(&bytes, false), (Ok(bytes.len()), 6));
    }

    #[test]
    fn a_torn_tail_is_cut_at_any_byte_in_the_last_segment_only() {
        let (bytes, offsets) = three();
        for cut in offsets[4] + 1..bytes.len() {
            assert_eq!(run(&bytes[..cut], true), (Ok(offsets[4]), 4), "cut at {cut}");
            assert!(run(&bytes[..cut], false).0.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn zeros_behind_the_end_are_a_torn_tail() {
        let (mut bytes, _) = three();
        let len = bytes.len();
        bytes.resize(len + 500, 0);
        assert_eq!(run(&bytes, true), (Ok(len), 6));
    }

    #[test]
    fn pages_of_the_last_batch_may_be_written_in_any_order() {
        let (mut bytes, offsets) = three();
        bytes[offsets[4] + 16] ^= 1;
        assert_eq!(run(&bytes, true), (Ok(offsets[4]), 4));
    }

    #[test]
    fn a_damaged_middle_is_told_from_a_torn_tail() {
        let (bytes, offsets) = three();
        for at in 0..offsets[4] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            assert!(run(&bytes, true).0.is_err(), "damage at {at}");
        }
    }
}
