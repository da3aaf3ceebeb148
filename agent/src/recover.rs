//! After a restart: what the journal holds without an end.

use std::sync::Arc;

use signet_common::keyring::Keyring;
use signet_common::messages::{Outcome, Rejection};

use crate::agent::Agent;
use crate::execute::{ended, entries, rejected};
use crate::journal::Unfinished;
use crate::verify;
use crate::work::Ready;

/// What becomes of a message without an end.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It never started: it waits for its turn, where expiry and policy are checked again.
    Wait(Ready),
    /// It may have run, and is never run again.
    Interrupted(&'static str),
    /// Its signature is no longer that of a trusted key.
    Untrusted,
}

/// Decides about one message. `rebooted` tells whether the host did since it was written.
pub(crate) fn decide(message: &Unfinished, keyring: Option<&Keyring>, rebooted: bool) -> Decision {
    if message.started {
        let why = if rebooted { "host rebooted" } else { "agent stopped unexpectedly" };
        return Decision::Interrupted(why);
    }
    match keyring.and_then(|keyring| verify::again(&message.envelope, keyring)) {
        Some(order) => Decision::Wait(Arc::new(order)),
        None => Decision::Untrusted,
    }
}

/// Ends what an earlier start left running, then says so, then lets the rest wait for its turn. What the kernel does not
/// let go of stands in the reason.
///
/// # Errors
/// When the host does not let the agent look: then nothing may be called interrupted.
pub(crate) async fn recover(
    agent: &Arc<Agent>,
    unfinished: Vec<Unfinished>,
    last_boot: &str,
) -> std::io::Result<()> {
    let leftovers = agent.runner.end_leftovers().await?;
    if leftovers.killed > 0 {
        tracing::warn!(killed = leftovers.killed, "processes of an earlier start were ended");
    }
    let rebooted = !last_boot.is_empty() && last_boot != agent.boot_id;
    let keyring = agent.desk().keyring.clone();
    let mut ends = Vec::new();
    for message in unfinished {
        match decide(&message, keyring.as_ref(), rebooted) {
            Decision::Interrupted(why) => {
                let why = match leftovers.left {
                    0 => why.to_owned(),
                    left => format!("{why}; {left} processes of an earlier start could not be ended"),
                };
                ends.push(ended(&message.jti, Outcome::Interrupted, &why));
            }
            Decision::Untrusted => {
                let why = "it was signed by a key that is no longer trusted";
                ends.push(rejected(&message.jti, Rejection::Policy, why.to_owned()));
            }
            Decision::Wait(order) => {
                let mut desk = agent.desk();
                desk.time.recall(order.iat());
                desk.work.recover(order, message.envelope.body.len());
            }
        }
    }
    if !ends.is_empty() {
        tracing::warn!(count = ends.len(), "commands were interrupted, or can't be trusted any more");
        agent.write_end(entries(ends)).await;
    }
    agent.journal.booted(agent.boot_id.clone()).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use signet_common::ids::Jti;
    use signet_common::keys::SigningKey;
    use signet_common::{Envelope, PayloadType};

    #[test]
    fn the_table() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let (keyring, _) = Keyring::first(&key, 1).unwrap();
        let (strange, _) = Keyring::first(&other, 1).unwrap();
        let jti = Jti::generate();
        let payload = json!({
            "iss": "controller", "aud": ["a".repeat(40)], "iat": 1, "exp": 2, "jti": jti,
            "task_id": "t", "command": "true", "timeout": 30,
        });
        let envelope = Envelope::sign(&key, PayloadType::Command, &payload).unwrap();
        let message = |started| Unfinished { jti: jti.clone(), exp: 2, envelope: envelope.clone(), started };

        assert!(matches!(decide(&message(false), Some(&keyring), true), Decision::Wait(_)));
        assert!(matches!(decide(&message(false), Some(&strange), false), Decision::Untrusted));
        assert!(matches!(decide(&message(false), None, false), Decision::Untrusted));
        let why = |rebooted| match decide(&message(true), Some(&keyring), rebooted) {
            Decision::Interrupted(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!((why(true), why(false)), ("host rebooted", "agent stopped unexpectedly"));
    }
}
