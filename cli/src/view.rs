//! What a person sees of a task while it runs and when it is over.
//!
//! One host: its output goes straight through. Several hosts: the output of those that end soon is folded at the end;
//! on a terminal a host that keeps running is shown line by line, each with the host's name before it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signet_common::messages::Stream;

use crate::api::{Piece, Target};
use crate::exit::Exit;
use crate::fold::{Fold, Group, Output, omission};
use crate::limits::{HEADING_HOSTS_MAX, LINE_BYTES_MAX, LIVE_AFTER};
use crate::term::{Look, Term};
use crate::text::{Visible, one_line};

/// See the module.
pub(crate) struct View {
    term: Term,
    begun: Instant,
    bar: ProgressBar,
    targets: BTreeMap<String, Target>,
    kind: Kind,
}

enum Kind {
    One(Through),
    Many(Many),
}

impl View {
    /// A view of a task with these hosts.
    pub(crate) fn new(term: Term, targets: Vec<Target>) -> Self {
        let drawn = if term.stderr { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(targets.len() as u64), drawn);
        let style = ProgressStyle::with_template("{spinner} {pos}/{len} {msg} ({elapsed})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        let kind = match targets.len() {
            1 => Kind::One(Through::default()),
            _ => Kind::Many(Many::default()),
        };
        let targets = targets.into_iter().map(|t| (t.hostname.clone(), t)).collect();
        Self { term, begun: Instant::now(), bar, targets, kind }
    }

    /// A host's state changed.
    pub(crate) fn state(&mut self, target: Target) {
        self.targets.insert(target.hostname.clone(), target);
    }

    /// A host wrote something.
    ///
    /// # Errors
    /// When standard output can't be written to.
    pub(crate) fn output(&mut self, piece: &Piece) -> io::Result<()> {
        match &mut self.kind {
            Kind::One(through) => {
                // The progress line and an unfinished line of output would be drawn over each other.
                self.bar.finish_and_clear();
                through.pass(self.term, piece)
            }
            Kind::Many(many) => self.bar.suspend(|| many.take(self.term, piece)),
        }
    }

    /// Time has passed: the progress line moves, and what has run for long is shown from now on.
    ///
    /// # Errors
    /// When standard output can't be written to.
    pub(crate) fn tick(&mut self) -> io::Result<()> {
        let count = |test: fn(&Target) -> bool| self.targets.values().filter(|t| test(t)).count();
        let failed = count(|t| t.is_final() && !t.succeeded());
        let mut message = format!("{} running", count(|t| t.state == "running"));
        if failed > 0 {
            message.push_str(&format!(", {failed} failed"));
        }
        if !self.bar.is_finished() {
            self.bar.set_message(message);
            self.bar.set_position(count(Target::is_final) as u64);
            self.bar.tick();
        }
        if let Kind::Many(many) = &mut self.kind
            && self.term.stdout
        {
            let running = |host: &str| self.targets.get(host).is_some_and(|t| !t.is_final());
            self.bar.suspend(|| many.show_long_running(self.term, running))?;
        }
        Ok(())
    }

    /// A line for the person, beside the output.
    pub(crate) fn say(&self, look: Look, text: &str) {
        self.bar.suspend(|| self.term.say(look, text));
    }

    /// How many hosts are not final.
    pub(crate) fn open(&self) -> usize {
        self.targets.values().filter(|t| !t.is_final()).count()
    }

    /// Clears the progress line.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Shows what is left when everything is over: folded output and a summary.
    ///
    /// # Errors
    /// When standard output can't be written to.
    pub(crate) fn finish(self, task_id: &str) -> io::Result<Exit> {
        self.bar.finish_and_clear();
        let (total, seconds) = (self.targets.len(), self.begun.elapsed().as_secs_f64());
        let succeeded = self.targets.values().filter(|t| t.succeeded()).count();
        let exit = if succeeded == total { Exit::Success } else { Exit::SomeFailed };
        let endings = self.targets.values().map(|t| (t.hostname.clone(), t.ending()));
        match self.kind {
            Kind::One(through) => {
                through.finish(self.term)?;
                if let Some((host, ending)) = endings.into_iter().find(|(_, ending)| !ending.is_empty()) {
                    self.term.say(Look::Bad, &format!("{host}: {ending}"));
                }
            }
            Kind::Many(many) => {
                many.finish(self.term, endings)?;
                let failed = total - succeeded;
                let look = if failed == 0 { Look::Good } else { Look::Bad };
                let text = format!(
                    "{total} hosts: {succeeded} succeeded, {failed} failed, {seconds:.1} s (task {task_id})"
                );
                self.term.say(look, &text);
            }
        }
        Ok(exit)
    }
}

/// The output of the only host.
#[derive(Default)]
struct Through {
    output: Output,
    visible: [Visible; 2],
}

impl Through {
    fn pass(&mut self, term: Term, piece: &Piece) -> io::Result<()> {
        let fresh = self.output.of(piece.stream).advance(piece);
        if fresh.omitted > 0 {
            term.say(
                Look::Warn,
                &format!("{} bytes of {} were not kept", fresh.omitted, piece.stream.as_str()),
            );
        }
        let visible = &mut self.visible[index(piece.stream)];
        write_to(term, piece.stream, |is_terminal| {
            if is_terminal { visible.push(fresh.data).into_bytes() } else { fresh.data.to_vec() }
        })
    }

    fn finish(mut self, term: Term) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            write_to(term, stream, |_| self.visible[index(stream)].finish().into_bytes())?;
        }
        Ok(())
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

fn write_to(term: Term, stream: Stream, bytes: impl FnOnce(bool) -> Vec<u8>) -> io::Result<()> {
    match stream {
        Stream::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(&bytes(term.stdout))?;
            out.flush()
        }
        Stream::Stderr => io::stderr().lock().write_all(&bytes(term.stderr)),
    }
}

/// The output of several hosts.
#[derive(Default)]
struct Many {
    fold: Fold,
    /// Hosts that said something and are not shown live yet.
    quiet: BTreeMap<String, Instant>,
    /// Hosts that are shown live, with their unfinished lines.
    live: BTreeMap<String, [Vec<u8>; 2]>,
}

impl Many {
    fn take(&mut self, term: Term, piece: &Piece) -> io::Result<()> {
        let fresh = self.fold.take(piece);
        let Some(lines) = self.live.get_mut(&piece.hostname) else {
            self.quiet.entry(piece.hostname.clone()).or_insert_with(Instant::now);
            return Ok(());
        };
        let line = &mut lines[index(piece.stream)];
        if fresh.omitted > 0 {
            line.extend(omission(fresh.omitted).into_bytes());
        }
        line.extend_from_slice(fresh.data);
        whole_lines(term, &piece.hostname, line)
    }

    fn show_long_running(&mut self, term: Term, running: impl Fn(&str) -> bool) -> io::Result<()> {
        let long = |host: &str, since: &Instant| since.elapsed() >= LIVE_AFTER && running(host);
        let hosts: Vec<String> =
            self.quiet.iter().filter(|(h, s)| long(h, s)).map(|(h, _)| h.clone()).collect();
        for host in hosts {
            self.quiet.remove(&host);
            let so_far =
                [Stream::Stdout, Stream::Stderr].map(|stream| self.fold.so_far(&host, stream).to_vec());
            let lines = self.live.entry(host.clone()).or_insert(so_far);
            lines.iter_mut().try_for_each(|line| whole_lines(term, &host, line))?;
        }
        Ok(())
    }

    fn finish(mut self, term: Term, endings: impl Iterator<Item = (String, String)>) -> io::Result<()> {
        for (host, lines) in &mut self.live {
            for line in lines.iter_mut().filter(|line| !line.is_empty()) {
                line.push(b'\n');
                whole_lines(term, host, line)?;
            }
        }
        let mut out = io::stdout().lock();
        for group in self.fold.groups(endings) {
            let shown = group.hosts.iter().all(|host| self.live.contains_key(host));
            out.write_all(&block(term, &group, shown))?;
        }
        out.flush()
    }
}

/// Shows the whole lines at the front of a buffer, each with the host's name, and takes them out.
fn whole_lines(term: Term, host: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    while let Some(end) = line_end(buffer) {
        let line: Vec<u8> = buffer.drain(..end).collect();
        let text = one_line(&String::from_utf8_lossy(&line), usize::MAX);
        writeln!(out, "{} {text}", term.paint(Look::Dim, &format!("{host} |")))?;
    }
    out.flush()
}

fn line_end(buffer: &[u8]) -> Option<usize> {
    let newline = buffer.iter().position(|b| *b == b'\n').map(|at| at + 1);
    newline.filter(|end| *end <= LINE_BYTES_MAX).or((buffer.len() > LINE_BYTES_MAX).then_some(LINE_BYTES_MAX))
}

/// A folded group: `web1, web2 (2): output`.
fn block(term: Term, group: &Group, shown: bool) -> Vec<u8> {
    let most = if term.stdout { HEADING_HOSTS_MAX } else { usize::MAX };
    let mut heading = group.hosts.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
    if group.hosts.len() > most {
        heading.push_str(", …");
    }
    if group.hosts.len() > 1 {
        heading.push_str(&format!(" ({})", group.hosts.len()));
    }
    let mut block = format!("{}:", term.paint(Look::Bold, &heading));
    if !group.ending.is_empty() {
        block.push_str(&format!(
            " {}",
            term.paint(Look::Bad, &format!("[{}]", one_line(&group.ending, usize::MAX)))
        ));
    }
    let mut body = Vec::new();
    for (stream, beyond) in group.streams.iter().zip(group.beyond) {
        body.extend(term.bytes(stream));
        if !body.is_empty() && !body.ends_with(b"\n") {
            body.push(b'\n');
        }
        if beyond > 0 {
            body.extend(format!("[{beyond} more bytes: signet output TASK HOST]\n").into_bytes());
        }
    }
    if shown && !body.is_empty() {
        body = format!("{}\n", term.paint(Look::Dim, "(shown above)")).into_bytes();
    }
    // One line fits beside the names; more begin below them.
    let lines = body.iter().filter(|b| **b == b'\n').count();
    let mut block = block.into_bytes();
    block.extend(if lines == 1 && body != b"\n" { b" ".as_slice() } else { b"\n" });
    if body != b"\n" {
        block.extend(body);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> Term {
        Term { stdout: false, stderr: false, ..Term::detect() }
    }

    fn group(hosts: &[&str], ending: &str, stdout: &str, stderr: &str) -> Group {
        Group {
            hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
            ending: ending.into(),
            streams: [stdout.into(), stderr.into()],
            beyond: [0, 0],
        }
    }

    fn shown(group: &Group) -> String {
        String::from_utf8(block(pipe(), group, false)).unwrap()
    }

    #[test]
    fn a_group_is_a_line_or_a_block() {
        assert_eq!(shown(&group(&["a", "b"], "", "Linux 6\n", "")), "a, b (2): Linux 6\n");
        assert_eq!(shown(&group(&["a"], "", "1\n2", "")), "a:\n1\n2\n");
        assert_eq!(shown(&group(&["a"], "exit 2", "", "no\n")), "a: [exit 2] no\n");
        assert_eq!(shown(&group(&["a"], "", "", "")), "a:\n");
        assert_eq!(shown(&group(&["a"], "exit 1", "\n", "")), "a: [exit 1]\n");
        assert_eq!(shown(&group(&["a"], "", "out\n", "err\n")), "a:\nout\nerr\n");
    }

    #[test]
    fn a_terminal_is_never_obeyed_by_output() {
        let term = Term { stdout: true, ..Term::detect() };
        let text = block(term, &group(&["a"], "\x1b[2J", "\x1b[2Jx\n", ""), false);
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("\\x1b[2Jx") && !text.contains("\x1b[2J"), "{text:?}");
    }

    #[test]
    fn long_lines_are_cut() {
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert_eq!(line_end(&long), Some(LINE_BYTES_MAX));
        assert_eq!(line_end(b"ab\nc"), Some(3));
        assert_eq!(line_end(b"abc"), None);
    }
}
