//! A controller that is just enough: it answers hellos over HTTP, signs messages onto a bus, and takes in
//! reports as the true one does (verified, in order, with a cursor).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use signet_common::bus::memory::MemoryBus;
use signet_common::bus::{Address, Bus, Consumer, Mode, Published, Queue};
use signet_common::chain::{ChainHash, Chained};
use signet_common::envelope::{Audience, DsseJson};
use signet_common::ids::{AgentId, Jti, LogId};
use signet_common::join::JoinToken;
use signet_common::keyring::Keyring;
use signet_common::keys::{PublicKey, SigningKey};
use signet_common::messages::{CommandResult, Event, Heartbeat, Hello, Report, Standing, Welcome};
use signet_common::time::Micros;
use signet_common::{Envelope, PayloadType};
use signet_testkit::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the controller knows and answers.
pub(crate) struct State {
    pub(crate) keyring: Keyring,
    pub(crate) chain: Vec<DsseJson>,
    pub(crate) signing: SigningKey,
    pub(crate) standing: Standing,
    /// Answer the next hello of an old log with `new_log`.
    pub(crate) new_log: bool,
    /// Answer with this error instead.
    pub(crate) refuse: Option<(u16, &'static str)>,
    pub(crate) hellos: Vec<Hello>,
    pub(crate) keys: HashMap<AgentId, PublicKey>,
    /// Per log: the last event taken and the chain there.
    pub(crate) cursors: HashMap<LogId, (u64, ChainHash)>,
    /// All events taken, in order.
    pub(crate) events: Vec<Event>,
    pub(crate) reports: u64,
    nonces: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Controller {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) url: String,
    pub(crate) token: JoinToken,
}

pub(crate) fn now() -> i64 {
    Micros::now().seconds()
}

impl Controller {
    /// On a bus in this process.
    pub(crate) async fn start() -> Self {
        Self::start_on(Arc::new(MemoryBus::default())).await
    }

    pub(crate) async fn start_on(bus: Arc<dyn Bus>) -> Self {
        let signing = SigningKey::generate().unwrap();
        let (keyring, first) = Keyring::first(&signing, now()).unwrap();
        let token = JoinToken::new("t1".into(), "s3cret".into(), signing.public().id().clone());
        for queue in [Queue::Reports, Queue::Heartbeats] {
            bus.declare(&queue).await.unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            keyring,
            chain: vec![first],
            signing,
            standing: Standing::Accepted,
            new_log: false,
            refuse: None,
            hellos: Vec::new(),
            keys: HashMap::new(),
            cursors: HashMap::new(),
            events: Vec::new(),
            reports: 0,
            nonces: Vec::new(),
        };
        let controller = Self { state: Arc::new(Mutex::new(state)), bus, url, token };
        let serving = controller.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        let taking = controller.clone();
        tokio::spawn(async move { taking.intake().await });
        controller
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut request = Vec::new();
        let mut piece = [0; 4096];
        let (head, body) = loop {
            let got = stream.read(&mut piece).await.unwrap();
            request.extend_from_slice(&piece[..got]);
            let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = String::from_utf8(request[..end].to_vec()).unwrap();
            let length = head
                .lines()
                .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if request.len() >= end + 4 + length.unwrap_or(0_usize) {
                break (head, request[end + 4..].to_vec());
            }
        };
        let (status, headers, body) = if head.starts_with("GET /api/agents/nonce ") {
            let nonce = Jti::generate().to_string();
            self.state().nonces.push(nonce.clone());
            (200, String::new(), json!({ "nonce": nonce }).to_string())
        } else if head.starts_with("POST /api/agents/hello ") {
            self.hello(&body).await
        } else {
            (404, String::new(), json!({ "detail": "Not Found" }).to_string())
        };
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.ok();
    }

    async fn hello(&self, body: &[u8]) -> (u16, String, String) {
        let envelope = serde_json::from_slice::<DsseJson>(body).unwrap().envelope().unwrap();
        let claimed: Hello = serde_json::from_slice(&envelope.body).unwrap();
        let key = PublicKey::from_pem(&claimed.public_key).unwrap();
        let authentic = envelope.verify(&[PayloadType::Hello], |_| Some(key.clone())).unwrap();
        let hello = authentic.open::<Hello>(&Audience::Controller).unwrap().into_inner();
        let id = key.agent_id();
        assert_eq!(hello.iss, id.as_str());
        let answer = {
            let mut state = self.state();
            let fresh = state.nonces.iter().position(|n| *n == hello.controller_nonce);
            state.nonces.remove(fresh.expect("a nonce counts once"));
            let joins = hello
                .join
                .as_ref()
                .is_some_and(|proof| self.token.verifier().accepts(proof, &hello.controller_nonce, &id));
            if let Some((status, detail)) = state.refuse {
                return (status, String::new(), json!({ "detail": detail }).to_string());
            }
            if !joins && !state.keys.contains_key(&id) {
                return (401, String::new(), json!({ "detail": "join token refused" }).to_string());
            }
            state.keys.insert(id.clone(), key);
            let welcome = state.welcome(&hello, &id);
            state.hellos.push(hello);
            let chain = STANDARD.encode(serde_json::to_vec(&state.chain).unwrap());
            let signed = Envelope::sign(&state.signing, PayloadType::Welcome, &welcome).unwrap();
            let body = serde_json::to_string(&signed.to_dsse()).unwrap();
            (200, format!("signet-keyring: {chain}\r\n"), body)
        };
        self.bus.declare(&Queue::Agent(id)).await.unwrap();
        answer
    }

    async fn intake(&self) {
        let mut consumer = self.bus.consume(&Queue::Reports, Mode::SingleActive, 10).await.unwrap();
        loop {
            let Ok(taken) = consumer.next().await else {
                self.bus.declare(&Queue::Reports).await.ok();
                if let Ok(again) = self.bus.consume(&Queue::Reports, Mode::SingleActive, 10).await {
                    consumer = again;
                } else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                continue;
            };
            self.state().take(&taken.envelope);
            consumer.ack(taken.tag).await.ok();
        }
    }

    /// Waits until `test` finds something in the state.
    pub(crate) async fn wait<T>(&self, what: &str, mut test: impl FnMut(&mut State) -> Option<T>) -> T {
        eventually(PATIENCE, what, async || test(&mut self.state())).await
    }

    /// How `jti` ended.
    pub(crate) async fn result(&self, jti: &Jti) -> CommandResult {
        self.wait("a result", |state| {
            state.events.iter().find_map(|event| match event {
                Event::Result { jti: of, result, .. } if of == jti => Some((**result).clone()),
                _ => None,
            })
        })
        .await
    }

    /// Waits for `started` of `jti`.
    pub(crate) async fn started(&self, jti: &Jti) {
        self.wait("started", |state| state.find("started", jti).then_some(())).await;
    }

    pub(crate) fn sign(&self, kind: PayloadType, payload: &Value) -> Envelope {
        Envelope::sign(&self.state().signing, kind, payload).unwrap()
    }

    pub(crate) async fn publish(&self, to: &AgentId, envelope: Envelope) {
        let published = self.bus.publish(&Address::Agent(to.clone()), envelope).await.unwrap();
        assert_eq!(published, Published::Confirmed);
    }

    /// Signs and sends a command; `change` overrides its fields.
    pub(crate) async fn command(&self, to: &AgentId, change: Value) -> Jti {
        let (jti, payload) = command(to, change);
        self.publish(to, self.sign(PayloadType::Command, &payload)).await;
        jti
    }

    pub(crate) async fn cancel(&self, to: &AgentId, cancels: &Jti) {
        let payload = json!({
            "iss": "controller", "aud": [to], "iat": now(), "exp": now() + 60, "jti": Jti::generate(),
            "cancels": cancels, "cancels_exp": now() + 600,
        });
        self.publish(to, self.sign(PayloadType::Cancel, &payload)).await;
    }

    /// A `resume` from the cursor of `log`, or one that names no log.
    pub(crate) async fn resume(&self, to: &AgentId, log: Option<&LogId>) {
        let mut payload = json!({
            "iss": "controller", "aud": [to], "iat": now(), "exp": now() + 60, "jti": Jti::generate(),
        });
        if let Some(log) = log {
            let cursor = self.state().cursors.get(log).copied();
            let (seq, chain) = cursor.unwrap_or((0, ChainHash::genesis(log)));
            (payload["log_id"], payload["seq"], payload["chain"]) = (json!(log), json!(seq), json!(chain));
        }
        self.publish(to, self.sign(PayloadType::Resume, &payload)).await;
    }

    /// The next heartbeat that passes `test`.
    pub(crate) async fn heartbeat(&self, test: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        let consumer = self.bus.consume(&Queue::Heartbeats, Mode::SingleActive, 10).await.unwrap();
        let found = tokio::time::timeout(PATIENCE, self.next_heartbeat(consumer, test)).await;
        found.expect("waited in vain for a heartbeat")
    }

    async fn next_heartbeat(
        &self,
        mut consumer: Box<dyn Consumer>,
        test: impl Fn(&Heartbeat) -> bool,
    ) -> Heartbeat {
        loop {
            let taken = consumer.next().await.unwrap();
            consumer.ack(taken.tag).await.unwrap();
            let key = |envelope: &Envelope| {
                self.state().keys.values().find(|k| k.id().as_str() == envelope.keyid).cloned()
            };
            let authentic =
                taken.envelope.verify(&[PayloadType::Heartbeat], |_| key(&taken.envelope)).unwrap();
            let heartbeat = authentic.open::<Heartbeat>(&Audience::Controller).unwrap().into_inner();
            if test(&heartbeat) {
                return heartbeat;
            }
        }
    }
}

impl State {
    fn welcome(&mut self, hello: &Hello, id: &AgentId) -> Welcome {
        let cursor = self.cursors.get(&hello.log_id).copied();
        let new_log = std::mem::take(&mut self.new_log) && !hello.new_log;
        if self.standing == Standing::SetAside && (new_log || hello.new_log) {
            self.standing = Standing::Accepted;
        }
        Welcome {
            iss: "controller".into(),
            aud: vec![id.clone()],
            iat: now(),
            jti: Jti::generate(),
            nonce: hello.nonce.clone(),
            standing: self.standing,
            reason: None,
            broker: None,
            cursor: cursor.map_or(0, |c| c.0),
            chain: cursor.map(|c| c.1),
            new_log,
            keyring: self.keyring.version(),
        }
    }

    fn take(&mut self, envelope: &Envelope) {
        let keys = self.keys.clone();
        let find = |id: &signet_common::KeyId| keys.values().find(|k| k.id() == id).cloned();
        let authentic = envelope.verify(&[PayloadType::Report], find).unwrap();
        let report = authentic.open::<Report>(&Audience::Controller).unwrap().into_inner();
        self.reports += 1;
        let genesis = (0, ChainHash::genesis(&report.log_id));
        let cursor = self.cursors.entry(report.log_id.clone()).or_insert(genesis);
        for text in report.events {
            let event = Chained::parse(text.get().to_owned()).unwrap();
            if event.seq <= cursor.0 {
                continue;
            }
            let gap = matches!(event.event, Event::Gap { .. });
            if !gap && event.seq > cursor.0 + 1 {
                return;
            }
            assert!(event.continues(cursor.1, cursor.0), "event {} breaks the chain", event.seq);
            *cursor = (event.seq, event.chain);
            self.events.push(event.event);
        }
    }

    /// Whether an event of this type came for `jti`.
    pub(crate) fn find(&self, kind: &str, jti: &Jti) -> bool {
        self.count(kind, jti) > 0
    }

    pub(crate) fn count(&self, kind: &str, jti: &Jti) -> usize {
        let of = |event: &&Event| {
            event.jti() == Some(jti) && serde_json::to_value(event).unwrap()["type"].as_str() == Some(kind)
        };
        self.events.iter().filter(of).count()
    }
}

/// A command's payload; `change` overrides its fields.
pub(crate) fn command(to: &AgentId, change: Value) -> (Jti, Value) {
    let jti = Jti::generate();
    let mut payload = json!({
        "iss": "controller", "aud": [to], "iat": now(), "exp": now() + 600, "jti": jti,
        "task_id": "t1", "command": "true", "timeout": 30,
    });
    payload.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    (jti, payload)
}
