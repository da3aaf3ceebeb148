//! Which commit a rollback goes to: the beginning of one that was there, or the one before.

use serde_json::Value;

use super::{path, word};
use crate::context::Context;
use crate::exit::Failure;
use crate::limits::{COMMIT_PREFIX_CHARS_MIN, JOBS_MAX, ROLLBACK_JOBS_MAX};
use crate::term::Look;

/// How a job that is over left a path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Left {
    job: String,
    /// It went back itself.
    rollback: bool,
    /// The commit that it was to bring.
    wanted: String,
    /// What hosts stood on after it.
    on: Vec<On>,
}

/// What a host stood on after a job.
#[derive(Debug, Clone, PartialEq, Eq)]
struct On {
    host: String,
    commit: String,
    /// By this job.
    brought: bool,
}

impl Left {
    /// Whether it brought what it was to bring, anywhere.
    fn brought_wanted(&self) -> bool {
        self.on.iter().any(|on| on.brought && on.commit == self.wanted)
    }
}

/// The whole id of the commit to go back to. Says which, when nobody named it whole.
///
/// # Errors
/// When the controller fails; when no commit, or more than one, is meant.
pub(super) fn chosen(context: &Context, id: &str, wanted: Option<&str>) -> Result<String, Failure> {
    let wanted = wanted.map(str::to_ascii_lowercase);
    if let Some(text) = &wanted {
        let hex = text.chars().all(|c| c.is_ascii_hexdigit());
        if !hex || text.len() < COMMIT_PREFIX_CHARS_MIN {
            let why = format!(
                "{text}: must be the id of a commit, or at least {COMMIT_PREFIX_CHARS_MIN} characters of it"
            );
            return Err(Failure::Usage(why));
        }
        if matches!(text.len(), 40 | 64) {
            return Ok(text.clone());
        }
    }
    let history = history(context, id)?;
    let found = match &wanted {
        Some(prefix) => beginning(&history, prefix),
        None => before(&history),
    };
    let (commit, job) = found.map_err(|why| Failure::Usage(format!("{id}: {why}")))?;
    context.term.say(Look::Plain, &format!("{id}: its hosts go back to {commit}, which {job} brought"));
    Ok(commit)
}

/// What finished jobs left at a job's path on its hosts, newest first. Asks a bounded number of times.
fn history(context: &Context, id: &str) -> Result<Vec<Left>, Failure> {
    let job = context.client.get(&path(id))?["data"].take();
    let page = context.client.get(&format!("/api/v1/jobs?page_size={JOBS_MAX}"))?;
    let same = |item: &&Value| item["git_repo"] == job["git_repo"] && item["finished_at"].is_string();
    let ids =
        page["data"]["items"].as_array().into_iter().flatten().filter(same).map(|item| word(item, "job_id"));
    let mut history = Vec::new();
    for one in ids.take(ROLLBACK_JOBS_MAX) {
        let detail = context.client.get(&path(one))?["data"].take();
        history.extend(left(&detail, &job));
    }
    Ok(history)
}

/// How a job left the path and hosts of another, if it went there.
fn left(detail: &Value, job: &Value) -> Option<Left> {
    if detail["dest_path"] != job["dest_path"] {
        return None;
    }
    let targets = |job: &Value| job["targets"].as_array().cloned().unwrap_or_default();
    let host = |target: &Value| word(target, "host").to_ascii_lowercase();
    let hosts: Vec<String> = targets(job).iter().map(host).collect();
    let commit = |target: &Value| target["commit"].as_str().map(str::to_owned);
    let ours: Vec<Value> =
        targets(detail).into_iter().filter(|target| hosts.contains(&host(target))).collect();
    let wanted = detail["commit"].as_str().map(str::to_owned).or_else(|| ours.iter().find_map(commit))?;
    let on = |target: &Value| {
        let brought = target["status"] == "SUCCESS";
        // A working tree that was left half way is no longer what it was.
        let torn = !brought && target["changed"] == true && !detail["strategy"].is_object();
        Some(On { host: host(target), commit: if torn { wanted.clone() } else { commit(target)? }, brought })
    };
    let on = ours.iter().filter_map(on).collect();
    Some(Left {
        job: word(detail, "job_id").to_owned(),
        rollback: detail["rollback"].is_object(),
        wanted,
        on,
    })
}

/// Commits that hosts got, newest first, each with the last job that brought it.
fn known(history: &[Left]) -> Vec<(String, String)> {
    let mut known: Vec<(String, String)> = Vec::new();
    for left in history {
        for on in left.on.iter().filter(|on| on.brought) {
            if known.iter().all(|(other, _)| *other != on.commit) {
                known.push((on.commit.clone(), left.job.clone()));
            }
        }
    }
    known
}

/// Commits with their jobs, for people to choose one.
fn lines<'a>(some: impl IntoIterator<Item = &'a (String, String)>) -> String {
    some.into_iter().map(|(commit, job)| format!("\n  {commit}  {job}")).collect()
}

/// The one commit that begins so.
fn beginning(history: &[Left], prefix: &str) -> Result<(String, String), String> {
    let known = known(history);
    let meant: Vec<_> = known.iter().filter(|(commit, _)| commit.starts_with(prefix)).collect();
    match meant.as_slice() {
        [one] => Ok((*one).clone()),
        [] if known.is_empty() => {
            Err("no job is known that brought a commit to its hosts: name it whole".into())
        }
        [] => Err(format!("no commit that its hosts had begins with {prefix}; known are{}", lines(&known))),
        several => {
            Err(format!("more than one commit begins with {prefix}:{}", lines(several.iter().copied())))
        }
    }
}

/// The commit that all hosts had before the last one came; nothing is guessed where that is not clear.
fn before(history: &[Left]) -> Result<(String, String), String> {
    let name_one = |why: &str| {
        let known = known(history);
        let known = if known.is_empty() { String::new() } else { format!("; known are{}", lines(&known)) };
        format!("{why}: name a commit{known}")
    };
    let none = || name_one("no job is known that brought another commit there before");
    let newest = history.iter().position(|left| !left.on.is_empty()).ok_or_else(none)?;
    let (last, mut earlier) = (&history[newest], &history[newest + 1..]);
    if last.on.iter().all(|on| on.commit != last.wanted) {
        let why = format!("the last job, {}, left its hosts on {}", last.job, last.on[0].commit);
        return Err(name_one(&why));
    }
    if last.rollback {
        // What it went back from is not what was before.
        let came = earlier
            .iter()
            .position(|left| !left.rollback && left.wanted == last.wanted && left.brought_wanted());
        earlier = came.map_or(&[], |at| &earlier[at + 1..]);
    }
    let found = earlier.iter().find(|left| left.wanted != last.wanted && left.brought_wanted());
    let found = found.ok_or_else(none)?;
    let had =
        |ours: &On| found.on.iter().any(|on| on.brought && on.host == ours.host && on.commit == found.wanted);
    if !last.on.iter().all(had) {
        return Err(name_one("its hosts did not all get the same commit before"));
    }
    Ok((found.wanted.clone(), found.job.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(id: &str, status: &str, wanted: &str, hosts: &[(&str, &str, &str)]) -> Value {
        let target = |(host, status, commit): &(&str, &str, &str)| json!({ "host": host, "status": status, "commit": commit });
        json!({ "job_id": id, "status": status, "dest_path": "/srv/a", "commit": wanted,
            "targets": hosts.iter().map(target).collect::<Vec<_>>() })
    }

    fn history(jobs: &[Value]) -> Vec<Left> {
        let ours = job("job_9", "SUCCESS", "", &[("A", "SUCCESS", ""), ("b", "SUCCESS", "")]);
        jobs.iter().filter_map(|detail| left(detail, &ours)).collect()
    }

    #[test]
    fn back_is_to_what_was_there_before() {
        let three = job("job_3", "SUCCESS", "cc", &[("a", "SUCCESS", "cc")]);
        let two = job("job_2", "SUCCESS", "bb", &[("a", "SUCCESS", "bb"), ("b", "SUCCESS", "bb")]);
        let one = job("job_1", "SUCCESS", "aa", &[("a", "SUCCESS", "aa")]);
        let to = |jobs: &[&Value]| {
            before(&history(&jobs.iter().map(|&j| j.clone()).collect::<Vec<_>>()))
                .ok()
                .map(|(commit, _)| commit)
        };
        assert_eq!(to(&[&three, &two, &one]).unwrap(), "bb");
        assert_eq!(to(&[&three, &three, &two]).unwrap(), "bb", "the same once more is no step");
        assert_eq!(to(&[&three]), None);
        assert_eq!(to(&[]), None);
        // It failed on one host, and changed the other.
        let half = job("job_3", "FAILED", "cc", &[("a", "FAILED", "bb"), ("b", "SUCCESS", "cc")]);
        assert_eq!(to(&[&half, &two, &one]).unwrap(), "bb");
        // It failed everywhere and changed nothing.
        let none = job("job_3", "FAILED", "cc", &[("a", "FAILED", "bb"), ("b", "FAILED", "bb")]);
        assert_eq!(to(&[&none, &two, &one]), None, "they stand on what was before it");
        // It left working trees half way.
        let mut torn = none.clone();
        torn["targets"][0]["changed"] = true.into();
        assert_eq!(to(&[&torn, &two, &one]).unwrap(), "bb");
        torn["strategy"] = json!({ "releases": {} });
        assert_eq!(to(&[&torn, &two, &one]), None);
        // Back, and back once more: not to what was gone back from.
        let mut back = job("job_4", "SUCCESS", "bb", &[("a", "SUCCESS", "bb")]);
        back["rollback"] = json!({ "job_id": "job_3" });
        assert_eq!(to(&[&back, &three, &two, &one]).unwrap(), "aa");
        assert_eq!(to(&[&back, &three, &two]), None);
        // One of its hosts never had it.
        let both = job("job_3", "SUCCESS", "cc", &[("a", "SUCCESS", "cc"), ("b", "SUCCESS", "cc")]);
        assert_eq!(to(&[&both, &one]), None);
        // What failed is not gone back to, nor what other hosts got.
        let elsewhere = job("job_4", "SUCCESS", "dd", &[("z", "SUCCESS", "dd")]);
        assert_eq!(to(&[&three, &elsewhere, &half, &one]).unwrap(), "aa");
    }

    #[test]
    fn a_beginning_means_one_commit() {
        let jobs = [("job_3", "abcdefa1"), ("job_2", "abcdefa2"), ("job_1", "1234567f")];
        let jobs: Vec<Value> =
            jobs.iter().map(|(id, commit)| job(id, "SUCCESS", commit, &[("a", "SUCCESS", commit)])).collect();
        let history = history(&jobs);
        assert_eq!(beginning(&history, "1234567").unwrap(), ("1234567f".into(), "job_1".into()));
        let why = beginning(&history, "abcdefa").unwrap_err();
        assert!(
            why.contains("abcdefa1  job_3") && why.contains("abcdefa2") && !why.contains("job_1"),
            "{why}"
        );
        let why = beginning(&history, "7777777").unwrap_err();
        assert!(why.contains("known are") && why.contains("1234567f"), "{why}");
    }
}
