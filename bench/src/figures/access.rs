//! What it takes to know who asks and what they may do, beside one row read by its primary key over the same pool; and
//! whether a refused log-in's time tells if there is such an account.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};
use signet_controller::accounts::{Credential, Way};
use signet_controller::http::permissions::Need;
use signet_controller::settings::{BusSettings, Secret, Settings};
use signet_controller::store::Statement;
use signet_controller::{Running, start};

use super::Options;
use crate::limits::{ACCESSES, LOG_INS};
use crate::stage::Ground;
use crate::stats::Runs;
use crate::table::{Other, Row, Target};

const ADMIN: &str = "a password of the bench";
const FLOOR: Statement = Statement::same("SELECT id, role FROM users WHERE id = ?");

/// A controller in this process, with an account, its token and its log-in.
struct Scene {
    running: Running,
    token: String,
    jwt: String,
    user: i64,
    _ground: Ground,
}

impl Scene {
    async fn new() -> anyhow::Result<Self> {
        let ground = Ground::new().await?;
        let mut settings = Settings::embedded(&ground.path().join("controller"));
        settings.database_url = Secret::new(ground.database.url());
        settings.listen = vec!["127.0.0.1:0".parse()?];
        settings.admin_password = Some(Secret::new(ADMIN));
        settings.bus = BusSettings::InProcess;
        settings.trusted_proxies = vec!["127.0.0.1/32".parse()?];
        let mut running = start(settings).await?;
        running.ready().await?;
        let base = format!("http://{}", running.addrs[0]);
        let http = reqwest::Client::new();
        let body = json!({ "username": "admin", "password": ADMIN });
        let login = http.post(format!("{base}/api/auth/login")).json(&body).send().await?;
        let login: Value = login.error_for_status()?.json().await?;
        let jwt = login["access"].as_str().context("a token")?.to_owned();
        let body = json!({ "name": "bench", "role": "admin" });
        let made = http.post(format!("{base}/api/tokens")).bearer_auth(&jwt).json(&body).send().await?;
        let made: Value = made.error_for_status()?.json().await?;
        let token = made["token"].as_str().context("an API token")?.to_owned();
        let user = login["user"]["id"].as_i64().context("an id")?;
        Ok(Self { running, token, jwt, user, _ground: ground })
    }

    /// Microseconds for one request's credential and right.
    async fn access(&self, token: &str) -> anyhow::Result<f64> {
        let way = Way { peer: IpAddr::V4(Ipv4Addr::LOCALHOST), surface: "fleet" };
        let begun = Instant::now();
        for _ in 0..ACCESSES {
            let caller = self.running.app.accounts.caller(Credential::Token(token), way).await?;
            anyhow::ensure!(Need::Operate.allows(caller.role), "an admin may do that");
        }
        Ok(micros(begun, ACCESSES))
    }

    async fn floor(&self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        for _ in 0..ACCESSES {
            let row: Option<(i64, String)> = self.running.app.store.first(FLOOR.bind(self.user)).await?;
            anyhow::ensure!(row.is_some(), "the account is there");
        }
        Ok(micros(begun, ACCESSES))
    }

    /// Milliseconds for a log-in that is refused. Each comes from another address, so that none has to wait.
    async fn refused(&self, username: &str, round: usize) -> anyhow::Result<f64> {
        let http = reqwest::Client::new();
        let base = format!("http://{}", self.running.addrs[0]);
        let begun = Instant::now();
        for n in 0..LOG_INS {
            let peer = format!("192.0.{}.{}", round % 250, n % 250 + 1);
            let body = json!({ "username": username, "password": "not this one" });
            let request = http.post(format!("{base}/api/auth/login")).header("x-forwarded-for", peer);
            let answer = request.json(&body).send().await?;
            anyhow::ensure!(answer.status() == 401, "{}", answer.status());
        }
        Ok(micros(begun, LOG_INS) / 1_000.0)
    }
}

fn micros(begun: Instant, times: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let times = times as f64;
    begun.elapsed().as_secs_f64() * 1e6 / times
}

pub(super) async fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let scene = Scene::new().await?;
    scene.floor().await?;
    let [mut floors, mut tokens, mut jwts, mut unknown, mut wrong] = [(); 5].map(|()| Runs::new());
    for round in 0..options.runs {
        floors.push(scene.floor().await?);
        tokens.push(scene.access(&scene.token).await?);
        jwts.push(scene.access(&scene.jwt).await?);
        unknown.push(scene.refused("nobody", 2 * round).await?);
        wrong.push(scene.refused("admin", 2 * round + 1).await?);
    }
    let row = |figure: &str, unit, ours, name, runs, target| Row {
        figure: figure.into(),
        unit,
        ours,
        other: Some(Other { name, runs }),
        target,
    };
    Ok(vec![
        row("who asks, by API token", "µs", tokens, "one row", floors.clone(), Target::RatioAtMost(1.5)),
        row("who asks, by JWT", "µs", jwts, "one row", floors, Target::RatioAtMost(2.0)),
        row(
            "a log-in without such an account",
            "ms",
            unknown,
            "wrong password",
            wrong,
            Target::RatioAtMost(1.1),
        ),
    ])
}
