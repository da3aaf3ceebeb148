//! Approvers' keys: SSH keys with which accounts sign approvals, so that hosts can check them.

use std::collections::HashMap;

use axum::extract::State as With;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use signet_common::sshsig::SshPublicKey;
use signet_common::time::Micros;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::service::Approvals;
use super::store::{self, KeyRow};
use crate::accounts::{Caller, Role, by_a_person};
use crate::app::App;
use crate::audit::{self, Action, Note};
use crate::error::{Error, Result};
use crate::http::extract::{Author, Path};
use crate::http::known::Exact;
use crate::limits::{APPROVER_KEYS_MAX, APPROVER_KEYS_SHOWN_MAX, KEY_COMMENT_CHARS_MAX};
use crate::store::{StoreError, in_transaction};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_keys, post_key)).routes(routes!(delete_key))
}

/// A key with which somebody signs approvals.
#[derive(Debug, Serialize, ToSchema)]
struct KeyView {
    id: String,
    /// The account.
    username: String,
    /// As `ssh-keygen -l` prints it.
    fingerprint: String,
    /// Type and key, for `allowed_signers`.
    public_key: String,
    comment: String,
    created_at: String,
}

/// A key that is registered.
#[derive(Debug, Deserialize, ToSchema)]
struct KeyBody {
    /// One line, as in `~/.ssh/id_ed25519.pub`.
    public_key: String,
}

/// The caller's own keys; an admin sees everybody's.
#[utoipa::path(get, path = "/api/approver-keys", tag = "approvals",
    responses((status = 200, body = Vec<KeyView>)))]
async fn list_keys(With(app): With<App>, caller: Caller) -> Result<axum::Json<Vec<KeyView>>> {
    Ok(axum::Json(app.approvals.keys(&caller).await?))
}

/// Registers a key of the caller's own account. No other account may have it.
#[utoipa::path(post, path = "/api/approver-keys", tag = "approvals", request_body = KeyBody,
    responses((status = 201, body = KeyView), (status = 400), (status = 404), (status = 409)))]
async fn post_key(
    With(app): With<App>,
    caller: Caller,
    by: Author,
    Exact(body): Exact<KeyBody>,
) -> Result<(StatusCode, axum::Json<KeyView>)> {
    let view = app.approvals.add_key(&caller, &by, &body.public_key).await?;
    tracing::warn!(by = %caller, fingerprint = %view.fingerprint, "an approver key was registered");
    Ok((StatusCode::CREATED, axum::Json(view)))
}

/// Deletes a key of the caller's, or as an admin any. Approvals signed with it count no more for what still waits.
#[utoipa::path(delete, path = "/api/approver-keys/{id}", tag = "approvals", params(("id" = String, Path)),
    responses((status = 204), (status = 404)))]
async fn delete_key(
    With(app): With<App>,
    caller: Caller,
    by: Author,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    app.approvals.delete_key(&caller, &by, &id).await?;
    tracing::warn!(by = %caller, key = %id, "an approver key was deleted");
    Ok(StatusCode::NO_CONTENT)
}

fn view(row: KeyRow, username: &str) -> KeyView {
    KeyView {
        username: username.to_owned(),
        created_at: Micros(row.created_at).rfc3339(),
        id: row.id,
        fingerprint: row.fingerprint,
        public_key: row.public_key,
        comment: row.comment,
    }
}

/// As the trail shows it.
fn noted(row: &KeyRow) -> Value {
    json!({ "id": row.id, "fingerprint": row.fingerprint })
}

/// Whose keys a caller may see and delete; none = everybody's.
fn whose(caller: &Caller) -> Result<Option<i64>> {
    match (caller.role, caller.user) {
        (Role::Admin, _) => Ok(None),
        (_, Some((id, _))) => Ok(Some(id)),
        (_, None) => Err(no_account()),
    }
}

fn no_account() -> Error {
    Error::NotFound("the installation's own admin token belongs to no account".into())
}

impl Approvals {
    async fn keys(&self, caller: &Caller) -> Result<Vec<KeyView>> {
        let rows = store::keys(self.store(), whose(caller)?, APPROVER_KEYS_SHOWN_MAX).await?;
        let ids: Vec<i64> = rows.iter().map(|row| row.user_id).collect();
        let users = self.accounts().users(&mut self.store().begin().await?, &ids).await?;
        let names: HashMap<i64, String> = users.into_iter().map(|user| (user.id, user.username)).collect();
        // Those of accounts that are gone count for nothing.
        Ok(rows
            .into_iter()
            .filter_map(|row| Some((names.get(&row.user_id)?, row)))
            .map(|(n, r)| view(r, n))
            .collect())
    }

    async fn add_key(&self, caller: &Caller, by: &Author, line: &str) -> Result<KeyView> {
        by_a_person(caller)?;
        let (user, _) = caller.user.ok_or_else(no_account)?;
        let key: SshPublicKey =
            line.parse().map_err(|e| Error::invalid("public_key", format!("public_key: {e}")))?;
        let comment = line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
        let row = KeyRow {
            id: Uuid::now_v7().to_string(),
            user_id: user,
            public_key: key.to_string(),
            fingerprint: key.fingerprint(),
            comment: comment.chars().filter(|c| !c.is_control()).take(KEY_COMMENT_CHARS_MAX).collect(),
            created_at: Micros::now().0,
        };
        let made = in_transaction!(self.store(), |tx| -> Result<()> {
            if let Some(other) = store::key_in(tx, &row.fingerprint).await?
                && self.accounts().users(tx, &[other.user_id]).await?.is_empty()
            {
                // Its account was deleted.
                store::delete_key(tx, &other.id).await?;
            }
            if store::count_keys(tx, user).await? >= APPROVER_KEYS_MAX {
                return Err(Error::Conflict(format!(
                    "an account has at most {APPROVER_KEYS_MAX} approver keys"
                )));
            }
            store::insert_key(tx, &row).await?;
            Ok(audit::note(tx, by, Note::of(Action::ApproverKeyAdd, &caller.name).new(noted(&row))).await?)
        });
        match made {
            Ok(()) => Ok(view(row, &caller.name)),
            Err(Error::Store(StoreError::Duplicate(_))) => {
                Err(Error::Conflict("this key is registered already".into()))
            }
            Err(error) => Err(error),
        }
    }

    async fn delete_key(&self, caller: &Caller, by: &Author, id: &str) -> Result<()> {
        by_a_person(caller)?;
        let whose = whose(caller)?;
        in_transaction!(self.store(), |tx| -> Result<()> {
            let rows = store::keys_in(tx, &[id.to_owned()]).await?;
            let row = rows.first().filter(|row| whose.is_none_or(|user| user == row.user_id));
            let row = row.ok_or_else(|| Error::NotFound("Key not found".into()))?;
            let users = self.accounts().users(tx, &[row.user_id]).await?;
            let owner = users.first().map_or("a deleted account", |user| user.username.as_str());
            store::delete_key(tx, id).await?;
            Ok(audit::note(tx, by, Note::of(Action::ApproverKeyDelete, owner).old(noted(row))).await?)
        })
    }
}
