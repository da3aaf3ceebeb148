//! Tokens for programs: named, limited, shown once, kept as a hash.

use std::collections::BTreeSet;

use serde_json::json;
use signet_common::deploy::DeployPath;
use signet_common::ids::is_group_name;
use signet_common::time::Micros;
use uuid::Uuid;

use super::model::{Caller, Role, Scope};
use super::service::{Accounts, by_a_person, random_text};
use super::store::{self, NewToken, ShownToken};
use super::who::{TOKEN_PREFIX, hashed};
use crate::audit::{self, Action, Author, Note};
use crate::error::{Error, Result};
use crate::limits::{API_TOKENS_MAX, NAME_CHARS_MAX, SCOPE_BYTES_MAX, SCOPE_NAMES_MAX};
use crate::settings::Secret;
use crate::store::in_transaction;

/// The surfaces that a scope may name.
pub(super) const SURFACES: [&str; 5] = ["fleet", "jobs", "pipelines", "releases", "clusters"];

/// A token that is asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) scope: Scope,
    pub(super) expires_at: Option<Micros>,
}

/// Checks a list of names: not too many, each a good one.
///
/// # Errors
/// [`Error::Invalid`].
pub(super) fn names(
    field: &str,
    names: Option<&BTreeSet<String>>,
    good: impl Fn(&str) -> bool,
) -> Result<()> {
    let Some(names) = names else { return Ok(()) };
    if names.is_empty() || names.len() > SCOPE_NAMES_MAX {
        return Err(Error::invalid(field, format!("{field} must name 1 to {SCOPE_NAMES_MAX}")));
    }
    match names.iter().find(|name| !good(name)) {
        Some(bad) => {
            Err(Error::invalid(field, format!("{field}: '{}' is not allowed here", bad.escape_debug())))
        }
        None => Ok(()),
    }
}

/// Checks what belongs to `repositories`: such a token is for deployments alone.
fn of_repositories(scope: &Scope) -> Result<()> {
    if scope.repositories.is_none() {
        return match (scope.hooks, &scope.paths) {
            (true, _) => Err(Error::invalid("hooks", "hooks goes with repositories")),
            (_, Some(_)) => Err(Error::invalid("paths", "paths goes with repositories")),
            (false, None) => Ok(()),
        };
    }
    let jobs = |all: &BTreeSet<String>| all.len() == 1 && all.contains("jobs");
    if !scope.surfaces.as_ref().is_some_and(jobs) {
        let text =
            "surfaces must be [\"jobs\"] with repositories: such a token deploys these and does nothing else";
        return Err(Error::invalid("surfaces", text));
    }
    names("paths", scope.paths.as_ref(), |path| path.parse::<DeployPath>().is_ok())
}

fn check(asked: &Asked, now: Micros) -> Result<()> {
    let length = asked.name.chars().count();
    if length == 0 || length > NAME_CHARS_MAX || asked.name.contains(char::is_control) {
        return Err(Error::invalid(
            "name",
            format!("name must have 1 to {NAME_CHARS_MAX} printable characters"),
        ));
    }
    if asked.expires_at.is_some_and(|at| at <= now) {
        return Err(Error::invalid("expires_at", "expires_at has passed"));
    }
    of_repositories(&asked.scope)?;
    let text = |name: &str| !name.is_empty() && !name.contains(char::is_control);
    names("surfaces", asked.scope.surfaces.as_ref(), |name| SURFACES.contains(&name))?;
    names("groups", asked.scope.groups.as_ref(), is_group_name)?;
    names("repositories", asked.scope.repositories.as_ref(), text)?;
    if asked.scope.networks.as_ref().is_some_and(|nets| nets.is_empty() || nets.len() > SCOPE_NAMES_MAX) {
        return Err(Error::invalid("networks", format!("networks must name 1 to {SCOPE_NAMES_MAX}")));
    }
    let stored = serde_json::to_vec(&asked.scope).map_err(|e| Error::Internal(e.to_string()))?;
    if stored.len() > SCOPE_BYTES_MAX {
        return Err(Error::invalid(
            "repositories",
            format!("the whole scope has more than {SCOPE_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

impl Accounts {
    /// Makes a token of the caller's own account. It lends at most what its owner has at the time of use.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Forbidden`] with a token as credential; [`Error::Conflict`] for one too many.
    pub(super) async fn make_token(
        &self,
        by: &Author,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<(Uuid, Secret)> {
        by_a_person(caller)?;
        let user = self.own(caller).await?;
        let now = Micros::now();
        check(asked, now)?;
        if asked.role.at_most(user.role) != asked.role {
            return Err(Error::invalid("role", "role must not be more than the account's own"));
        }
        let token = format!("{TOKEN_PREFIX}{}", random_text()?);
        let id = Uuid::now_v7();
        in_transaction!(self.store(), |tx| -> Result<()> {
            if store::count_tokens(tx, user.id).await? >= API_TOKENS_MAX {
                return Err(Error::Conflict(format!("an account has at most {API_TOKENS_MAX} tokens")));
            }
            let new = NewToken {
                hash: hashed(&token),
                id,
                user: user.id,
                name: &asked.name,
                role: asked.role,
                scope: &asked.scope,
                now,
                expires_at: asked.expires_at,
            };
            store::insert_token(tx, &new).await?;
            let object = id.to_string();
            let note = Note::of(Action::TokenMake, &object).new(json!({
                "name": asked.name,
                "account": user.username,
                "role": asked.role,
                "scope": asked.scope,
                "expires_at": asked.expires_at.map(Micros::rfc3339),
            }));
            Ok(audit::note(tx, by, note).await?)
        })?;
        Ok((id, Secret::new(token)))
    }

    /// The caller's tokens before this one, newest first; an admin's view of all.
    ///
    /// # Errors
    /// The database's.
    pub(super) async fn list_tokens(
        &self,
        caller: &Caller,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<ShownToken>> {
        // Ids are hexadecimal: every one comes before this.
        let before = before.map_or_else(|| "g".to_owned(), |id| id.to_string());
        Ok(store::tokens(self.store(), whose(caller)?, &before, limit).await?)
    }

    /// Deletes a token of the caller's, or as an admin any.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(super) async fn delete_token(&self, by: &Author, caller: &Caller, id: &Uuid) -> Result<()> {
        by_a_person(caller)?;
        let whose = whose(caller)?;
        in_transaction!(self.store(), |tx| -> Result<()> {
            if !store::delete_token(tx, id, whose).await? {
                return Err(Error::NotFound("Token not found".into()));
            }
            Ok(audit::note(tx, by, Note::of(Action::TokenDelete, &id.to_string())).await?)
        })
    }
}

/// Whose tokens a caller may see; none = everybody's.
fn whose(caller: &Caller) -> Result<Option<i64>> {
    match (caller.role, caller.user) {
        (Role::Admin, _) => Ok(None),
        (_, Some((id, _))) => Ok(Some(id)),
        (_, None) => Err(Error::Forbidden("this credential belongs to no account".into())),
    }
}
