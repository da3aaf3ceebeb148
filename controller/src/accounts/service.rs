//! What accounts do: who there is, what each may be changed to, and the first admin.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use signet_common::time::Micros;
use uuid::Uuid;

use super::attempts::Subject;
use super::model::{Caller, Email, Role, User, Username, Via};
use super::passwords;
use super::store::{self, UserFilter, Which};
use super::tokens::Tokens;
use crate::audit::{self, Action, Audit, Author, Note};
use crate::error::{Error, Result};
use crate::keys::{Keys, create_or_read};
use crate::limits::{LOGIN_FORGET_SECONDS, NAME_CHARS_MAX, PASSWORD_BYTES_MAX, RETRY_AFTER_SECONDS};
use crate::settings::Secret;
use crate::store::{Store, StoreError, Tx, in_transaction};

/// The secret's name under which the key of the tokens lies in the database.
const TOKEN_KEY: &str = "jwt-key";
/// The file in the data directory that holds the first admin's password, when it was generated.
pub const FIRST_PASSWORD_FILE: &str = "admin.password";
const FIRST_ADMIN: &str = "admin";
/// A year: how long it is remembered that somebody logged in from an address.
const KNOWN_SECONDS: i64 = 365 * 86_400;

/// Accounts. Cheap to clone.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

struct Inner {
    store: Store,
    admin_token: Vec<u8>,
    tokens: OnceLock<Tokens>,
    first_password: Mutex<Option<Secret>>,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Accounts")
    }
}

/// 32 random bytes as text.
pub(super) fn random_text() -> Result<String> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Internal("no randomness".into()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// An account that is to be made.
#[derive(Debug, Clone)]
pub(super) struct NewUser {
    pub(super) username: Username,
    pub(super) email: Option<Email>,
    pub(super) password: Secret,
    pub(super) role: Role,
}

/// What is to be changed of an account; what is absent stays.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    pub(super) email: Option<Option<Email>>,
    pub(super) first_name: Option<String>,
    pub(super) last_name: Option<String>,
    pub(super) role: Option<Role>,
    pub(super) is_active: Option<bool>,
    pub(super) host_groups: Option<Option<BTreeSet<String>>>,
}

impl Accounts {
    /// Accounts over this database. Besides them, whoever knows the installation's own token is an admin.
    #[must_use]
    pub fn new(store: Store, admin_token: &Secret) -> Self {
        let admin_token = digest(&SHA256, admin_token.reveal().as_bytes()).as_ref().to_vec();
        Self(Arc::new(Inner {
            store,
            admin_token,
            tokens: OnceLock::new(),
            first_password: Mutex::default(),
        }))
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(super) fn admin_token(&self) -> &[u8] {
        &self.0.admin_token
    }

    pub(super) fn tokens(&self) -> Result<&Tokens> {
        let message = "the controller is starting: its keys are not loaded yet".to_owned();
        self.0.tokens.get().ok_or(Error::Unavailable { message, retry_after: RETRY_AFTER_SECONDS })
    }

    /// Reads or makes the key of the tokens, and makes the first admin in a database without accounts. Its password
    /// is the one given, else a generated one that lies in [`FIRST_PASSWORD_FILE`]: that file always holds the password
    /// that works, or is removed.
    ///
    /// # Errors
    /// When the database, the data directory or the master key fails.
    pub async fn prepare(
        &self,
        keys: &Keys,
        data_dir: &Path,
        password: Option<&Secret>,
    ) -> anyhow::Result<()> {
        let key = keys.named_secret(self.store(), TOKEN_KEY).await?;
        if self.0.tokens.set(Tokens::new(&key)).is_err() {
            tracing::debug!("the tokens' key was loaded already");
        }
        let mut tx = self.store().begin().await?;
        let there = store::count_all(&mut tx).await? > 0;
        drop(tx);
        let path = data_dir.join(FIRST_PASSWORD_FILE);
        if there {
            return self.drop_wrong_password(&path).await;
        }
        let chosen = match password {
            Some(password) => password.clone(),
            None => Secret::new(create_or_read(&path, || random_text().map_err(std::io::Error::other))?),
        };
        if passwords::check(chosen.reveal(), FIRST_ADMIN).is_err() {
            tracing::warn!("SIGNET_ADMIN_PASSWORD is weaker than what accounts are allowed: change it soon");
        }
        let username = FIRST_ADMIN.parse().map_err(|e: &str| anyhow::anyhow!(e))?;
        let new = NewUser { username, email: None, password: chosen.clone(), role: Role::Admin };
        match self.create_unchecked(&Author::controller("first start"), &new).await {
            Ok(_) => {
                tracing::info!(username = FIRST_ADMIN, "the first admin was made");
                if password.is_none()
                    && let Ok(mut first) = self.0.first_password.lock()
                {
                    *first = Some(chosen);
                }
                // A start before this one may have written another.
                self.drop_wrong_password(&path).await
            }
            // Another controller was quicker, and its password counts. With the same data directory it is in this file.
            Err(Error::Conflict(_)) => self.drop_wrong_password(&path).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the file of the first admin's password, unless it holds the password that works. A controller leaves a
    /// wrong one when it dies before it learns that another one, with a data directory of its own, made the admin.
    async fn drop_wrong_password(&self, path: &Path) -> anyhow::Result<()> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // Nothing depends on it any more.
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the file of the first admin's password can't be read");
                return Ok(());
            }
            Ok(text) => text,
        };
        let account = store::password(self.store(), FIRST_ADMIN).await?;
        let hash = account.as_ref().map(|(_, hash)| hash.as_str());
        if passwords::verify(&Secret::new(text.trim()), hash).await? {
            return Ok(());
        }
        tracing::info!(path = %path.display(), "this is not (or no longer) the first admin's password: removed");
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a password that does not work can't be removed");
            }
            _ => {}
        }
        Ok(())
    }

    /// The generated password of the first admin, once, for the program to print.
    #[must_use]
    pub fn take_first_password(&self) -> Option<Secret> {
        self.0.first_password.lock().ok()?.take()
    }

    /// Makes an account.
    ///
    /// # Errors
    /// [`Error::Unprocessable`] for a weak password, [`Error::Conflict`] for a name or address that is taken.
    pub(super) async fn create(&self, by: &Author, new: &NewUser) -> Result<User> {
        passwords::check(new.password.reveal(), new.username.as_str())
            .map_err(|why| Error::Unprocessable(format!("password {why}")))?;
        self.create_unchecked(by, new).await
    }

    async fn create_unchecked(&self, by: &Author, new: &NewUser) -> Result<User> {
        let hash = passwords::hash(&new.password).await?;
        let now = Micros::now();
        let mut user = User {
            id: 0,
            uuid: Uuid::new_v4(),
            username: new.username.as_str().to_owned(),
            email: new.email.as_ref().map(|e| e.as_str().to_owned()).unwrap_or_default(),
            first_name: String::new(),
            last_name: String::new(),
            role: new.role,
            is_active: true,
            host_groups: None,
            created_at: now,
            updated_at: now,
            last_login_at: None,
        };
        let made = in_transaction!(self.0.store, |tx| -> Result<i64> {
            let id = store::insert_user(tx, &user, &hash).await?;
            let note = Note::of(Action::AccountMake, &user.username).new(described(&user));
            audit::note(tx, by, note).await?;
            Ok(id)
        });
        user.id = made.map_err(taken)?;
        Ok(user)
    }

    pub(super) async fn by_uuid(&self, uuid: &Uuid) -> Result<User> {
        store::user(self.store(), Which::Uuid(uuid)).await?.ok_or_else(unknown)
    }

    pub(super) async fn by_name(&self, username: &Username) -> Result<Option<User>> {
        Ok(store::user(self.store(), Which::Name(username.as_str())).await?)
    }

    /// The caller's own account.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the installation's own admin token, which is no account.
    pub(super) async fn own(&self, caller: &Caller) -> Result<User> {
        let (id, _) = caller.user.ok_or_else(no_account)?;
        store::user(self.store(), Which::Id(id)).await?.ok_or_else(unknown)
    }

    pub(super) async fn list(
        &self,
        filter: &UserFilter,
        limit: usize,
        offset: usize,
    ) -> Result<(Vec<User>, u64)> {
        Ok(store::list(self.store(), filter, limit, offset).await?)
    }

    /// Changes an account. Only an admin may change roles, groups and whether it counts; the last admin stays one.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Conflict`], [`Error::NotFound`].
    pub(super) async fn change(
        &self,
        by: &Author,
        caller: &Caller,
        uuid: &Uuid,
        change: &Change,
    ) -> Result<User> {
        by_a_person(caller)?;
        let now = Micros::now();
        let changed = in_transaction!(self.0.store, |tx| -> Result<User> {
            let admins = store::admins(tx).await?;
            let old = store::user(&mut *tx, Which::Uuid(uuid)).await?.ok_or_else(unknown)?;
            let new = changed(&old, change, now)?;
            let rights = |u: &User| (u.role, u.is_active, u.host_groups.clone());
            if rights(&new) != rights(&old) && caller.role != Role::Admin {
                return Err(Error::Forbidden("only an admin may change what an account may do".into()));
            }
            if (new.role, new.is_active) != (Role::Admin, true) {
                not_the_last(&admins, old.id)?;
            }
            store::update_user(tx, &new).await?;
            if !new.is_active {
                store::end_others(tx, new.id, None, now).await?;
            }
            let note = Note::of(Action::AccountChange, &new.username);
            audit::note(tx, by, note.old(described(&old)).new(described(&new))).await?;
            Ok(new)
        });
        changed.map_err(taken)
    }

    /// Deletes an account with its log-ins and tokens; never the last admin.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::NotFound`].
    pub(super) async fn delete(&self, by: &Author, caller: &Caller, uuid: &Uuid) -> Result<User> {
        by_a_person(caller)?;
        in_transaction!(self.0.store, |tx| -> Result<User> {
            let admins = store::admins(tx).await?;
            let user = store::user(&mut *tx, Which::Uuid(uuid)).await?.ok_or_else(unknown)?;
            not_the_last(&admins, user.id)?;
            store::delete_user(tx, user.id).await?;
            let note = Note::of(Action::AccountDelete, &user.username).old(described(&user));
            audit::note(tx, by, note).await?;
            Ok(user)
        })
    }

    /// Changes a password. For oneself the old one is needed; an admin need not know another's. Every other log-in of
    /// the account ends.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong old password, [`Error::Unprocessable`] for a weak new one.
    pub(super) async fn change_password(
        &self,
        by: &Author,
        caller: &Caller,
        user: &User,
        old: Option<&Secret>,
        new: &Secret,
    ) -> Result<()> {
        by_a_person(caller)?;
        if caller.is(user) {
            let old = old.ok_or_else(|| Error::invalid("old_password", crate::http::dialect::REQUIRED))?;
            // A stolen log-in must not find out the password by trying.
            let subject = format!("password:{}", user.id);
            let subjects = [(Subject::AccountFrom, subject.as_str())];
            in_transaction!(self.0.store, |tx| -> Result<()> {
                reserve(tx, &subjects, Micros::now()).await
            })?;
            let usable = old.reveal().len() <= PASSWORD_BYTES_MAX;
            let known = store::password(self.store(), &user.username).await?.filter(|_| usable);
            let old = if usable { old } else { &Secret::new("") };
            if !passwords::verify(old, known.as_ref().map(|(_, hash)| hash.as_str())).await? {
                return Err(Error::invalid("old_password", "the old password is wrong"));
            }
            in_transaction!(self.0.store, |tx| -> Result<()> {
                Ok(store::succeeded(tx, &subject, &subject, Micros::now()).await?)
            })?;
        }
        passwords::check(new.reveal(), &user.username)
            .map_err(|why| Error::Unprocessable(format!("new_password {why}")))?;
        let hash = passwords::hash(new).await?;
        let now = Micros::now();
        let stays = match caller.via {
            Via::Session(sid) if caller.is(user) => Some(sid),
            _ => None,
        };
        in_transaction!(self.0.store, |tx| -> Result<()> {
            store::set_password(tx, user.id, &hash, now).await?;
            store::end_others(tx, user.id, stays.as_ref(), now).await?;
            Ok(audit::note(tx, by, Note::of(Action::AccountPassword, &user.username)).await?)
        })
    }

    /// Forgets log-ins, tickets and failures that have no effect any more.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget(&self) -> Result<()> {
        let now = Micros::now();
        let (failures, known) = (now.plus_seconds(-LOGIN_FORGET_SECONDS), now.plus_seconds(-KNOWN_SECONDS));
        Ok(store::forget(self.store(), now, failures, known).await?)
    }

    /// Notes a failed log-in under the account's name; nothing when there is no such account.
    pub(super) async fn failed(&self, trail: &Audit, by: &Author, username: &str, why: &Error) {
        let Ok(name) = username.parse::<Username>() else { return };
        match self.by_name(&name).await {
            Ok(Some(user)) => {
                let subject = audit::Subject { action: Action::SessionBegin, object: &user.username };
                trail.refused(by, subject, 401, &why.to_string());
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a failed log-in could not be noted"),
        }
    }

    /// Ends a log-in, with all its tokens.
    pub(super) async fn ended(&self, by: &Author, sid: &Uuid) -> Result<()> {
        let now = Micros::now();
        in_transaction!(self.0.store, |tx| -> Result<()> {
            store::end_session(tx, sid, now).await?;
            Ok(audit::note(tx, by, Note::of(Action::SessionEnd, &sid.to_string())).await?)
        })
    }
}

/// An account as the trail shows it: not what is personal, because more people read the trail than accounts.
fn described(user: &User) -> serde_json::Value {
    json!({
        "id": user.uuid,
        "role": user.role,
        "is_active": user.is_active,
        "host_groups": user.host_groups,
    })
}

/// The record with its changes.
fn changed(old: &User, change: &Change, now: Micros) -> Result<User> {
    let name = |field: &'static str, text: &Option<String>, old: &str| match text {
        Some(text) if text.chars().count() > NAME_CHARS_MAX || text.contains(char::is_control) => Err(
            Error::invalid(field, format!("{field} must have at most {NAME_CHARS_MAX} printable characters")),
        ),
        Some(text) => Ok(text.clone()),
        None => Ok(old.to_owned()),
    };
    let email = change.email.as_ref().map(|e| e.as_ref().map(|e| e.as_str().to_owned()).unwrap_or_default());
    Ok(User {
        email: email.unwrap_or_else(|| old.email.clone()),
        first_name: name("first_name", &change.first_name, &old.first_name)?,
        last_name: name("last_name", &change.last_name, &old.last_name)?,
        role: change.role.unwrap_or(old.role),
        is_active: change.is_active.unwrap_or(old.is_active),
        host_groups: change.host_groups.clone().unwrap_or_else(|| old.host_groups.clone()),
        updated_at: now,
        ..old.clone()
    })
}

/// Refuses API tokens: accounts, and what stands for a person, are changed by people who logged in. A token for a program
/// would shed its own limits so, or outlive itself.
///
/// # Errors
/// [`Error::Forbidden`].
pub fn by_a_person(caller: &Caller) -> Result<()> {
    match caller.via {
        Via::ApiToken(_) => {
            Err(Error::Forbidden("accounts, tokens and keys can't be changed with an API token".into()))
        }
        Via::AdminToken | Via::Session(_) => Ok(()),
    }
}

fn not_the_last(admins: &[i64], id: i64) -> Result<()> {
    if admins == [id] {
        return Err(Error::Conflict("the last admin must stay one".into()));
    }
    Ok(())
}

fn taken(error: Error) -> Error {
    match error {
        Error::Store(StoreError::Duplicate(_)) => {
            Error::Conflict("this username or mail address is taken".into())
        }
        other => other,
    }
}

/// 404 of an account that is not there.
pub(super) fn unknown() -> Error {
    Error::NotFound("User not found".into())
}

fn no_account() -> Error {
    Error::NotFound("the installation's own admin token belongs to no account".into())
}

/// Reads both subjects' failures, says how long to wait, and counts one more.
pub(super) async fn reserve(tx: &mut Tx, subjects: &[(Subject, &str)], now: Micros) -> Result<()> {
    let forgotten = now.plus_seconds(-LOGIN_FORGET_SECONDS);
    let (mut before, mut known) = (Vec::new(), false);
    for (kind, subject) in subjects {
        let attempts = store::attempts(tx, subject).await?;
        known |= *kind == Subject::AccountFrom && attempts.known;
        match attempts.wait(*kind, now) {
            // Who logged in from here before is not kept out by what others do from the same address.
            wait if wait == 0 || (known && *kind == Subject::Address) => before.push(attempts.counted(now)),
            seconds => return Err(Error::TooManyRequests(seconds)),
        }
    }
    for ((kind, subject), before) in subjects.iter().zip(before) {
        store::failed(tx, subject, now, forgotten).await?;
        let now_counted = store::attempts(tx, subject).await?;
        // Others came at the same moment: all that saw the same count share its one attempt.
        let raced = now_counted.counted(now) - 1 != before && !(known && *kind == Subject::Address);
        if raced && now_counted.wait(*kind, now) > 0 {
            return Err(Error::TooManyRequests(now_counted.wait(*kind, now)));
        }
    }
    Ok(())
}
