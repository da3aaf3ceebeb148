//! What can be done about what hosts say.

use serde_json::Value;

use super::word;
use crate::client::part;

/// What may help with a job's hosts, each thing once.
pub(super) fn of(job: &Value) -> Vec<String> {
    let mut hints = Vec::new();
    for target in job["targets"].as_array().into_iter().flatten() {
        if let Some(hint) = hint(target).filter(|hint| !hints.contains(hint)) {
            hints.push(hint);
        }
    }
    hints
}

fn hint(target: &Value) -> Option<String> {
    let reason = word(target, "reason");
    let says = |part: &str| reason.contains(part);
    if says("(force makes a new release)") {
        let text = "hint: `signet deploy` of this commit with --releases and --force makes a new release; what was changed \
            stays in the old one as long as that is kept";
        return Some(text.into());
    }
    if says(" was changed by hand: ") {
        let text = "hint: `signet deploy` with --force throws away what was changed by hand; with --releases each \
            deployment gets a directory of its own";
        return Some(text.into());
    }
    if says(" is a clone of ") || says(" is not empty and no clone") {
        return Some(
            "hint: `signet deploy` with --force takes the directory over; --path names another".into(),
        );
    }
    if says("the host's key is not the one that was pinned") {
        let (host, port) = (part(word(target, "host")), target["port"].as_u64().unwrap_or(22));
        return Some(format!(
            "hint: if the machine is the right one, an administrator has its old key forgotten: \
             DELETE /api/v1/jobs/host-keys/{host}?port={port}"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_thing_is_said_once() {
        let target = |reason: &str| json!({ "host": "2001:db8::1", "port": 2222, "reason": reason });
        let by_hand = "/srv/a was changed by hand: b";
        let pinned = "the host's key is not the one that was pinned: it is another machine";
        let job = json!({ "targets": [target(by_hand), target("exit 1"), target(by_hand), target(pinned)] });
        let hints = of(&job);
        assert_eq!(hints.len(), 2, "{hints:?}");
        assert!(hints[0].contains("--force") && hints[0].contains("--releases"), "{hints:?}");
        assert!(hints[1].ends_with("host-keys/2001%3Adb8%3A%3A1?port=2222"), "{hints:?}");
        for foreign in
            ["/srv/a is a clone of https://h/r", "/srv/a is not empty and no clone of the repository"]
        {
            assert!(of(&json!({ "targets": [target(foreign)] }))[0].contains("--force"), "{foreign}");
        }
    }
}
