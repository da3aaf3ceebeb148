//! The loops that a controller runs on, by name: the first that ends before its time is reported, and ends the program.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// Loops at work. Dropped, they are aborted.
#[derive(Debug)]
pub struct Loops {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    stop: CancellationToken,
}

impl Loops {
    /// None yet; they are to end when `stop` is cancelled, and not before.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { set: JoinSet::new(), names: HashMap::new(), stop }
    }

    /// What ends them.
    #[must_use]
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts one.
    pub fn spawn(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(work).id();
        self.names.insert(id, name);
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// When one panics, or ends although nobody stopped it: what it did is done by nobody any more.
    pub async fn finished(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.set.join_next_with_id().await {
            let id = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(id, ())| *id);
            let name = self.names.get(&id).copied().unwrap_or("a loop");
            match ended {
                Ok(_) if self.stop.is_cancelled() => {}
                Ok(_) => anyhow::bail!("{name} ended by itself"),
                Err(error) => return Err(anyhow::Error::new(error).context(format!("{name} died"))),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ended(work: impl Future<Output = ()> + Send + 'static) -> String {
        let mut loops = Loops::new(CancellationToken::new());
        loops.spawn("for ever", std::future::pending());
        loops.spawn("the sweep", work);
        format!("{:#}", loops.finished().await.unwrap_err())
    }

    #[tokio::test]
    async fn one_that_dies_or_ends_by_itself_is_named() {
        assert!(ended(async { panic!("oh") }).await.starts_with("the sweep died"));
        assert_eq!(ended(async {}).await, "the sweep ended by itself");
    }

    #[tokio::test]
    async fn all_end_with_the_stop() {
        let stop = CancellationToken::new();
        let mut loops = Loops::new(stop.clone());
        let until = loops.stop();
        loops.spawn("one", async move { until.cancelled().await });
        stop.cancel();
        loops.finished().await.unwrap();
    }
}
