//! Doorbells: who watches a task is woken after each commit that changed it. The tables are the log; a bell carries
//! nothing but the task's name, so a lost one only costs the watcher's next look.

use std::sync::Arc;

use bytes::Bytes;
use signet_common::TaskId;
use signet_common::bus::{Address, Bus, BusError, Mode, Queue};
use signet_common::envelope::Envelope;
use signet_common::ids::StartId;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::limits::BELLS_MAX;
use crate::loops::Loops;

/// The content type of a doorbell. It is not signed, and nothing in it is believed: it only causes a look.
const BELL: &str = "application/vnd.signet.bell.v1+json";

/// Rings and hears bells, here and at the other controllers.
#[derive(Clone)]
pub struct Live(Arc<Inner>);

struct Inner {
    bells: broadcast::Sender<TaskId>,
    others: mpsc::Sender<TaskId>,
    inbox: std::sync::Mutex<Option<mpsc::Receiver<TaskId>>>,
    bus: Arc<dyn Bus>,
    start: StartId,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Live")
    }
}

impl Live {
    /// Bells over this bus.
    #[must_use]
    pub fn new(bus: Arc<dyn Bus>) -> Self {
        let (bells, _) = broadcast::channel(BELLS_MAX);
        let (others, inbox) = mpsc::channel(BELLS_MAX);
        let inbox = std::sync::Mutex::new(Some(inbox));
        Self(Arc::new(Inner { bells, others, inbox, bus, start: StartId::generate() }))
    }

    /// Wakes who watches this task. Call it after the commit, never before.
    pub fn ring(&self, task: &TaskId) {
        // No receiver is no fault: nobody watches.
        let here = self.0.bells.send(task.clone()).unwrap_or(0);
        let others = self.0.others.try_send(task.clone()).is_ok();
        tracing::trace!(%task, here, others, "bell");
    }

    /// Hears the bells from now on. Subscribe first, read the tables then.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<TaskId> {
        self.0.bells.subscribe()
    }

    /// Carries bells to and from other controllers until `stop`.
    pub fn run(&self, loops: &mut Loops) {
        let stop = loops.stop();
        if let Some(inbox) = self.0.inbox.lock().ok().and_then(|mut inbox| inbox.take()) {
            loops.spawn("the bells for other controllers", carry_out(self.clone(), inbox, stop.clone()));
        }
        loops.spawn("the bells of other controllers", carry_in(self.clone(), stop));
    }
}

async fn carry_out(live: Live, mut inbox: mpsc::Receiver<TaskId>, stop: CancellationToken) {
    loop {
        let task = tokio::select! {
            () = stop.cancelled() => return,
            task = inbox.recv() => task,
        };
        let Some(task) = task else { return };
        let body = Bytes::from(format!("{{\"task_id\":\"{task}\",\"from\":\"{}\"}}", live.0.start));
        let bell = Envelope { payload_type: BELL.into(), keyid: String::new(), sig: String::new(), body };
        if let Err(error) = live.0.bus.publish(&Address::Live, bell).await {
            tracing::trace!(%error, "a bell was not carried to the other controllers");
        }
    }
}

async fn carry_in(live: Live, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            heard = hear(&live) => {
                if let Err(error) = heard {
                    tracing::debug!(%error, "bells of other controllers are not heard");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(std::time::Duration::from_millis(crate::limits::INTAKE_PAUSE_MILLISECONDS)) => {}
        }
    }
}

async fn hear(live: &Live) -> Result<(), BusError> {
    #[derive(serde::Deserialize)]
    struct Bell {
        task_id: TaskId,
        from: String,
    }
    let queue = Queue::Live(live.0.start.to_string());
    live.0.bus.declare(&queue).await?;
    let mut consumer = live.0.bus.consume(&queue, Mode::Exclusive, 100).await?;
    loop {
        let taken = consumer.next().await?;
        if let Ok(bell) = serde_json::from_slice::<Bell>(&taken.envelope.body)
            && bell.from != live.0.start.as_str()
        {
            let woken = live.0.bells.send(bell.task_id).unwrap_or(0);
            tracing::trace!(woken, "a bell of another controller");
        }
        consumer.ack(taken.tag).await?;
    }
}
