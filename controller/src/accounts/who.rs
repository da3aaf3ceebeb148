//! From a credential to the account behind it. Rights are read at every use, never taken from a token.

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use signet_common::time::Micros;
use uuid::Uuid;

use super::model::{Caller, Deploys, User, Via, both};
use super::service::Accounts;
use super::store;
use super::tokens::Kind;
use crate::audit::{self, Action, Author, Note};
use crate::error::{Error, Result};
use crate::limits::TOKEN_USE_SECONDS;
use crate::store::Tx;

/// What a request shows. Texts are as they came, not believed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// In `Authorization: Bearer` or `X-API-Key`.
    Token(&'a str),
    /// The console's cookie.
    Cookie(&'a str),
    /// A ticket for one stream.
    Ticket(&'a str),
}

/// Where a request came from and where it goes; a token may be limited to some of both.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// The true peer.
    pub peer: IpAddr,
    /// The surface's name, as in a token's scope.
    pub surface: &'static str,
}

/// Every API token begins so, so that leaked ones are found by who looks for them.
pub(super) const TOKEN_PREFIX: &str = "signet_";

/// SHA-256 in hex: what is kept of a token or ticket.
pub(super) fn hashed(secret: &str) -> String {
    hex::encode(digest(&SHA256, secret.as_bytes()))
}

impl Accounts {
    /// The account behind a credential.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for one that does not count, [`Error::Forbidden`] for a token that does not count here,
    /// and the database's.
    pub async fn caller(&self, credential: Credential<'_>, way: Way) -> Result<Caller> {
        match credential {
            Credential::Token(token) if self.is_admin_token(token) => Ok(Caller::admin_token()),
            Credential::Token(token) if token.starts_with(TOKEN_PREFIX) => {
                self.by_api_token(&hashed(token), way).await
            }
            Credential::Token(token) => self.by_jwt(token, &[Kind::Access, Kind::Single]).await,
            Credential::Cookie(token) => self.by_jwt(token, &[Kind::Cookie]).await,
            Credential::Ticket(ticket) => self.by_ticket(ticket, way).await,
        }
    }

    fn is_admin_token(&self, token: &str) -> bool {
        let found = digest(&SHA256, token.as_bytes());
        verify_slices_are_equal(found.as_ref(), self.admin_token()).is_ok()
    }

    /// These accounts with their rights as they are in this transaction, those that are still there.
    ///
    /// # Errors
    /// The database's.
    pub async fn users(&self, tx: &mut Tx, ids: &[i64]) -> Result<Vec<User>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        Ok(store::users_in(tx, ids).await?)
    }

    async fn by_jwt(&self, token: &str, kinds: &[Kind]) -> Result<Caller> {
        let claims = self.tokens()?.read(token)?;
        if !kinds.contains(&claims.typ) {
            return Err(Error::Unauthenticated);
        }
        // Of an access token many may live beside one another; of the others only the newest counts.
        let newest = (claims.typ != Kind::Access).then_some(&claims.jti);
        self.by_session(&claims.sid, newest).await
    }

    async fn by_session(&self, sid: &Uuid, newest: Option<&Uuid>) -> Result<Caller> {
        let found = store::session(self.store(), &sid.to_string()).await?;
        let row = found.filter(|row| row.counts(Micros::now())).ok_or(Error::Unauthenticated)?;
        if newest.is_some_and(|jti| row.current_jti != jti.to_string()) {
            return Err(Error::Unauthenticated);
        }
        let owner = &row.owner;
        Ok(Caller {
            name: owner.username.clone(),
            role: owner.role()?,
            user: Some((owner.id, owner.uuid()?)),
            via: Via::Session(*sid),
            groups: owner.groups()?,
            deploys: None,
        })
    }

    async fn by_api_token(&self, hash: &str, way: Way) -> Result<Caller> {
        let now = Micros::now();
        let found = store::token(self.store(), hash).await?;
        let row = found.filter(|row| row.counts(now)).ok_or(Error::Unauthenticated)?;
        let scope = row.scope()?;
        if !scope.covers(way.surface, way.peer) {
            return Err(Error::Forbidden("this token does not count here".into()));
        }
        let fresh = row.last_used_at.is_some_and(|at| Micros(at).plus_seconds(TOKEN_USE_SECONDS) > now);
        if !fresh {
            self.note_use(hash.to_owned(), now);
        }
        let owner = &row.owner;
        Ok(Caller {
            name: owner.username.clone(),
            role: row.role()?,
            user: Some((owner.id, owner.uuid()?)),
            via: Via::ApiToken(row.id()?),
            deploys: Deploys::of(&scope),
            groups: both(owner.groups()?, scope.groups),
        })
    }

    /// Beside the request: it is for people to look at, and nobody waits for it.
    fn note_use(&self, hash: String, now: Micros) {
        let accounts = self.clone();
        tokio::spawn(async move {
            if let Err(error) = store::use_token(accounts.store(), &hash, now).await {
                tracing::debug!(%error, "the use of a token was not noted");
            }
        });
    }

    async fn by_ticket(&self, ticket: &str, way: Way) -> Result<Caller> {
        let now = Micros::now();
        // Guesses cost no transaction.
        if !store::is_ticket(self.store(), &hashed(ticket), now).await? {
            return Err(Error::Unauthenticated);
        }
        let mut tx = self.store().begin().await?;
        let whose = store::use_ticket(&mut tx, &hashed(ticket), now).await?;
        tx.commit().await?;
        let whose = whose.ok_or(Error::Unauthenticated)?;
        match whose.split_once(':') {
            Some(("session", sid)) => {
                self.by_session(&sid.parse().map_err(|_| Error::Unauthenticated)?, None).await
            }
            Some(("token", hash)) => self.by_api_token(hash, way).await,
            _ if whose == ADMIN_TICKET => Ok(Caller::admin_token()),
            _ => Err(Error::Unauthenticated),
        }
    }

    /// A ticket for one stream, with the rights of who asks for it.
    ///
    /// # Errors
    /// The database's.
    pub async fn ticket(&self, by: &Author, caller: &Caller, credential: Option<&str>) -> Result<String> {
        let whose = match &caller.via {
            Via::AdminToken => ADMIN_TICKET.to_owned(),
            Via::Session(sid) => format!("session:{sid}"),
            Via::ApiToken(_) => format!("token:{}", hashed(credential.ok_or(Error::Unauthenticated)?)),
        };
        let ticket = super::service::random_text()?;
        let mut tx = self.store().begin().await?;
        let expires_at = Micros::now().plus_seconds(crate::limits::TICKET_SECONDS);
        store::insert_ticket(&mut tx, &hashed(&ticket), &whose, expires_at).await?;
        audit::note(&mut tx, by, Note::of(Action::TicketMake, &caller.name)).await?;
        tx.commit().await?;
        Ok(ticket)
    }
}

/// Whose a ticket is that the installation's own admin token asked for.
const ADMIN_TICKET: &str = "admin-token";
