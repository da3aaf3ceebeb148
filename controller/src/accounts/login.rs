//! Logging in, the next token, and logging out.

use std::net::IpAddr;

use serde_json::json;
use signet_common::time::Micros;
use uuid::Uuid;

use super::attempts::Subject;
use super::model::{Role, User, Username};
use super::passwords;
use super::service::{Accounts, NewUser, reserve};
use super::store::{self, NewSession, Which};
use super::tokens::{Claims, Kind};
use super::who::hashed;
use crate::audit::{self, Action, Author, Note};
use crate::error::{Error, Result};
use crate::limits::{ACCESS_TOKEN_SECONDS, PASSWORD_BYTES_MAX, SESSION_SECONDS, SINGLE_TOKEN_SECONDS};
use crate::network::network;
use crate::settings::Secret;
use crate::store::in_transaction;

/// Which tokens a log-in gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Document 001: an access token, and a refresh token for the next pair.
    Pair,
    /// Document 003: one token.
    Single,
    /// The console's cookie.
    Cookie,
}

impl Form {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Single => "single",
            Self::Cookie => "cookie",
        }
    }

    /// The token of which only the newest counts.
    const fn current(self) -> Kind {
        match self {
            Self::Pair => Kind::Refresh,
            Self::Single => Kind::Single,
            Self::Cookie => Kind::Cookie,
        }
    }
}

/// What a log-in gives.
#[derive(Debug)]
pub struct LoggedIn {
    /// The account.
    pub user: User,
    /// For requests.
    pub token: Secret,
    /// For the next pair; with document 001 only.
    pub refresh: Option<Secret>,
    /// Seconds in which `token` counts.
    pub expires_in: i64,
}

fn address(peer: IpAddr) -> String {
    network(peer).to_string()
}

impl Accounts {
    /// Logs in. Whether there is no such account, the password is wrong or the account is disabled can't be told from
    /// the answer nor from its time.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::TooManyRequests`] after failures.
    pub async fn log_in(
        &self,
        by: &Author,
        username: &str,
        password: &Secret,
        peer: IpAddr,
        form: Form,
    ) -> Result<LoggedIn> {
        let name = username.parse::<Username>().ok();
        let from = address(peer);
        let account = format!("account:{}", hashed(&format!("{}\n{from}", username.to_ascii_lowercase())));
        let address = format!("address:{from}");
        let subjects = [(Subject::AccountFrom, account.as_str()), (Subject::Address, address.as_str())];
        in_transaction!(self.store(), |tx| -> Result<()> { reserve(tx, &subjects, Micros::now()).await })?;

        let known = match &name {
            Some(name) => store::password(self.store(), name.as_str()).await?,
            None => None,
        };
        let usable = password.reveal().len() <= PASSWORD_BYTES_MAX;
        let hash = known.as_ref().map(|(_, hash)| hash.as_str()).filter(|_| usable);
        let shown = if usable { password.clone() } else { Secret::new("") };
        let right = match passwords::verify(&shown, hash).await {
            Ok(right) => right,
            Err(overloaded) => {
                self.uncount(&[&account, &address]).await;
                return Err(overloaded);
            }
        };
        let Some((id, hash)) = known.filter(|_| right) else { return Err(Error::Unauthenticated) };
        let now = Micros::now();
        let logged_in = in_transaction!(self.store(), |tx| -> Result<LoggedIn> {
            if !store::logged_in(tx, id, &hash, now).await? {
                return Err(Error::Unauthenticated);
            }
            let user = store::user(&mut *tx, Which::Id(id)).await?;
            let user = user.ok_or(Error::Unauthenticated)?;
            store::succeeded(tx, &account, &address, now).await?;
            self.begin(tx, by, user, &from, form, now).await
        })?;
        Ok(logged_in)
    }

    /// Takes back an attempt that nobody judged; that it stays counted is a small harm.
    async fn uncount(&self, subjects: &[&str]) {
        let done =
            in_transaction!(self.store(), |tx| -> Result<()> { Ok(store::uncounted(tx, subjects).await?) });
        if let Err(error) = done {
            tracing::debug!(%error, "an attempt to log in stays counted");
        }
    }

    async fn begin(
        &self,
        tx: &mut crate::store::Tx,
        by: &Author,
        user: User,
        from: &str,
        form: Form,
        now: Micros,
    ) -> Result<LoggedIn> {
        let (sid, jti) = (Uuid::new_v4(), Uuid::now_v7());
        let expires_at = now.plus_seconds(SESSION_SECONDS);
        let new = NewSession {
            sid,
            user: user.id,
            kind: form.as_str(),
            jti,
            peer: from.to_owned(),
            now,
            expires_at,
        };
        store::insert_session(tx, &new).await?;
        let by = Author { via: Some("password".into()), ..by.logged_in_as(&user.username) };
        let note = Note::of(Action::SessionBegin, &user.username);
        audit::note(tx, &by, note.new(json!({ "session": sid, "form": form.as_str() }))).await?;
        self.tokens_of(user, form, sid, jti, now, SESSION_SECONDS)
    }

    /// The tokens of a log-in that lasts `left` more seconds.
    fn tokens_of(
        &self,
        user: User,
        form: Form,
        sid: Uuid,
        jti: Uuid,
        now: Micros,
        left: i64,
    ) -> Result<LoggedIn> {
        let seconds = match form {
            Form::Pair => ACCESS_TOKEN_SECONDS.min(left),
            Form::Single => SINGLE_TOKEN_SECONDS.min(left),
            Form::Cookie => left,
        };
        let issue = |kind, jti, seconds| self.tokens()?.issue(kind, sid, jti, now, seconds).map(Secret::new);
        let (token, refresh) = match form {
            Form::Pair => {
                (issue(Kind::Access, Uuid::now_v7(), seconds)?, Some(issue(Kind::Refresh, jti, left)?))
            }
            Form::Single | Form::Cookie => (issue(form.current(), jti, seconds)?, None),
        };
        Ok(LoggedIn { user, token, refresh, expires_in: seconds })
    }

    /// The next token or pair for one that still counts, once. A second use means that two have the token: the whole
    /// log-in ends.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub async fn refresh(&self, by: &Author, token: &str, form: Form) -> Result<LoggedIn> {
        let Claims { typ, sid, jti: old, .. } = self.tokens()?.read(token)?;
        if typ != form.current() {
            return Err(Error::Unauthenticated);
        }
        let now = Micros::now();
        let row = store::session(self.store(), &sid.to_string()).await?;
        let row = row.filter(|row| row.counts(now)).ok_or(Error::Unauthenticated)?;
        let new = Uuid::now_v7();
        let left = row.expires_at / 1_000_000 - now.seconds();
        let turned = in_transaction!(self.store(), |tx| -> Result<Option<User>> {
            let by = by.logged_in_as(&row.owner.username);
            if !store::turn(tx, &sid, &old, &new).await? {
                store::end_session(tx, &sid, now).await?;
                audit::note(tx, &by, Note::of(Action::SessionReuse, &sid.to_string())).await?;
                return Ok(None);
            }
            audit::note(tx, &by, Note::of(Action::SessionRenew, &sid.to_string())).await?;
            Ok(store::user(&mut *tx, Which::Id(row.owner.id)).await?)
        })?;
        let Some(user) = turned else {
            tracing::warn!(
                user = row.owner.username,
                "a token was used for the second time; its log-in was ended"
            );
            return Err(Error::Unauthenticated);
        };
        self.tokens_of(user, form, sid, new, now, left)
    }

    /// A token of a `user` account for trying things out; only with the development flag.
    ///
    /// # Errors
    /// The database's.
    pub async fn development_token(&self, by: &Author, peer: IpAddr) -> Result<LoggedIn> {
        let username: Username = "developer".parse().map_err(|e: &str| Error::Internal(e.to_owned()))?;
        let user = match self.by_name(&username).await? {
            Some(user) => user,
            None => {
                let password = Secret::new(super::service::random_text()?);
                self.create(by, &NewUser { username, email: None, password, role: Role::User }).await?
            }
        };
        if !user.is_active || user.role != Role::User {
            return Err(Error::Forbidden(
                "the account 'developer' is disabled or may do more than a user".into(),
            ));
        }
        let now = Micros::now();
        in_transaction!(self.store(), |tx| -> Result<LoggedIn> {
            self.begin(tx, by, user.clone(), &address(peer), Form::Single, now).await
        })
    }
}
