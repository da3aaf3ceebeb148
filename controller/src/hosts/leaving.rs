//! Leaving: an agent asks that its own key be revoked (DESIGN 3).

use serde_json::json;
use signet_common::envelope::{DsseJson, PayloadType};
use signet_common::messages::Leave;
use signet_common::time::Micros;

use super::enrolment::{Proof, by_its_own_key, stale_nonce};
use super::model::KeyStanding;
use super::store;
use crate::app::App;
use crate::audit::{self, Action, Author, Note};
use crate::error::{Error, Result};
use crate::store::in_transaction;

/// Revokes the key that signed this. One that was revoked before stays so: an answer may have been lost.
pub(super) async fn leave(app: &App, by: &Author, body: &DsseJson) -> Result<()> {
    let (key, leave) = by_its_own_key(app, body, PayloadType::Leave, |leave: &Leave| Proof {
        iss: &leave.iss,
        controller_nonce: &leave.controller_nonce,
        public_key: &leave.public_key,
    })?;
    let id = key.agent_id();
    let host = in_transaction!(app.store, |tx| -> Result<String> {
        let now = Micros::now();
        if !store::use_nonce(tx, &leave.controller_nonce, now).await? {
            return Err(stale_nonce());
        }
        let row = store::agent(tx, &id).await?.ok_or_else(|| Error::NotFound("Agent not found".into()))?;
        if row.standing()? != KeyStanding::Revoked {
            app.hosts.revoke_in(tx, &app.dispatch, &id, now).await?;
            let note = Note::of(Action::AgentLeave, id.as_str()).old(json!({ "hostname": row.hostname }));
            audit::note(tx, &by.with_key_of(&id), note).await?;
        }
        Ok(row.hostname)
    })?;
    app.hosts.keys_changed();
    super::routes::forget_at_broker(app, id.clone()).await;
    tracing::warn!(agent = %id, hostname = host, "agent left");
    Ok(())
}
