//! Which message stands where, and what is to happen next. Pure: no clock, no disk, no process.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use signet_common::ids::Jti;
use signet_common::messages::BusyReason;

use crate::journal::number;
use crate::limits::{CONTROL_IDS_MAX, LATE_SECONDS_MAX, WAITING_BYTES_MAX, WAITING_MAX};
use crate::order::Order;
use crate::used::Used;
use crate::verify::Seen;

/// Where one message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// `accepted` is being written, with `started` when a slot was free.
    Accepting {
        /// Whether it takes a slot at once.
        start: bool,
    },
    /// Accepted, and waits for a slot.
    Waiting,
    /// `started` is being written, or the process is being spawned.
    Starting,
    /// Likewise, and a cancel came meanwhile.
    Cancelling,
    /// The process runs.
    Running,
    /// Over, or never to be started.
    Done,
}

/// What happens to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `accepted` is synced.
    Accepted,
    /// `accepted` could not be written: as if it had never come.
    Unwritten,
    /// Its turn has come.
    Chosen,
    /// `started` could not be written.
    Postponed,
    /// The process runs.
    Spawned,
    /// An admin wants it to end.
    Cancel,
    /// It ended, was refused or expired, and that is being written.
    Ended,
}

/// A step that can't happen in this stage: a fault in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{step:?} can't happen to a message that is {stage:?}")]
pub struct Illegal {
    /// Where it stood.
    pub stage: Stage,
    /// What was to happen.
    pub step: Step,
}

impl Stage {
    /// The stage after `step`.
    ///
    /// # Errors
    /// [`Illegal`].
    pub fn apply(self, step: Step) -> Result<Self, Illegal> {
        match (self, step) {
            (Self::Accepting { start: true }, Step::Accepted) => Ok(Self::Starting),
            (Self::Accepting { start: false }, Step::Accepted) | (Self::Starting, Step::Postponed) => {
                Ok(Self::Waiting)
            }
            (Self::Waiting, Step::Chosen) => Ok(Self::Starting),
            (Self::Starting | Self::Cancelling, Step::Cancel) => Ok(Self::Cancelling),
            (Self::Starting | Self::Cancelling, Step::Spawned) | (Self::Running, Step::Cancel) => {
                Ok(Self::Running)
            }
            (Self::Accepting { .. }, Step::Unwritten)
            | (Self::Waiting, Step::Cancel)
            | (Self::Cancelling, Step::Postponed)
            | (Self::Waiting | Self::Starting | Self::Cancelling | Self::Running, Step::Ended) => {
                Ok(Self::Done)
            }
            (stage, step) => Err(Illegal { stage, step }),
        }
    }

    /// Whether it holds a slot.
    fn holds_slot(self) -> bool {
        matches!(self, Self::Accepting { start: true } | Self::Starting | Self::Cancelling | Self::Running)
    }

    /// Whether it counts among what waits.
    fn waits(self) -> bool {
        matches!(self, Self::Accepting { start: false } | Self::Waiting)
    }
}

/// What was verified, ready to start.
pub type Ready = Arc<Order>;

#[derive(Debug)]
struct Item {
    stage: Stage,
    order: Ready,
    bytes: usize,
    /// The statement that people agreed to, if it took that.
    used: Option<Used>,
}

/// What a cancel leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelEffect {
    /// Its id was never seen: it is noted as cancelled, should it come.
    Unknown,
    /// It waited, and never starts.
    Withdrawn,
    /// It runs, or is about to: it is ended.
    Ending,
    /// It is over already.
    Nothing,
}

/// All messages of this agent.
#[derive(Debug)]
pub struct Work {
    slots: usize,
    items: HashMap<Jti, Item>,
    queue: VecDeque<Jti>,
    /// Ids that are known, and until when.
    known: HashMap<u128, i64>,
    /// Cancels, resumes and keyrings that were obeyed; the oldest are forgotten.
    control: VecDeque<u128>,
}

impl Work {
    /// Nothing to do, and these ids known.
    #[must_use]
    pub fn new(slots: usize, known: HashMap<u128, i64>) -> Self {
        Self { slots, items: HashMap::new(), queue: VecDeque::new(), known, control: VecDeque::new() }
    }

    /// Whether a message or a statement was seen before.
    #[must_use]
    pub fn has_seen(&self, what: Seen<'_>) -> bool {
        match what {
            Seen::Message(jti) => self.knows(jti),
            Seen::Statement(used) => self.known.contains_key(&used.id),
        }
    }

    /// Whether the id was seen before.
    #[must_use]
    pub fn knows(&self, jti: &Jti) -> bool {
        let id = number(jti);
        self.known.contains_key(&id) || self.control.contains(&id)
    }

    /// Makes an id known.
    pub fn remember(&mut self, jti: &Jti, exp: i64) {
        self.known.insert(number(jti), exp);
    }

    /// Forgets an id that could not be written down.
    pub fn forget_one(&mut self, jti: &Jti) {
        self.known.remove(&number(jti));
    }

    /// Where a message stands; `None` when it isn't here.
    #[must_use]
    pub fn stage(&self, jti: &Jti) -> Option<Stage> {
        self.items.get(jti).map(|item| item.stage)
    }

    /// Notes a message that starts nothing.
    pub fn obeyed(&mut self, jti: &Jti) {
        if self.control.len() == CONTROL_IDS_MAX {
            self.control.pop_front();
        }
        self.control.push_back(number(jti));
    }

    /// Forgets ids that expired [`LATE_SECONDS_MAX`] before `now`, but for messages that are still here.
    pub fn forget(&mut self, now: i64) {
        let messages = self.items.keys().map(number);
        let here: HashSet<u128> =
            messages.chain(self.items.values().filter_map(|i| Some(i.used?.id))).collect();
        self.known.retain(|id, exp| exp.saturating_add(LATE_SECONDS_MAX) >= now || here.contains(id));
    }

    /// Why no further message of this size can wait.
    #[must_use]
    pub fn busy(&self, bytes: usize) -> Option<BusyReason> {
        let waiting: usize = self.items.values().filter(|i| i.stage.waits()).map(|i| i.bytes).sum();
        let full = self.waiting() >= WAITING_MAX || waiting + bytes > WAITING_BYTES_MAX;
        full.then_some(BusyReason::QueueFull)
    }

    /// Takes a message whose `accepted` is about to be written. True when `started` is to be written with it.
    pub fn accept(&mut self, order: Ready, bytes: usize, may_start: bool) -> bool {
        let start = may_start && self.queue.is_empty() && self.running() < self.slots;
        let (jti, exp) = (order.jti().clone(), order.exp());
        let used = used(&order);
        self.known.insert(number(&jti), exp);
        self.known.extend(used.map(|used| (used.id, used.not_after)));
        self.items.insert(jti, Item { stage: Stage::Accepting { start }, order, bytes, used });
        start
    }

    /// After a restart: takes a message whose `accepted` is in the journal.
    pub fn recover(&mut self, order: Ready, bytes: usize) {
        let jti = order.jti().clone();
        self.queue.push_back(jti.clone());
        let used = used(&order);
        self.items.insert(jti, Item { stage: Stage::Waiting, order, bytes, used });
    }

    /// Moves a message on. Returns its new stage.
    ///
    /// # Errors
    /// [`Illegal`], also for a message that isn't here.
    pub fn step(&mut self, jti: &Jti, step: Step) -> Result<Stage, Illegal> {
        let Some(item) = self.items.get_mut(jti) else {
            return Err(Illegal { stage: Stage::Done, step });
        };
        let before = item.stage;
        let after = before.apply(step)?;
        item.stage = after;
        match (before, after) {
            (Stage::Accepting { .. }, Stage::Waiting) => self.queue.push_back(jti.clone()),
            (Stage::Starting, Stage::Waiting) => self.queue.push_front(jti.clone()),
            (Stage::Accepting { .. }, Stage::Done) => {
                if let Some(used) = self.items.remove(jti).and_then(|item| item.used) {
                    self.known.remove(&used.id);
                }
                self.known.remove(&number(jti));
            }
            (_, Stage::Done) => {
                self.queue.retain(|waiting| waiting != jti);
                self.items.remove(jti);
            }
            _ => {}
        }
        Ok(after)
    }

    /// The next message whose turn has come, now `Starting`.
    pub fn choose(&mut self) -> Option<Ready> {
        if self.running() >= self.slots {
            return None;
        }
        let jti = self.queue.pop_front()?;
        self.step(&jti, Step::Chosen).ok()?;
        self.items.get(&jti).map(|item| Arc::clone(&item.order))
    }

    /// What waits and passes `test` no more; they stay where they are.
    #[must_use]
    pub fn waiting_where(&self, test: impl Fn(&Order) -> bool) -> Vec<Ready> {
        let waiting = self.queue.iter().filter_map(|jti| self.items.get(jti));
        waiting.filter(|i| test(&i.order)).map(|i| Arc::clone(&i.order)).collect()
    }

    /// An admin wants `jti` to end.
    pub fn cancel(&mut self, jti: &Jti) -> CancelEffect {
        if !self.items.contains_key(jti) {
            return if self.knows(jti) { CancelEffect::Nothing } else { CancelEffect::Unknown };
        }
        match self.step(jti, Step::Cancel) {
            Ok(Stage::Done) => CancelEffect::Withdrawn,
            Ok(_) => CancelEffect::Ending,
            Err(_) => CancelEffect::Nothing,
        }
    }

    /// Messages that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.items.values().filter(|i| i.stage.waits()).count()
    }

    /// Slots in use.
    #[must_use]
    pub fn running(&self) -> usize {
        self.items.values().filter(|i| i.stage.holds_slot()).count()
    }
}

fn used(order: &Ready) -> Option<Used> {
    order.approval().map(|approval| Used::of(&approval.statement))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use signet_common::keys::SigningKey;
    use signet_common::{Envelope, PayloadType};
    use std::sync::LazyLock;

    static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());

    fn ready(exp: i64) -> Ready {
        let payload = json!({
            "iss": "controller", "aud": ["a".repeat(40)], "iat": 1, "exp": exp, "jti": Jti::generate(),
            "task_id": "t", "command": "true", "timeout": 30,
        });
        let envelope = Envelope::sign(&KEY, PayloadType::Command, &payload).unwrap();
        let message = envelope.verify(&[PayloadType::Command], |_| Some(KEY.public().clone())).unwrap();
        Arc::new(Order::Command(Box::new(message.parse().unwrap())))
    }

    fn jti(ready: &Ready) -> Jti {
        ready.jti().clone()
    }

    #[test]
    fn every_legal_step_and_no_other() {
        use Stage::{Accepting, Cancelling, Done, Running, Starting, Waiting};
        let stages = [
            Accepting { start: true },
            Accepting { start: false },
            Waiting,
            Starting,
            Cancelling,
            Running,
            Done,
        ];
        let steps = [
            Step::Accepted,
            Step::Unwritten,
            Step::Chosen,
            Step::Postponed,
            Step::Spawned,
            Step::Cancel,
            Step::Ended,
        ];
        let table = [
            [Some(Starting), Some(Done), None, None, None, None, None],
            [Some(Waiting), Some(Done), None, None, None, None, None],
            [None, None, Some(Starting), None, None, Some(Done), Some(Done)],
            [None, None, None, Some(Waiting), Some(Running), Some(Cancelling), Some(Done)],
            [None, None, None, Some(Done), Some(Running), Some(Cancelling), Some(Done)],
            [None, None, None, None, None, Some(Running), Some(Done)],
            [None; 7],
        ];
        for (stage, row) in stages.into_iter().zip(table) {
            for (step, expected) in steps.into_iter().zip(row) {
                assert_eq!(stage.apply(step).ok(), expected, "{stage:?} {step:?}");
            }
        }
    }

    #[test]
    fn slots_are_bounded_and_the_order_is_kept() {
        let mut work = Work::new(2, HashMap::new());
        let all: Vec<Ready> = (0..4).map(|_| ready(10)).collect();
        let started: Vec<bool> = all.iter().map(|c| work.accept(Arc::clone(c), 10, true)).collect();
        assert_eq!(started, [true, true, false, false]);
        for command in &all {
            work.step(&jti(command), Step::Accepted).unwrap();
        }
        assert_eq!((work.running(), work.waiting()), (2, 2));
        assert!(work.choose().is_none());
        work.step(&jti(&all[1]), Step::Ended).unwrap();
        assert_eq!(jti(&work.choose().unwrap()), jti(&all[2]));
        work.step(&jti(&all[2]), Step::Postponed).unwrap();
        assert_eq!(jti(&work.choose().unwrap()), jti(&all[2]), "it keeps its place");
        assert!(!work.accept(ready(10), 10, true), "nobody overtakes what waits");
    }

    #[test]
    fn an_unwritten_message_may_come_again() {
        let mut work = Work::new(1, HashMap::new());
        let command = ready(10);
        work.accept(Arc::clone(&command), 10, true);
        assert!(work.knows(&jti(&command)));
        work.step(&jti(&command), Step::Unwritten).unwrap();
        assert!(!work.knows(&jti(&command)));
        assert_eq!(work.running(), 0);
    }

    #[test]
    fn a_statement_is_used_by_what_is_accepted_and_known_until_it_is_over() {
        let until = 50;
        let statement = json!({
            "kind": "command", "task_id": "t", "requester": "a", "requested_at": 1, "not_after": until, "agents": ["a".repeat(40)],
            "message": {},
        });
        let statement = statement.to_string().into_bytes();
        let used = Seen::Statement(Used::of(&statement));
        let approved = || {
            let plain = ready(10);
            let payload = json!({
                "iss": "controller", "aud": ["a".repeat(40)], "iat": 1, "exp": 10, "jti": jti(&plain),
                "task_id": "t", "command": "true", "timeout": 30,
                "approval": signet_common::statement::Approval { statement: statement.clone(), approvers: vec![], signatures: vec![] },
            });
            let envelope = Envelope::sign(&KEY, PayloadType::Command, &payload).unwrap();
            let message = envelope.verify(&[PayloadType::Command], |_| Some(KEY.public().clone())).unwrap();
            Arc::new(Order::Command(Box::new(message.parse().unwrap())))
        };
        let mut work = Work::new(1, HashMap::new());
        let (unwritten, taken): (Ready, Ready) = (approved(), approved());
        work.accept(Arc::clone(&unwritten), 10, true);
        assert!(work.has_seen(used), "a second message of the same batch is refused");
        work.step(&jti(&unwritten), Step::Unwritten).unwrap();
        assert!(!work.has_seen(used), "what could not be written used nothing up");

        work.accept(Arc::clone(&taken), 10, true);
        work.step(&jti(&taken), Step::Accepted).unwrap();
        work.forget(until + LATE_SECONDS_MAX + 1);
        assert!(work.has_seen(used), "its message is here still");
        work.step(&jti(&taken), Step::Ended).unwrap();
        work.forget(until + LATE_SECONDS_MAX);
        assert!(work.has_seen(used) && !work.knows(&jti(&taken)));
        work.forget(until + LATE_SECONDS_MAX + 1);
        assert!(!work.has_seen(used));
    }

    #[test]
    fn cancels() {
        let mut work = Work::new(1, HashMap::new());
        let (runs, waits) = (ready(10), ready(10));
        for command in [&runs, &waits] {
            work.accept(Arc::clone(command), 10, true);
            work.step(&jti(command), Step::Accepted).unwrap();
        }
        assert_eq!(work.cancel(&jti(&runs)), CancelEffect::Ending);
        assert_eq!(work.step(&jti(&runs), Step::Spawned), Ok(Stage::Running));
        assert_eq!(work.cancel(&jti(&runs)), CancelEffect::Ending);
        assert_eq!(work.cancel(&jti(&waits)), CancelEffect::Withdrawn);
        assert_eq!(work.cancel(&jti(&waits)), CancelEffect::Nothing);
        work.step(&jti(&runs), Step::Ended).unwrap();
        assert_eq!(work.cancel(&jti(&runs)), CancelEffect::Nothing);
        assert!(work.choose().is_none());
        assert_eq!(work.cancel(&Jti::generate()), CancelEffect::Unknown);
    }

    #[test]
    fn ids_are_forgotten_when_they_expired_and_are_over() {
        let mut work = Work::new(1, HashMap::new());
        let (over, here) = (ready(10), ready(10));
        for command in [&over, &here] {
            work.accept(Arc::clone(command), 10, true);
            work.step(&jti(command), Step::Accepted).unwrap();
        }
        work.step(&jti(&over), Step::Ended).unwrap();
        work.forget(10 + LATE_SECONDS_MAX);
        assert!(work.knows(&jti(&over)), "else it would be told of again as one that came late");
        work.forget(11 + LATE_SECONDS_MAX);
        assert!(!work.knows(&jti(&over)));
        assert!(work.knows(&jti(&here)));
    }

    #[test]
    fn waiting_is_bounded_by_count_and_bytes() {
        let mut work = Work::new(0, HashMap::new());
        assert_eq!(work.busy(WAITING_BYTES_MAX), None);
        assert_eq!(work.busy(WAITING_BYTES_MAX + 1), Some(BusyReason::QueueFull));
        let command = ready(10);
        work.accept(command, WAITING_BYTES_MAX, true);
        assert_eq!(work.busy(1), Some(BusyReason::QueueFull));
        assert_eq!(work.waiting(), 1);
    }
}
