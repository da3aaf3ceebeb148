//! Whether a message is the controller's word to this host, new, and in time.

use signet_common::envelope::{Audience, Authentic, Claims, Envelope, PayloadType, Refusal};
use signet_common::ids::Jti;
use signet_common::limits::{CLOCK_SKEW_SECONDS_MAX, EXPIRY_SECONDS_MAX};

use super::{Context, Time};
use crate::limits::LATE_SECONDS_MAX;

/// Why a message goes no further.
pub(super) enum Stop {
    Refuse(Refusal),
    Late(Jti, i64),
    /// Issued just before this log began.
    Early(Jti, i64),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// Everything up to the time window.
pub(super) fn authentic(
    envelope: &Envelope,
    context: &Context<'_>,
    time: &mut Time,
    known: impl FnOnce(&Jti) -> bool,
) -> Result<(Authentic, Claims, i64), Stop> {
    let message = envelope.verify(PayloadType::TO_AGENTS, |id| context.keyring.find(id))?;
    let claims = message.claims()?;
    let exp = claims.exp.ok_or(Refusal::Malformed)?;
    let whole = claims.iss == "controller"
        && claims.iat >= 0
        && exp.saturating_sub(claims.iat) <= EXPIRY_SECONDS_MAX.into();
    if !whole {
        return Err(Refusal::Malformed.into());
    }
    message.audience(&claims, &Audience::Agent(context.me.clone()))?;
    if known(&claims.jti) {
        return Err(Refusal::Duplicate.into());
    }
    let now = time.now(context.clock);
    let work = matches!(message.kind(), PayloadType::Command | PayloadType::Deploy);
    if claims.iat < context.not_before {
        // Two controllers' clocks may differ a little. Replays of what is older make no event.
        let skewed = claims.iat >= context.not_before.saturating_sub(CLOCK_SKEW_SECONDS_MAX) && exp >= now;
        let told = work && context.first_log && skewed;
        return Err(if told { Stop::Early(claims.jti, exp) } else { Refusal::Expired.into() });
    }
    if exp < now {
        // Its id may be forgotten by then, and then nothing is known about it any more.
        let told = work && exp.saturating_add(LATE_SECONDS_MAX) >= now;
        return Err(if told { Stop::Late(claims.jti, exp) } else { Refusal::Expired.into() });
    }
    if work && claims.iat > now.saturating_add(CLOCK_SKEW_SECONDS_MAX) {
        return Err(Refusal::Future.into());
    }
    time.seen(claims.iat, context.clock);
    Ok((message, claims, exp))
}
