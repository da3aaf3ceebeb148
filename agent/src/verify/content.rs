//! What an authentic message says, and whether the host's policy lets it start.

use signet_common::deploy::Deploy;
use signet_common::envelope::{Authentic, Claims, PayloadType, Refusal};
use signet_common::messages::{Command, Rejection};

use super::{Checked, Context, Instruction, Time};
use crate::order::Order;
use crate::policy::{Denied, Here};
use crate::used::Used;

/// Reads what was verified, and asks the policy.
pub(super) fn content(
    message: &Authentic,
    claims: Claims,
    exp: i64,
    context: &Context<'_>,
    time: Time,
    used: impl FnOnce(Used) -> bool,
) -> Checked {
    let jti = claims.jti;
    let reject = |reason, detail: String| Checked::Reject { jti: jti.clone(), exp, reason, detail };
    let malformed = Checked::Refuse(Refusal::Malformed);
    match message.kind() {
        PayloadType::Command => match message.parse::<Command>() {
            Ok(command) if command.get().command.is_some() == command.get().argv.is_some() => {
                reject(Rejection::Unsupported, "exactly one of command and argv is needed".into())
            }
            Ok(command) => judge(Order::Command(Box::new(command)), exp, context, time, used),
            Err(_) => reject(
                Rejection::Unsupported,
                "the command has a field or a value that this agent's version doesn't know".into(),
            ),
        },
        PayloadType::Deploy => match message.parse::<Deploy>() {
            Ok(deploy) => match deploy.get().check() {
                Ok(()) => judge(Order::Deploy(Box::new(deploy)), exp, context, time, used),
                Err(bad) => reject(Rejection::Unsupported, bad.to_string()),
            },
            Err(_) => reject(
                Rejection::Unsupported,
                "the deployment has a field or a value that this agent's version doesn't know".into(),
            ),
        },
        PayloadType::Cancel => message.parse().map_or(malformed, |m| Checked::Do(Instruction::Cancel(m))),
        PayloadType::Resume => message.parse().map_or(malformed, |m| Checked::Do(Instruction::Resume(m))),
        PayloadType::Keyring => {
            message.parse().map_or(malformed, |m| Checked::Do(Instruction::Keyring(Box::new(m))))
        }
        PayloadType::Report
        | PayloadType::Heartbeat
        | PayloadType::Hello
        | PayloadType::Welcome
        | PayloadType::Leave
        | PayloadType::AuditBlock
        | PayloadType::Bundle => Checked::Refuse(Refusal::Type),
    }
}

/// What becomes of a message that starts something and is whole.
fn judge(
    order: Order,
    exp: i64,
    context: &Context<'_>,
    time: Time,
    used: impl FnOnce(Used) -> bool,
) -> Checked {
    if order.is_early(context.policy, context.clock) {
        return Checked::Refuse(Refusal::Future);
    }
    match may_run(&order, context, time, used) {
        Ok(()) => Checked::Do(Instruction::Order(order)),
        Err(denied) => {
            let jti = order.jti().clone();
            Checked::Reject { jti, exp, reason: Rejection::Policy, detail: denied.to_string() }
        }
    }
}

/// Whether the policy lets it start, and its approval was not used for another.
fn may_run(
    order: &Order,
    context: &Context<'_>,
    time: Time,
    used: impl FnOnce(Used) -> bool,
) -> Result<(), Denied> {
    let Context { me, own_user: user, log_began, .. } = *context;
    order.allowed(context.policy, &Here { me, user, now: time.now(context.clock), log_began })?;
    match order.approval() {
        Some(approval) if used(Used::of(&approval.statement)) => {
            Err(Denied("this approval was used before: it starts something once".into()))
        }
        _ => Ok(()),
    }
}
