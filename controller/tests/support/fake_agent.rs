//! An agent that a test plays, step by step, with everything signed and verified as a true one does it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::value::RawValue;
use signet_common::bus::{Address, Bus, Consumer, Mode, Published, Queue};
use signet_common::chain::{ChainHash, Chained};
use signet_common::deploy::Deploy;
use signet_common::envelope::{Audience, Authentic, DsseJson};
use signet_common::ids::{Jti, LogId, StartId};
use signet_common::join::JoinToken;
use signet_common::keyring::{Keyring, KeyringBody};
use signet_common::messages::{
    Cancel, Command, CommandResult, Event, FEATURES, Heartbeat, Hello, Isolation, KeyringPush, Outcome,
    Report, Resume, Standing, StreamSummary, Welcome,
};
use signet_common::seal::{Binding, SealingKey};
use signet_common::time::Micros;
use signet_common::{AgentId, Envelope, Hostname, PayloadType, PublicKey, SigningKey};
use signet_testkit::eventually;

use super::{Answer, JOIN_TOKEN, PATIENCE, TestApp};

/// An agent in a test's hands. Its journal is a list in memory; nothing happens unless the test says so.
pub struct FakeAgent {
    pub key: SigningKey,
    pub id: AgentId,
    pub hostname: Hostname,
    pub group: Option<String>,
    /// What it proves to know.
    pub join: JoinToken,
    pub bus: Arc<dyn Bus>,
    /// Whom it believes, once it was welcomed.
    pub keyring: Option<Keyring>,
    pub log_id: LogId,
    /// Whether no hello of this log was answered yet.
    pub new_log: bool,
    /// Every event of the log so far; the last one is the head.
    pub journal: Vec<Chained>,
    pub start_id: StartId,
    /// The number of the last report or heartbeat of this start.
    pub n: u64,
    /// The broker's address as the last welcome told it.
    pub broker: Option<String>,
    /// To which secrets for it are sealed.
    pub sealing: SealingKey,
    consumer: Option<Box<dyn Consumer>>,
}

impl FakeAgent {
    /// An agent that is known to nobody yet.
    pub async fn new(app: &TestApp, hostname: &str, group: &str) -> Self {
        Self::with_key(app, app.agent_key(), hostname, group).await
    }

    /// Likewise, with this key.
    pub async fn with_key(app: &TestApp, key: SigningKey, hostname: &str, group: &str) -> Self {
        Self {
            id: key.public().agent_id(),
            key,
            hostname: hostname.parse().unwrap(),
            group: Some(group.to_owned()),
            join: JOIN_TOKEN.parse().unwrap(),
            bus: app.parts.agent_bus().await,
            keyring: None,
            log_id: LogId::generate(),
            new_log: true,
            journal: Vec::new(),
            start_id: StartId::generate(),
            n: 0,
            broker: None,
            sealing: SealingKey::generate().unwrap(),
            consumer: None,
        }
    }

    /// An accepted agent that consumes its queue and that the controller has seen alive.
    pub async fn enrol(app: &TestApp, hostname: &str, group: &str) -> Self {
        let mut agent = Self::new(app, hostname, group).await;
        let welcome = agent.hello(app).await;
        assert_eq!(welcome.standing, Standing::Accepted, "{:?}", welcome.reason);
        agent.consume().await;
        agent.come_online(app).await;
        agent
    }

    /// Says hello and verifies the answer as an agent does.
    pub async fn hello(&mut self, app: &TestApp) -> Welcome {
        let hello = self.draft(app).await;
        let answer = self.say(app, &hello).await;
        let (chain, welcome) = opened(&answer);
        self.believe(&chain);
        let keyring = self.keyring.as_ref().unwrap();
        let envelope = welcome.envelope().unwrap();
        let authentic = envelope
            .verify(&[PayloadType::Welcome], |id| Some(keyring.current().clone()).filter(|k| k.id() == id))
            .unwrap();
        let welcome = authentic.open::<Welcome>(&Audience::Agent(self.id.clone())).unwrap().into_inner();
        assert_eq!(welcome.nonce, hello.nonce);
        // The log is new until an answer to its hello was heard.
        self.new_log &= welcome.standing != Standing::Accepted;
        if let Some(sealed) = &welcome.broker {
            let binding = Binding { jti: &welcome.jti, agent: &self.id, field: "broker" };
            self.broker = Some(String::from_utf8(self.sealing.open(sealed, binding).unwrap()).unwrap());
        }
        welcome
    }

    /// A hello that is still to be signed, with a fresh nonce of the controller's and a proof of the join token.
    pub async fn draft(&self, app: &TestApp) -> Hello {
        let nonce = TestApp::send(app.anonymous(Method::GET, "/api/agents/nonce")).await.expect(200);
        let controller_nonce = nonce["nonce"].as_str().unwrap().to_owned();
        Hello {
            iss: self.id.to_string(),
            aud: vec!["controller".into()],
            iat: Micros::now().seconds(),
            jti: Jti::generate(),
            public_key: self.key.public().to_pem(),
            hostname: self.hostname.clone(),
            group: self.group.clone(),
            join: Some(self.join.prove(&controller_nonce, &self.id)),
            controller_nonce,
            nonce: uuid::Uuid::new_v4().to_string(),
            sealing_key: self.sealing.public(),
            start_id: self.start_id.clone(),
            log_id: self.log_id.clone(),
            head: self.head(),
            chain: self.chain(),
            new_log: self.new_log,
            keyring: self.keyring.as_ref().map_or(0, Keyring::version),
            version: env!("CARGO_PKG_VERSION").into(),
            features: FEATURES.iter().map(|&f| f.to_owned()).collect(),
        }
    }

    /// Signs and sends a hello.
    pub async fn say(&self, app: &TestApp, hello: &Hello) -> Answer {
        let signed = Envelope::sign(&self.key, PayloadType::Hello, hello).unwrap().to_dsse();
        TestApp::send(app.anonymous(Method::POST, "/api/agents/hello").json(&signed)).await
    }

    fn believe(&mut self, chain: &[DsseJson]) {
        self.keyring = Some(match &self.keyring {
            Some(held) => held.advance_all(chain).unwrap(),
            None => {
                let newest = chain.last().unwrap();
                let body: KeyringBody = serde_json::from_slice(&newest.envelope().unwrap().body).unwrap();
                Keyring::trust_first(newest, PublicKey::from_pem(&body.current).unwrap().id()).unwrap()
            }
        });
    }

    /// Starts to consume its queue.
    pub async fn consume(&mut self) {
        let queue = Queue::Agent(self.id.clone());
        let consumer = eventually(PATIENCE, "the agent's queue", async || {
            self.bus.consume(&queue, Mode::Exclusive, 64).await.ok()
        });
        self.consumer = Some(consumer.await);
    }

    /// Stops to consume; what was not acknowledged goes back.
    pub fn leave(&mut self) {
        self.consumer = None;
    }

    /// Sends a heartbeat and waits until the server list shows the host online.
    pub async fn come_online(&mut self, app: &TestApp) {
        self.heartbeat().await;
        app.eventually(&format!("/api/servers/{}", self.hostname), |server| server["status"] == "online")
            .await;
    }

    /// The heartbeat of an idle agent.
    pub async fn heartbeat(&mut self) {
        self.heartbeat_with(|_| {}).await;
    }

    /// A heartbeat that the test changes before it is signed.
    pub async fn heartbeat_with(&mut self, change: impl FnOnce(&mut Heartbeat)) {
        self.n += 1;
        let mut heartbeat = Heartbeat {
            iss: self.id.to_string(),
            aud: vec!["controller".into()],
            iat: Micros::now().seconds(),
            jti: Jti::generate(),
            start_id: self.start_id.clone(),
            n: self.n,
            log_id: self.log_id.clone(),
            head: self.head(),
            chain: self.chain(),
            hostname: self.hostname.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            features: FEATURES.iter().map(|&f| f.to_owned()).collect(),
            keyring: self.keyring.as_ref().map_or(0, Keyring::version),
            stopping: false,
            busy: None,
            narrowed: false,
            isolation: Isolation::Cgroup,
            waiting: 0,
            running: 0,
            cpu_usage: 15.5,
            memory_usage: 60.2,
            load: [0.5, 0.25, 0.0],
            disk_usage: 42.0,
            uptime: 3_600,
            boot_id: "8c8d3a1e-6f2b-4f0e-9d0c-1f2e3d4c5b6a".into(),
            refused: [].into(),
            deploys: Vec::new(),
        };
        change(&mut heartbeat);
        let envelope = Envelope::sign(&self.key, PayloadType::Heartbeat, &heartbeat).unwrap();
        self.publish(&Address::Heartbeats, envelope).await;
    }

    /// The next message, verified, acknowledged, and for this agent.
    pub async fn next(&mut self) -> Authentic {
        let consumer = self.consumer.as_mut().expect("consume() comes first");
        let taken = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("a message comes").unwrap();
        consumer.ack(taken.tag).await.unwrap();
        let keyring = self.keyring.as_ref().unwrap();
        let authentic = taken.envelope.verify(PayloadType::TO_AGENTS, |id| keyring.find(id)).unwrap();
        let claims = authentic.claims().unwrap();
        authentic.audience(&claims, &Audience::Agent(self.id.clone())).unwrap();
        authentic
    }

    /// A message that is there already.
    pub async fn try_next(&mut self) -> Option<Authentic> {
        let consumer = self.consumer.as_mut().expect("consume() comes first");
        let taken = consumer.try_next()?;
        consumer.ack(taken.tag).await.unwrap();
        let keyring = self.keyring.as_ref().unwrap();
        Some(taken.envelope.verify(PayloadType::TO_AGENTS, |id| keyring.find(id)).unwrap())
    }

    /// The next message, which is a command. One that its journal knows was sent once more, as happens when a connection
    /// breaks or the sweep begins while a request is answered: it is passed over, as a true agent does.
    pub async fn next_command(&mut self) -> Command {
        loop {
            let message = self.next().await;
            assert_eq!(message.kind(), PayloadType::Command);
            let command: Command = message.parse().unwrap().into_inner();
            if !self.journal.iter().any(|known| known.event.jti() == Some(&command.jti)) {
                return command;
            }
        }
    }

    /// The next message, which is a deployment.
    pub async fn next_deploy(&mut self) -> Deploy {
        let message = self.next().await;
        assert_eq!(message.kind(), PayloadType::Deploy);
        message.parse().unwrap().into_inner()
    }

    /// The next message that is a cancel; commands that are sent again meanwhile are passed over.
    pub async fn next_cancel(&mut self) -> Cancel {
        loop {
            let message = self.next().await;
            if message.kind() == PayloadType::Cancel {
                return message.parse().unwrap().into_inner();
            }
        }
    }

    /// The next message that is a keyring, which it believes from now on and says so; others are passed over.
    pub async fn next_keyring(&mut self) {
        loop {
            let message = self.next().await;
            if message.kind() == PayloadType::Keyring {
                let push: KeyringPush = message.parse().unwrap().into_inner();
                self.keyring = Some(self.keyring.as_ref().unwrap().advance(&push.keyring).unwrap());
                return self.heartbeat().await;
            }
        }
    }

    /// The next message that is a resume; others are passed over.
    pub async fn next_resume(&mut self) -> Resume {
        loop {
            let message = self.next().await;
            if message.kind() == PayloadType::Resume {
                return message.parse().unwrap().into_inner();
            }
        }
    }

    /// The last event's number; 0 = none.
    pub fn head(&self) -> u64 {
        self.journal.last().map_or(0, |event| event.seq)
    }

    /// The chain at the head.
    pub fn chain(&self) -> ChainHash {
        self.journal.last().map_or_else(|| ChainHash::genesis(&self.log_id), |event| event.chain)
    }

    /// Writes events into the journal and reports nothing.
    pub fn write(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let next = Chained::next(self.chain(), self.head() + 1, event).unwrap();
            self.journal.push(next);
        }
    }

    /// Writes events and reports them.
    pub async fn report(&mut self, events: impl IntoIterator<Item = Event>) {
        let after = self.head();
        self.write(events);
        self.report_after(after).await;
    }

    /// Reports all that the journal has after this event, be it for the first time or again.
    pub async fn report_after(&mut self, seq: u64) {
        let envelope = self.report_envelope(seq);
        self.publish(&Address::Reports, envelope).await;
    }

    /// The signed report of all that the journal has after this event.
    pub fn report_envelope(&mut self, seq: u64) -> Envelope {
        self.n += 1;
        let events = self.journal.iter().filter(|event| event.seq > seq);
        let report = Report {
            iss: self.id.to_string(),
            aud: vec!["controller".into()],
            iat: Micros::now().seconds(),
            jti: Jti::generate(),
            start_id: self.start_id.clone(),
            n: self.n,
            log_id: self.log_id.clone(),
            events: events.map(|event| RawValue::from_string(event.text.clone()).unwrap()).collect(),
        };
        Envelope::sign(&self.key, PayloadType::Report, &report).unwrap()
    }

    /// Reports that a message is in the journal.
    pub async fn accepted(&mut self, jti: &Jti) {
        self.report([Event::Accepted { jti: jti.clone(), at: Micros::now().0 }]).await;
    }

    /// Reports that it was started.
    pub async fn started(&mut self, jti: &Jti) {
        self.report([Event::Started { jti: jti.clone(), at: Micros::now().0 }]).await;
    }

    /// Reports how it ended.
    pub async fn result(&mut self, jti: &Jti, result: CommandResult) {
        let result = Box::new(result);
        self.report([Event::Result { jti: jti.clone(), at: Micros::now().0, result }]).await;
    }

    /// Takes the next command and does what a true agent reports of a short one, in one report.
    pub async fn run_next(&mut self, result: CommandResult) -> Command {
        let command = self.next_command().await;
        let (jti, at) = (&command.jti, Micros::now().0);
        // What has expired never started.
        let started = (result.outcome != Outcome::Expired).then(|| Event::Started { jti: jti.clone(), at });
        let accepted = Event::Accepted { jti: jti.clone(), at };
        let end = Event::Result { jti: jti.clone(), at, result: Box::new(result) };
        self.report([Some(accepted), started, Some(end)].into_iter().flatten()).await;
        command
    }

    /// A new start of the program, with the same journal.
    pub fn restart(&mut self) {
        self.start_id = StartId::generate();
        (self.n, self.new_log) = (0, false);
    }

    /// A new log, as with a damaged journal.
    pub fn begin_log(&mut self) {
        self.log_id = LogId::generate();
        self.new_log = true;
        self.journal.clear();
    }

    async fn publish(&self, to: &Address, envelope: Envelope) {
        eventually(PATIENCE, "the broker to take it", async || {
            let published = self.bus.publish(to, envelope.clone()).await;
            matches!(published, Ok(Published::Confirmed)).then_some(())
        })
        .await;
    }
}

/// A hello's answer, unverified: the chain of keyrings from its header, and the welcome.
pub fn opened(answer: &Answer) -> (Vec<DsseJson>, DsseJson) {
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    let header = STANDARD.decode(answer.headers["signet-keyring"].as_bytes()).unwrap();
    (serde_json::from_slice(&header).unwrap(), serde_json::from_str(&answer.text).unwrap())
}

/// The result of a command that exited with this code and wrote this.
pub fn exited(code: i32, stdout: &str, stderr: &str) -> CommandResult {
    let summary = |text: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        StreamSummary { bytes: text.len() as u64, sha256: hex::encode(digest), ..StreamSummary::default() }
    };
    CommandResult {
        outcome: if code == 0 { Outcome::Succeeded } else { Outcome::Failed },
        exit_code: Some(code),
        stdout: stdout.into(),
        stderr: stderr.into(),
        stdout_summary: summary(stdout),
        stderr_summary: summary(stderr),
        duration_ms: 5,
        ..ended(Outcome::Succeeded)
    }
}

/// The result of a command that ended in another way.
pub fn ended(outcome: Outcome) -> CommandResult {
    CommandResult {
        outcome,
        reason: None,
        exit_code: None,
        signal: None,
        stdout: Vec::new(),
        stderr: Vec::new(),
        stdout_summary: StreamSummary::default(),
        stderr_summary: StreamSummary::default(),
        killed: 0,
        duration_ms: 0,
        deploy: None,
    }
}
