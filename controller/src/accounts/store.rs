//! The tables of users, log-ins and tokens.

use std::collections::BTreeSet;

use signet_common::time::Micros;
use uuid::Uuid;

use super::attempts::Attempts;
use super::model::{Role, Scope, User};
use crate::store::{Read, Store, StoreError, Tx, corrupt, statements};

macro_rules! user {
    ($($rest:literal)*) => {
        concat!("SELECT u.id, u.uuid, u.username, u.email, u.first_name, u.last_name, u.role, u.is_active, \
            u.host_groups, u.created_at, u.updated_at, u.last_login_at FROM users u " $(, $rest)*)
    };
}

statements! {
    NEXT_ID = same("UPDATE counters SET last = last + 1 WHERE name = 'users'");
    THIS_ID = same("SELECT last FROM counters WHERE name = 'users'");
    COUNT_ALL = same("SELECT COUNT(*) AS number FROM users");
    INSERT_USER = same("INSERT INTO users (id, uuid, username, email, first_name, last_name, role, password_hash, \
            is_active, host_groups, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?)");
    BY_ID = same(user!("WHERE u.id = ?"));
    BY_IDS = same(user!("WHERE u.id IN ({list})"));
    BY_UUID = same(user!("WHERE u.uuid = ?"));
    BY_NAME = same(user!("WHERE u.username = ?"));
    PASSWORD = same("SELECT id, password_hash FROM users WHERE username = ?");
    LIST = same(user!("WHERE (? IS NULL OR u.role = ?) AND (? IS NULL OR u.username LIKE ? ESCAPE '!' \
            OR u.email LIKE ? ESCAPE '!') ORDER BY u.id DESC LIMIT ? OFFSET ?"));
    COUNT = same("SELECT COUNT(*) AS number FROM users u WHERE (? IS NULL OR u.role = ?) AND (? IS NULL \
            OR u.username LIKE ? ESCAPE '!' OR u.email LIKE ? ESCAPE '!')");
    /// Held until the end of the transaction, so that the last two can't both go. SQLite's transactions that write
    /// exclude one another anyway.
    ADMINS = differ("SELECT id FROM users WHERE role = 'admin' AND is_active = 1 ORDER BY id FOR UPDATE",
            "SELECT id FROM users WHERE role = 'admin' AND is_active = 1 ORDER BY id");
    UPDATE_USER = same("UPDATE users SET email = ?, first_name = ?, last_name = ?, role = ?, is_active = ?, \
            host_groups = ?, updated_at = ? WHERE id = ?");
    SET_PASSWORD = same("UPDATE users SET password_hash = ?, updated_at = ? WHERE id = ?");
    /// Only while the password that was checked is still the one, and the account counts. Its row is held from here on:
    /// a change of either ends this log-in, or comes first.
    LOGGED_IN = same("UPDATE users SET last_login_at = ? WHERE id = ? AND password_hash = ? AND is_active = 1");
    DELETE_USER = same("DELETE FROM users WHERE id = ?");
    DELETE_SESSIONS = same("DELETE FROM sessions WHERE user_id = ?");
    DELETE_TOKENS = same("DELETE FROM api_tokens WHERE user_id = ?");

    INSERT_SESSION = same("INSERT INTO sessions (sid, user_id, kind, current_jti, peer, created_at, expires_at) \
            VALUES (?, ?, ?, ?, ?, ?, ?)");
    /// Asked with every request: one row of each table by its primary key.
    SESSION = same("SELECT s.current_jti, s.expires_at, s.ended_at, u.id, u.uuid, u.username, u.role, u.is_active, \
            u.host_groups FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.sid = ?");
    TURN = same("UPDATE sessions SET current_jti = ? WHERE sid = ? AND current_jti = ? AND ended_at IS NULL");
    END_SESSION = same("UPDATE sessions SET ended_at = ? WHERE sid = ? AND ended_at IS NULL");
    END_OTHERS = same("UPDATE sessions SET ended_at = ? WHERE user_id = ? AND sid <> ? AND ended_at IS NULL");
    DELETE_OLD_SESSIONS = same("DELETE FROM sessions WHERE expires_at < ?");

    INSERT_TOKEN = same("INSERT INTO api_tokens (hash, id, user_id, name, role, scope, created_at, expires_at) \
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    /// Asked with every request: one row of each table by its primary key.
    TOKEN = same("SELECT t.id AS token_id, t.role AS token_role, t.scope, t.expires_at, t.last_used_at, u.id, u.uuid, \
            u.username, u.role, u.is_active, u.host_groups FROM api_tokens t JOIN users u ON u.id = t.user_id \
            WHERE t.hash = ?");
    TOKENS = same("SELECT t.id, u.username, t.name, t.role, t.scope, t.created_at, t.expires_at, t.last_used_at \
            FROM api_tokens t JOIN users u ON u.id = t.user_id WHERE (? IS NULL OR t.user_id = ?) \
            AND t.id < ? ORDER BY t.id DESC LIMIT ?");
    COUNT_TOKENS = same("SELECT COUNT(*) AS number FROM api_tokens WHERE user_id = ?");
    USE_TOKEN = same("UPDATE api_tokens SET last_used_at = ? WHERE hash = ?");
    DELETE_TOKEN = same("DELETE FROM api_tokens WHERE id = ? AND (? IS NULL OR user_id = ?)");

    INSERT_TICKET = same("INSERT INTO tickets (hash, whose, expires_at) VALUES (?, ?, ?)");
    TICKET = same("SELECT whose FROM tickets WHERE hash = ? AND expires_at >= ?");
    DELETE_TICKET = same("DELETE FROM tickets WHERE hash = ?");
    DELETE_OLD_TICKETS = same("DELETE FROM tickets WHERE expires_at < ?");

    ATTEMPTS = same("SELECT failures, last_failure_at, known_at FROM login_attempts WHERE subject = ?");
    /// A failure long after the last one is the first again. The counter is read before the time is overwritten.
    FAILED = differ("INSERT INTO login_attempts (subject, failures, last_failure_at) VALUES (?, 1, ?) \
            ON DUPLICATE KEY UPDATE failures = CASE WHEN last_failure_at <= ? THEN 1 ELSE failures + 1 END, \
            last_failure_at = VALUES(last_failure_at)",
        "INSERT INTO login_attempts (subject, failures, last_failure_at) VALUES (?, 1, ?) \
            ON CONFLICT (subject) DO UPDATE SET failures = CASE WHEN last_failure_at <= ? THEN 1 \
            ELSE failures + 1 END, last_failure_at = excluded.last_failure_at");
    UNCOUNTED = same("UPDATE login_attempts SET failures = failures - 1 WHERE failures > 0 AND subject IN ({list})");
    RESET = same("UPDATE login_attempts SET failures = 0, known_at = ? WHERE subject = ?");
    FORGIVE = same("UPDATE login_attempts SET failures = failures - 1, known_at = ? WHERE subject = ? \
            AND failures > 0");
    DELETE_OLD_ATTEMPTS = same("DELETE FROM login_attempts WHERE last_failure_at < ? AND \
            (known_at IS NULL OR known_at < ?)");
}

#[derive(sqlx::FromRow)]
struct UserRow {
    id: i64,
    uuid: String,
    username: String,
    email: Option<String>,
    first_name: String,
    last_name: String,
    role: String,
    is_active: i64,
    host_groups: Option<String>,
    created_at: i64,
    updated_at: i64,
    last_login_at: Option<i64>,
}

fn role(text: &str) -> Result<Role, StoreError> {
    Role::parse(text).ok_or_else(|| corrupt("role"))
}

fn groups(text: Option<&str>) -> Result<Option<BTreeSet<String>>, StoreError> {
    text.map(serde_json::from_str).transpose().map_err(corrupt)
}

impl UserRow {
    fn user(self) -> Result<User, StoreError> {
        Ok(User {
            id: self.id,
            uuid: self.uuid.parse().map_err(corrupt)?,
            username: self.username,
            email: self.email.unwrap_or_default(),
            first_name: self.first_name,
            last_name: self.last_name,
            role: role(&self.role)?,
            is_active: self.is_active != 0,
            host_groups: groups(self.host_groups.as_deref())?,
            created_at: Micros(self.created_at),
            updated_at: Micros(self.updated_at),
            last_login_at: self.last_login_at.map(Micros),
        })
    }
}

/// Whose record is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'a> {
    Id(i64),
    Uuid(&'a Uuid),
    Name(&'a str),
}

impl Which<'_> {
    fn query(self) -> crate::store::Query {
        match self {
            Self::Id(id) => BY_ID.bind(id),
            Self::Uuid(uuid) => BY_UUID.bind(uuid.to_string()),
            Self::Name(name) => BY_NAME.bind(name),
        }
    }
}

pub(super) async fn user(mut read: impl Read, which: Which<'_>) -> Result<Option<User>, StoreError> {
    read.first::<UserRow>(which.query()).await?.map(UserRow::user).transpose()
}

pub(super) async fn users_in(tx: &mut Tx, ids: &[i64]) -> Result<Vec<User>, StoreError> {
    let rows: Vec<UserRow> = tx.all(BY_IDS.query().list(ids.iter().copied())).await?;
    rows.into_iter().map(UserRow::user).collect()
}

pub(super) async fn count_all(tx: &mut Tx) -> Result<i64, StoreError> {
    Ok(tx.first::<(i64,)>(COUNT_ALL.query()).await?.map_or(0, |(n,)| n))
}

/// Adds an account; its id is given here. [`StoreError::Duplicate`] when the name or the address is taken.
pub(super) async fn insert_user(tx: &mut Tx, user: &User, hash: &str) -> Result<i64, StoreError> {
    tx.run(NEXT_ID.query()).await?;
    let (id,) = tx.first::<(i64,)>(THIS_ID.query()).await?.ok_or_else(|| corrupt("counters"))?;
    let email = Some(user.email.as_str()).filter(|e| !e.is_empty());
    let query = INSERT_USER.bind(id).bind(user.uuid.to_string()).bind(user.username.as_str()).bind(email);
    let query = query.bind(user.first_name.as_str()).bind(user.last_name.as_str()).bind(user.role.as_str());
    let query = query.bind(hash).bind(groups_text(user)?).bind(user.created_at).bind(user.updated_at);
    tx.run(query).await?;
    Ok(id)
}

fn groups_text(user: &User) -> Result<Option<String>, StoreError> {
    user.host_groups.as_ref().map(serde_json::to_string).transpose().map_err(corrupt)
}

/// The account of a name, with its password's hash.
pub(super) async fn password(store: &Store, username: &str) -> Result<Option<(i64, String)>, StoreError> {
    store.first(PASSWORD.bind(username)).await
}

/// What a list of users is narrowed to; the search is for the text itself, anywhere in name or address.
#[derive(Debug, Clone, Default)]
pub(super) struct UserFilter {
    pub(super) role: Option<Role>,
    pub(super) search: Option<String>,
}

/// A pattern for LIKE that finds the text itself.
fn pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.to_lowercase().chars() {
        if ['%', '_', '!'].contains(&c) {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern + "%"
}

/// A page of users, newest first, and how many there are in all.
pub(super) async fn list(
    store: &Store,
    filter: &UserFilter,
    limit: usize,
    offset: usize,
) -> Result<(Vec<User>, u64), StoreError> {
    let role = filter.role.map(Role::as_str);
    let search = filter.search.as_deref().map(pattern);
    let narrowed = |statement: crate::store::Statement| {
        let query = statement.bind(role).bind(role).bind(search.clone());
        query.bind(search.clone()).bind(search.clone())
    };
    let rows: Vec<UserRow> = store.all(narrowed(LIST).bind(limit as u64).bind(offset as u64)).await?;
    let count: Option<(i64,)> = store.first(narrowed(COUNT)).await?;
    let users = rows.into_iter().map(UserRow::user).collect::<Result<_, _>>()?;
    Ok((users, count.map_or(0, |(n,)| n.unsigned_abs())))
}

/// The ids of all admins that count, held until the end of the transaction.
pub(super) async fn admins(tx: &mut Tx) -> Result<Vec<i64>, StoreError> {
    let rows: Vec<(i64,)> = tx.all(ADMINS.query()).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Writes everything of an account that may change, but its password.
pub(super) async fn update_user(tx: &mut Tx, user: &User) -> Result<(), StoreError> {
    let email = Some(user.email.as_str()).filter(|e| !e.is_empty());
    let query = UPDATE_USER.bind(email).bind(user.first_name.as_str()).bind(user.last_name.as_str());
    let query = query.bind(user.role.as_str()).bind(user.is_active).bind(groups_text(user)?);
    tx.run(query.bind(user.updated_at).bind(user.id)).await.map(drop)
}

pub(super) async fn set_password(tx: &mut Tx, id: i64, hash: &str, now: Micros) -> Result<(), StoreError> {
    tx.run(SET_PASSWORD.bind(hash).bind(now).bind(id)).await.map(drop)
}

/// Deletes an account with its log-ins and tokens.
pub(super) async fn delete_user(tx: &mut Tx, id: i64) -> Result<(), StoreError> {
    tx.run(DELETE_TOKENS.bind(id)).await?;
    tx.run(DELETE_SESSIONS.bind(id)).await?;
    tx.run(DELETE_USER.bind(id)).await.map(drop)
}

/// A log-in that begins.
#[derive(Debug, Clone)]
pub(super) struct NewSession<'a> {
    pub(super) sid: Uuid,
    pub(super) user: i64,
    pub(super) kind: &'a str,
    pub(super) jti: Uuid,
    pub(super) peer: String,
    pub(super) now: Micros,
    pub(super) expires_at: Micros,
}

/// Notes a log-in with the password of this hash; says whether it still is the account's.
pub(super) async fn logged_in(tx: &mut Tx, id: i64, hash: &str, now: Micros) -> Result<bool, StoreError> {
    Ok(tx.run(LOGGED_IN.bind(now).bind(id).bind(hash)).await? > 0)
}

pub(super) async fn insert_session(tx: &mut Tx, new: &NewSession<'_>) -> Result<(), StoreError> {
    let query =
        INSERT_SESSION.bind(new.sid.to_string()).bind(new.user).bind(new.kind).bind(new.jti.to_string());
    tx.run(query.bind(new.peer.as_str()).bind(new.now).bind(new.expires_at)).await.map(drop)
}

/// A log-in with the rights of its account, as they are now.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct SessionRow {
    pub(super) current_jti: String,
    pub(super) expires_at: i64,
    ended_at: Option<i64>,
    #[sqlx(flatten)]
    pub(super) owner: OwnerRow,
}

/// The part of an account that says what it may do.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct OwnerRow {
    pub(super) id: i64,
    uuid: String,
    pub(super) username: String,
    role: String,
    is_active: i64,
    host_groups: Option<String>,
}

impl OwnerRow {
    pub(super) fn is_active(&self) -> bool {
        self.is_active != 0
    }
    pub(super) fn uuid(&self) -> Result<Uuid, StoreError> {
        self.uuid.parse().map_err(corrupt)
    }
    pub(super) fn role(&self) -> Result<Role, StoreError> {
        role(&self.role)
    }
    pub(super) fn groups(&self) -> Result<Option<BTreeSet<String>>, StoreError> {
        groups(self.host_groups.as_deref())
    }
}

impl SessionRow {
    /// Whether the log-in and its account still count.
    pub(super) fn counts(&self, now: Micros) -> bool {
        self.ended_at.is_none() && self.expires_at > now.0 && self.owner.is_active()
    }
}

pub(super) async fn session(store: &Store, sid: &str) -> Result<Option<SessionRow>, StoreError> {
    store.first(SESSION.bind(sid)).await
}

/// Makes the next token the current one; says whether the old one was.
pub(super) async fn turn(tx: &mut Tx, sid: &Uuid, old: &Uuid, new: &Uuid) -> Result<bool, StoreError> {
    let query = TURN.bind(new.to_string()).bind(sid.to_string()).bind(old.to_string());
    Ok(tx.run(query).await? > 0)
}

pub(super) async fn end_session(tx: &mut Tx, sid: &Uuid, now: Micros) -> Result<(), StoreError> {
    tx.run(END_SESSION.bind(now).bind(sid.to_string())).await.map(drop)
}

/// Ends every log-in of an account, but this one.
pub(super) async fn end_others(
    tx: &mut Tx,
    user: i64,
    but: Option<&Uuid>,
    now: Micros,
) -> Result<(), StoreError> {
    let but = but.map(Uuid::to_string).unwrap_or_default();
    tx.run(END_OTHERS.bind(now).bind(user).bind(but)).await.map(drop)
}

/// An API token that is made.
pub(super) struct NewToken<'a> {
    pub(super) hash: String,
    pub(super) id: Uuid,
    pub(super) user: i64,
    pub(super) name: &'a str,
    pub(super) role: Role,
    pub(super) scope: &'a Scope,
    pub(super) now: Micros,
    pub(super) expires_at: Option<Micros>,
}

pub(super) async fn insert_token(tx: &mut Tx, new: &NewToken<'_>) -> Result<(), StoreError> {
    let scope = serde_json::to_string(new.scope).map_err(corrupt)?;
    let query = INSERT_TOKEN.bind(new.hash.as_str()).bind(new.id.to_string()).bind(new.user).bind(new.name);
    tx.run(query.bind(new.role.as_str()).bind(scope).bind(new.now).bind(new.expires_at)).await.map(drop)
}

pub(super) async fn count_tokens(tx: &mut Tx, user: i64) -> Result<usize, StoreError> {
    let row: Option<(i64,)> = tx.first(COUNT_TOKENS.bind(user)).await?;
    Ok(row.map_or(0, |(n,)| usize::try_from(n).unwrap_or(usize::MAX)))
}

/// An API token with the rights of its account, as they are now.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct TokenRow {
    token_id: String,
    token_role: String,
    scope: String,
    expires_at: Option<i64>,
    pub(super) last_used_at: Option<i64>,
    #[sqlx(flatten)]
    pub(super) owner: OwnerRow,
}

impl TokenRow {
    pub(super) fn counts(&self, now: Micros) -> bool {
        self.expires_at.is_none_or(|at| at > now.0) && self.owner.is_active()
    }
    pub(super) fn id(&self) -> Result<Uuid, StoreError> {
        self.token_id.parse().map_err(corrupt)
    }
    pub(super) fn role(&self) -> Result<Role, StoreError> {
        Ok(role(&self.token_role)?.at_most(self.owner.role()?))
    }
    pub(super) fn scope(&self) -> Result<Scope, StoreError> {
        serde_json::from_str(&self.scope).map_err(corrupt)
    }
}

pub(super) async fn token(store: &Store, hash: &str) -> Result<Option<TokenRow>, StoreError> {
    store.first(TOKEN.bind(hash)).await
}

/// Notes when a token was last used.
pub(super) async fn use_token(store: &Store, hash: &str, now: Micros) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    tx.run(USE_TOKEN.bind(now).bind(hash)).await?;
    tx.commit().await
}

/// A token as it is shown.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct ShownToken {
    pub(super) id: String,
    pub(super) username: String,
    pub(super) name: String,
    pub(super) role: String,
    scope: String,
    pub(super) created_at: i64,
    pub(super) expires_at: Option<i64>,
    pub(super) last_used_at: Option<i64>,
}

impl ShownToken {
    pub(super) fn scope(&self) -> Result<Scope, StoreError> {
        serde_json::from_str(&self.scope).map_err(corrupt)
    }
}

/// Tokens of one account, or of all, newest first.
pub(super) async fn tokens(
    store: &Store,
    user: Option<i64>,
    before: &str,
    limit: usize,
) -> Result<Vec<ShownToken>, StoreError> {
    store.all(TOKENS.bind(user).bind(user).bind(before).bind(limit as u64)).await
}

/// Deletes a token of this account, or of any; says whether there was one.
pub(super) async fn delete_token(tx: &mut Tx, id: &Uuid, user: Option<i64>) -> Result<bool, StoreError> {
    Ok(tx.run(DELETE_TOKEN.bind(id.to_string()).bind(user).bind(user)).await? > 0)
}

pub(super) async fn insert_ticket(
    tx: &mut Tx,
    hash: &str,
    whose: &str,
    expires_at: Micros,
) -> Result<(), StoreError> {
    tx.run(INSERT_TICKET.bind(hash).bind(whose).bind(expires_at)).await.map(drop)
}

/// Whether there is such a ticket.
pub(super) async fn is_ticket(store: &Store, hash: &str, now: Micros) -> Result<bool, StoreError> {
    Ok(store.first::<(String,)>(TICKET.bind(hash).bind(now)).await?.is_some())
}

/// Uses a ticket up: whose it is, once.
pub(super) async fn use_ticket(tx: &mut Tx, hash: &str, now: Micros) -> Result<Option<String>, StoreError> {
    let whose: Option<(String,)> = tx.first(TICKET.bind(hash).bind(now)).await?;
    let first = tx.run(DELETE_TICKET.bind(hash)).await? > 0;
    Ok(whose.map(|(sid,)| sid).filter(|_| first))
}

pub(super) async fn attempts(tx: &mut Tx, subject: &str) -> Result<Attempts, StoreError> {
    let row: Option<(i64, i64, Option<i64>)> = tx.first(ATTEMPTS.bind(subject)).await?;
    Ok(row.map_or_else(Attempts::default, |(failures, at, known)| Attempts {
        failures,
        last_failure: Micros(at),
        known: known.is_some(),
    }))
}

/// Counts one more failure; those up to `forgotten` count no more.
pub(super) async fn failed(
    tx: &mut Tx,
    subject: &str,
    now: Micros,
    forgotten: Micros,
) -> Result<(), StoreError> {
    tx.run(FAILED.bind(subject).bind(now).bind(forgotten)).await.map(drop)
}

/// An attempt was neither right nor wrong: it is not counted after all.
pub(super) async fn uncounted(tx: &mut Tx, subjects: &[&str]) -> Result<(), StoreError> {
    tx.run(UNCOUNTED.query().list(subjects.iter().copied())).await.map(drop)
}

/// A log-in succeeded: an account's failures from there are forgotten, and the address's last one was none.
pub(super) async fn succeeded(
    tx: &mut Tx,
    account: &str,
    address: &str,
    now: Micros,
) -> Result<(), StoreError> {
    tx.run(RESET.bind(now).bind(account)).await?;
    tx.run(FORGIVE.bind(now).bind(address)).await.map(drop)
}

/// Forgets what has no effect any more: log-ins and tickets past their end, failures from before these moments.
pub(super) async fn forget(
    store: &Store,
    now: Micros,
    failures: Micros,
    known: Micros,
) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    tx.run(DELETE_OLD_SESSIONS.bind(now)).await?;
    tx.run(DELETE_OLD_TICKETS.bind(now)).await?;
    tx.run(DELETE_OLD_ATTEMPTS.bind(failures).bind(known)).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_for_the_text_itself() {
        assert_eq!(pattern("A_b%c!"), "%a!_b!%c!!%");
    }
}
