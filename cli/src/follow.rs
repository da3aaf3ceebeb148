//! A task's live stream, taken up again where it broke.

use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::api::{Piece, Target};
use crate::client::{Client, ClientError, part};
use crate::limits::{LOST_MAX, NEWS_MAX, RECONNECT_FIRST, RECONNECT_MAX};
use crate::sse::{Event, Parser};

/// What a stream tells.
#[derive(Debug)]
pub(crate) enum News {
    /// A host is in this state now.
    State(Target),
    /// A host wrote something.
    Output(Piece),
    /// Every host is final, and everything was told.
    Done,
    /// The controller is away; it is tried again.
    Away(ClientError),
    /// Nothing more will come.
    Lost(ClientError),
}

/// Follows a task from its beginning on a thread of its own, until it is done or `News` is dropped.
pub(crate) fn follow(client: &Client, task_id: &str) -> Receiver<News> {
    let (sender, news) = sync_channel(NEWS_MAX);
    let path = format!("/api/tasks/{}/events", part(task_id));
    let client = client.clone();
    thread::spawn(move || Follower { client, path, last_id: String::new(), sender }.run());
    news
}

struct Follower {
    client: Client,
    path: String,
    last_id: String,
    sender: SyncSender<News>,
}

/// Why one connection's reading ended.
enum Break {
    /// The task is done, or nobody listens any more.
    Over,
    /// It said something before it broke, or not.
    Broken { told: bool },
}

impl Follower {
    fn run(mut self) {
        let mut pause = RECONNECT_FIRST;
        let mut last_word = Instant::now();
        loop {
            let error = match self.client.events(&self.path, &self.last_id) {
                Ok(stream) => match self.read(stream) {
                    Break::Over => return,
                    Break::Broken { told } => {
                        if told {
                            pause = RECONNECT_FIRST;
                        }
                        last_word = Instant::now();
                        None
                    }
                },
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                let over = !error.passes() || last_word.elapsed() > LOST_MAX;
                let news = if over { News::Lost(error) } else { News::Away(error) };
                if self.sender.send(news).is_err() || over {
                    return;
                }
            }
            thread::sleep(pause);
            pause = (pause * 2).min(RECONNECT_MAX).max(Duration::from_millis(1));
        }
    }

    fn read(&mut self, mut stream: impl Read) -> Break {
        let mut parser = Parser::default();
        let mut buffer = vec![0; 64 * 1024];
        let mut told = false;
        loop {
            let count = match stream.read(&mut buffer) {
                // The controller stops, or the connection broke: both are taken up again.
                Ok(0) | Err(_) => return Break::Broken { told },
                Ok(count) => count,
            };
            let Ok(events) = parser.push(&buffer[..count]) else { return Break::Broken { told } };
            for event in events {
                let done = event.name == "done";
                if !self.tell(&event) || done {
                    return Break::Over;
                }
                told = true;
                if !event.id.is_empty() {
                    self.last_id = event.id;
                }
            }
        }
    }

    /// Passes an event on; `false` when nobody listens. What a newer controller tells beyond this is left out.
    fn tell(&self, event: &Event) -> bool {
        let news = match event.name.as_str() {
            "state" => serde_json::from_str(&event.data).ok().map(News::State),
            "output" => serde_json::from_str(&event.data).ok().map(News::Output),
            "done" => Some(News::Done),
            _ => None,
        };
        news.is_none_or(|news| self.sender.send(news).is_ok())
    }
}
