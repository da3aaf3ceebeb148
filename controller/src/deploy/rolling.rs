//! How a job goes from host to host: in what order, in which batches, and what is said in between. Both engines go by it.

use signet_common::limits::EXPIRY_SECONDS_BATCH;

use super::model::{Canary, Engine, Job, Plan, RunMode, Turn};
use super::request::batch_size;
use crate::dispatch::{BatchSize, Between, Brake, Rolling};
use crate::limits::BRAKE_HOSTS_SHOWN;

/// In what order the targets go, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turns {
    /// Places in the request, canaries first.
    pub(super) order: Vec<usize>,
    /// What cuts them into batches.
    pub(super) rolling: Rolling,
}

/// The turns of these hosts. `shuffle` is asked where the order is to be random.
pub(super) fn turns(
    plan: &Plan,
    engine: Engine,
    hosts: &[&str],
    shuffle: impl FnOnce(&mut [usize]),
) -> Turns {
    let options = &plan.options.rolling;
    let mut order: Vec<usize> = (0..hosts.len()).collect();
    match options.order.unwrap_or(Turn::Given) {
        Turn::Given => {}
        Turn::Name => order.sort_by_key(|at| hosts[*at].to_ascii_lowercase()),
        Turn::Reverse => order.reverse(),
        Turn::Random => shuffle(&mut order),
    }
    let canary = match &options.canary {
        None => 0,
        Some(Canary::Hosts(number)) => *number as usize,
        Some(Canary::Named(names)) => {
            let named = |at: &usize| names.iter().any(|name| name.eq_ignore_ascii_case(hosts[*at]));
            // The sort is stable: apart from that, the order stays.
            order.sort_by_key(|at| !named(at));
            order.iter().filter(|at| named(at)).count()
        }
    };
    Turns { order, rolling: cut(plan, engine, canary.min(hosts.len())) }
}

fn cut(plan: &Plan, engine: Engine, canary: usize) -> Rolling {
    let options = &plan.options.rolling;
    Rolling {
        canary,
        batch: batch(plan, engine),
        pause: options.pause.unwrap_or(0),
        max_failures: options.max_failures,
    }
}

/// Hosts at a time. Ansible itself takes one after the other where nothing else is asked for.
fn batch(plan: &Plan, engine: Engine) -> Option<BatchSize> {
    let one = plan.run_mode == RunMode::Serial
        && (engine == Engine::Agent || !plan.options.rolling.given().is_empty());
    if one {
        return Some(BatchSize::Hosts(1));
    }
    plan.options.rolling.batch.as_deref().and_then(batch_size)
}

/// What is wrong with the options, now that all hosts are known.
pub(super) fn misfits(plan: &Plan, hosts: &[&str]) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    if let Some(Canary::Named(names)) = &plan.options.rolling.canary {
        for (at, name) in names.iter().enumerate() {
            if !hosts.iter().any(|host| host.eq_ignore_ascii_case(name)) {
                wrong.push((format!("canary[{at}]"), "is none of the targets".into()));
            }
        }
    }
    let (timeout, pauses) = (plan.options.timeout, pauses(plan, hosts.len()));
    if pauses > 0 && pauses + u64::from(timeout) > u64::from(EXPIRY_SECONDS_BATCH) {
        wrong.push((
            "pause".into(),
            format!("the pauses ({pauses} s) and the timeout ({timeout} s) must not exceed {EXPIRY_SECONDS_BATCH} s"),
        ));
    }
    wrong
}

/// Seconds that may pass in pauses, at most.
fn pauses(plan: &Plan, hosts: usize) -> u64 {
    let canary = match &plan.options.rolling.canary {
        None => 0,
        Some(Canary::Hosts(number)) => *number as usize,
        // One at least.
        Some(Canary::Named(_)) => 1,
    };
    // The engine only matters where nothing is asked for, and then there is no pause.
    cut(plan, Engine::Agent, canary).pauses(hosts)
}

/// Seconds that a job may take in all: its pauses come on top of its own limit.
pub(super) fn limit(job: &Job) -> u64 {
    u64::from(job.plan.options.timeout) + pauses(&job.plan, usize::try_from(job.targets_count).unwrap_or(0))
}

/// What the log says between two batches.
pub(super) fn said(between: &Between) -> String {
    match between {
        Between::Pause(seconds) => format!("pause of {seconds} s"),
        Between::Stopped { by, left } => {
            let why = match by {
                Brake::Canary(hosts) => format!("canary {} failed", listed(hosts)),
                Brake::MaxFailures { failed, budget } => {
                    format!("{} failed, and max_failures is {budget}", counted(*failed))
                }
            };
            let are = if *left == 1 { "is" } else { "are" };
            format!("{why}: {} {are} skipped", counted(*left as u64))
        }
    }
}

fn counted(hosts: u64) -> String {
    if hosts == 1 { "1 host".into() } else { format!("{hosts} hosts") }
}

/// The first few of them.
fn listed(hosts: &[String]) -> String {
    let shown = hosts.iter().take(BRAKE_HOSTS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match hosts.len().saturating_sub(BRAKE_HOSTS_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::{Options, RollingOptions};
    use super::*;

    fn plan(run_mode: RunMode, rolling: RollingOptions) -> Plan {
        let options = serde_json::json!({ "timeout": 60, "host_key_policy": "pin" });
        let options = Options { rolling, ..serde_json::from_value(options).unwrap() };
        Plan { git_repo: "https://h/r".into(), git_branch: None, dest_path: "/srv".into(), run_mode, options }
    }

    const HOSTS: [&str; 4] = ["web-2", "db", "web-1", "cache"];

    fn order(rolling: RollingOptions) -> (Vec<&'static str>, Vec<usize>) {
        let turns = turns(&plan(RunMode::Parallel, rolling), Engine::Agent, &HOSTS, |all| all.rotate_left(1));
        (turns.order.into_iter().map(|at| HOSTS[at]).collect(), turns.rolling.sizes(HOSTS.len()))
    }

    #[test]
    fn hosts_go_as_asked() {
        let with = |order: Turn, canary: Option<Canary>| RollingOptions {
            order: Some(order),
            canary,
            ..RollingOptions::default()
        };
        assert_eq!(order(RollingOptions::default()), (HOSTS.to_vec(), vec![4]));
        assert_eq!(order(with(Turn::Name, None)).0, ["cache", "db", "web-1", "web-2"]);
        assert_eq!(order(with(Turn::Reverse, None)).0, ["cache", "web-1", "db", "web-2"]);
        assert_eq!(order(with(Turn::Random, None)).0, ["db", "web-1", "cache", "web-2"]);
        let first = with(Turn::Name, Some(Canary::Hosts(1)));
        assert_eq!(order(first), (vec!["cache", "db", "web-1", "web-2"], vec![1, 3]));
        let named = with(Turn::Given, Some(Canary::Named(vec!["WEB-1".into(), "db".into()])));
        assert_eq!(order(named), (vec!["db", "web-1", "web-2", "cache"], vec![2, 2]));
    }

    #[test]
    fn serial_is_one_at_a_time() {
        let sizes = |engine, rolling| {
            turns(&plan(RunMode::Serial, rolling), engine, &HOSTS, |_| {}).rolling.sizes(HOSTS.len())
        };
        assert_eq!(sizes(Engine::Agent, RollingOptions::default()), [1; 4]);
        assert_eq!(sizes(Engine::Ssh, RollingOptions::default()), [4]);
        let budget = RollingOptions { max_failures: Some(0), ..RollingOptions::default() };
        assert_eq!(sizes(Engine::Ssh, budget), [1; 4]);
    }

    #[test]
    fn what_can_not_fit_is_named() {
        let with = |pause, canary| {
            let one = Some("1".to_owned());
            plan(
                RunMode::Parallel,
                RollingOptions { batch: one, pause: Some(pause), canary, ..Default::default() },
            )
        };
        assert_eq!(misfits(&with(28_780, None), &HOSTS), []);
        assert_eq!(misfits(&with(28_781, None), &HOSTS)[0].0, "pause");
        let canary = Some(Canary::Named(vec!["db".into(), "nobody".into()]));
        assert_eq!(misfits(&with(0, canary), &HOSTS)[0].0, "canary[1]");
    }

    #[test]
    fn the_log_says_why() {
        let stopped = |by, left| said(&Between::Stopped { by, left });
        let canary = |n| Brake::Canary((1..=n).map(|n| format!("web-{n}")).collect());
        assert_eq!(stopped(canary(1), 9), "canary web-1 failed: 9 hosts are skipped");
        assert_eq!(stopped(canary(5), 1), "canary web-1, web-2, web-3 and 2 more failed: 1 host is skipped");
        let spent = Brake::MaxFailures { failed: 1, budget: 0 };
        assert_eq!(stopped(spent, 2), "1 host failed, and max_failures is 0: 2 hosts are skipped");
        assert_eq!(said(&Between::Pause(30)), "pause of 30 s");
    }

    fn some_order() -> impl Strategy<Value = Option<Turn>> {
        prop_oneof![
            Just(None),
            Just(Some(Turn::Given)),
            Just(Some(Turn::Name)),
            Just(Some(Turn::Reverse)),
            Just(Some(Turn::Random)),
        ]
    }

    proptest! {
        /// Every target has exactly one turn, and those that are named as canaries are the first batch.
        #[test]
        fn everybody_has_one_turn(
            hosts in proptest::collection::vec("[a-e]{1,2}", 1..30),
            order in some_order(),
            named in any::<bool>(),
            canaries in 1_usize..6,
            seed in any::<u64>(),
        ) {
            let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
            let names: Vec<String> = hosts.iter().rev().take(canaries).map(|h| (*h).to_owned()).collect();
            let canary = if named { Canary::Named(names.clone()) } else { Canary::Hosts(canaries as u32) };
            let options = RollingOptions { order, canary: Some(canary), ..RollingOptions::default() };
            let plan = plan(RunMode::Parallel, options);
            let turns = turns(&plan, Engine::Ssh, &hosts, |all| fastrand::Rng::with_seed(seed).shuffle(all));
            let mut all = turns.order.clone();
            all.sort_unstable();
            prop_assert_eq!(all, (0..hosts.len()).collect::<Vec<_>>());
            let (first, rest) = turns.order.split_at(turns.rolling.canary);
            if named {
                let is = |at: &usize| names.iter().any(|name| name == hosts[*at]);
                prop_assert!(first.iter().all(is) && !rest.iter().any(is));
            } else {
                prop_assert_eq!(first.len(), canaries.min(hosts.len()));
            }
        }
    }
}
