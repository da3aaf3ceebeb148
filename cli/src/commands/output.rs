//! `signet output`: all kept output of one host.

use std::io::{self, Read as _, Write};

use clap::{Args, ValueEnum};

use crate::client::part;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::text::Visible;

/// Print what was kept of a command's output on one host
///
/// Into a file or pipe exactly as the command wrote it; on a terminal with escape codes made visible. With --output
/// json: the host's result with both streams in base64.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// The task's id
    id: String,
    /// The host
    host: String,
    /// Which stream
    #[arg(value_enum, default_value_t = Stream::Stdout)]
    stream: Stream,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stream {
    Stdout,
    Stderr,
}

impl Output {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        if context.json() {
            return self.result(context);
        }
        let stream = match self.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let path = format!("/api/tasks/{}/targets/{}/{stream}", part(&self.id), part(&self.host));
        let (headers, mut body) = context.client.bytes(&path)?;
        let mut visible = Visible::default();
        let mut buffer = vec![0; 64 * 1024];
        let mut out = io::stdout().lock();
        loop {
            let count = body.read(&mut buffer)?;
            let bytes = &buffer[..count];
            match (context.term.stdout, count) {
                (true, 0) => out.write_all(visible.finish().as_bytes())?,
                (true, _) => out.write_all(visible.push(bytes).as_bytes())?,
                (false, _) => out.write_all(bytes)?,
            }
            if count == 0 {
                break;
            }
        }
        out.flush()?;
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        if let (Some(from), Some(bytes)) = (header("signet-omitted-from"), header("signet-omitted-bytes")) {
            context.term.warn(&format!("{bytes} bytes from offset {from} on were not kept"));
        }
        Ok(Exit::Success)
    }

    fn result(&self, context: &Context) -> Result<Exit, Failure> {
        let mut found = None;
        context.client.list(&format!("/api/tasks/{}/results?encoding=base64", part(&self.id)), |row| {
            if row["hostname"] == self.host.to_lowercase() {
                found = Some(row);
            }
            Ok::<_, Failure>(found.is_none())
        })?;
        let found =
            found.ok_or_else(|| Failure::Usage(format!("{} has no result in this task", self.host)))?;
        context.print_json(&found)
    }
}
