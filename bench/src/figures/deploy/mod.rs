//! One repository of about 20 MB to ten hosts that have nothing yet, and once more when there is nothing to do: by agents,
//! over SSH, and by plain git. All on this machine: each host is a mount namespace in which a directory of its own is
//! `/srv`.

mod repository;
mod sides;

use anyhow::ensure;
use signet_testkit::sshd::Sshd;

use self::sides::{Agents, Plain, Site, Ssh};
use super::Options;
use crate::stats::Runs;
use crate::table::{Line, Other, Row, Target};

const FIRST: &str = "first deployment to 10 hosts, by agents";
const AGAIN: &str = "deployment of nothing new to 10 hosts, by agents";

/// One figure a run of each side.
struct Measured {
    plain: Runs,
    agents: Runs,
    ssh: Runs,
}

impl Measured {
    fn new() -> Self {
        Self { plain: Runs::new(), agents: Runs::new(), ssh: Runs::new() }
    }

    /// Beside plain git, at most this many times as long, and beside SSH, at most that part of it.
    fn lines(self, figure: &str, git: &'static str, most: f64, part: f64) -> [Line; 2] {
        let line = |beside: &str, name, runs, most| {
            Line::Measured(Row {
                figure: format!("{figure}, beside {beside}"),
                unit: "s",
                ours: self.agents.clone(),
                other: Some(Other { name, runs }),
                target: Target::RatioAtMost(most),
            })
        };
        [line("plain git", git, self.plain.clone(), most), line("SSH", "ansible", self.ssh.clone(), part)]
    }
}

pub(super) async fn measure(options: &Options) -> anyhow::Result<Vec<Line>> {
    if let Some(why) = missing() {
        let left_out = |figure: &str| Line::LeftOut { figure: figure.to_owned(), why: why.clone() };
        return Ok([FIRST, AGAIN].map(left_out).to_vec());
    }
    let site = Site::new()?;
    let plain = Plain::new(&site)?;
    let agents = Agents::start(&site).await?;
    let ssh = Ssh::start(&site)?;
    let [mut first, mut again] = [Measured::new(), Measured::new()];
    for _ in 0..options.runs {
        plain.clear()?;
        agents.clear()?;
        ssh.clear()?;
        first.plain.push(plain.clone_all().await?);
        first.agents.push(agents.deploy(true).await?);
        first.ssh.push(ssh.deploy(&agents.stage, true).await?);
        again.plain.push(plain.update_all().await?);
        again.agents.push(agents.deploy(false).await?);
        again.ssh.push(ssh.deploy(&agents.stage, false).await?);
        ensure!(plain.commit()? == agents.commit()?, "agents left something else than git");
        ensure!(plain.commit()? == ssh.commit()?, "ansible left something else than git");
    }
    let first = first.lines(FIRST, "`git clone`", 1.5, 0.5);
    let again = again.lines(AGAIN, "`git fetch && git status`", 2.5, 0.1);
    Ok(first.into_iter().chain(again).collect())
}

/// Why it can't be measured here.
fn missing() -> Option<String> {
    if !Sshd::possible() {
        return Some("only root may make hosts of mount namespaces".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &&str| {
        // Where Debian has sshd, and no user's PATH.
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into()])
            .any(|directory| directory.join(program).is_file())
    };
    let needed = ["git", "xargs", "unshare", "sshd", "ansible-playbook"];
    let missing: Vec<&str> = needed.into_iter().filter(|program| !there(program)).collect();
    (!missing.is_empty()).then(|| format!("there is no {} on this machine", missing.join(", no ")))
}
