//! `signet-agent leave`: the fleet forgets this host's key, and this host forgets the fleet.

use anyhow::{Context as _, bail};
use signet_common::ids::Jti;
use signet_common::keys::SigningKey;
use signet_common::messages::Leave;
use signet_common::time::Micros;
use signet_common::{Envelope, PayloadType};

use crate::config::Flags;
use crate::http::{Client, Controller, HttpError};
use crate::identity::{DataDir, read_key};
use crate::unit::Unit;

/// Has this host's key revoked, unless `untold`, and removes it with journal and settings. Nothing is removed when the
/// controller does not answer.
///
/// # Errors
/// When there is no key, the agent runs, the controller can't be reached or refuses, or files can't be removed.
pub fn leave(flags: &Flags, untold: bool) -> anyhow::Result<()> {
    let dir = flags.data_dir();
    let Some(key) = read_key(&dir)? else { bail!("there is no agent in {}", dir.display()) };
    let controller = if untold { None } else { Some(Controller::parse(&flags.config()?.controller)?) };
    let unit = Unit::of(&dir);
    // A service is stopped when it has left; any other agent has to be stopped before.
    let held = if unit.is_none() { Some(DataDir::open(&dir)?) } else { None };
    if let Some(controller) = &controller {
        // That the answer is not signed does no harm: the key is gone from here, and nobody can use it again.
        match say(&key, controller) {
            Ok(()) => {}
            Err(Failed::Http(HttpError::Refused { status: 404, .. })) => {
                println!("the controller does not know this key")
            }
            Err(error) => {
                return Err(error).context("this host has not left (leave --untold only forgets here)");
            }
        }
    }
    if let Some(unit) = &unit {
        unit.disable()?;
    }
    match held {
        Some(data) => data.forget()?,
        None => DataDir::open(&dir)?.forget()?,
    }
    println!("{} has left; its key is gone", key.public().id());
    if controller.is_none() {
        println!("the controller was not told: signet agents revoke {}", key.public().agent_id());
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the message can't be signed: {0}")]
    Own(String),
}

fn say(key: &SigningKey, controller: &Controller) -> Result<(), Failed> {
    let client = Client::new(controller);
    let leave = Leave {
        iss: key.public().agent_id().to_string(),
        aud: vec!["controller".to_owned()],
        iat: Micros::now().seconds(),
        jti: Jti::generate(),
        public_key: key.public().to_pem(),
        controller_nonce: client.nonce()?,
    };
    let signed = Envelope::sign(key, PayloadType::Leave, &leave).map_err(|e| Failed::Own(e.to_string()))?;
    Ok(client.leave(&signed.to_dsse())?)
}
