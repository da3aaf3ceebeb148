//! Who may do what: every route, in one table. A route that does not stand here is not served.

use std::collections::HashMap;
use std::sync::LazyLock;

use http::Method;

use super::auth::Role;

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing, and no database either: it answers while the controller still waits for one.
    Static,
    /// No credential; the request carries its own proof.
    Public,
    /// A loopback peer, or a credential that may read. Needs no database.
    LoopbackOrRead,
    /// Any account: what it does is for itself.
    Own,
    /// To read.
    Read,
    /// To read a stream; a ticket does for a credential.
    Watch,
    /// To make hosts do something.
    Operate,
    /// To change who and what belongs to the installation.
    Admin,
}

impl Need {
    /// Whether a role has this right.
    #[must_use]
    pub const fn allows(self, role: Role) -> bool {
        match self {
            Self::Static | Self::Public | Self::Own => true,
            Self::LoopbackOrRead | Self::Read | Self::Watch => {
                matches!(role, Role::Admin | Role::Operator | Role::Viewer)
            }
            Self::Operate => matches!(role, Role::Admin | Role::Operator),
            Self::Admin => matches!(role, Role::Admin),
        }
    }

    /// Whether it can be answered before the database is there.
    #[must_use]
    pub const fn needs_store(self) -> bool {
        !matches!(self, Self::Static | Self::LoopbackOrRead)
    }
}

/// Method, path as the router writes it, and what it asks for. `HEAD` goes with `GET`.
pub const ROUTES: &[(Method, &str, Need)] = &[
    (Method::GET, "/", Need::Static),
    (Method::GET, "/openapi.json", Need::Static),
    (Method::GET, "/docs", Need::Static),
    (Method::GET, "/docs/{*file}", Need::Static),
    (Method::GET, "/api/docs", Need::Static),
    (Method::GET, "/api/schema/swagger-ui", Need::Static),
    (Method::GET, "/api/health", Need::Static),
    (Method::GET, "/metrics", Need::LoopbackOrRead),
    // hosts
    (Method::GET, "/api/servers", Need::Read),
    (Method::POST, "/api/servers", Need::Admin),
    (Method::GET, "/api/servers/{hostname}", Need::Read),
    (Method::PATCH, "/api/servers/{hostname}", Need::Admin),
    (Method::DELETE, "/api/servers/{hostname}", Need::Admin),
    (Method::GET, "/api/client-keys", Need::Read),
    (Method::GET, "/api/client-keys/{hostname}", Need::Read),
    (Method::PUT, "/api/client-keys/{hostname}", Need::Admin),
    (Method::GET, "/api/agents", Need::Read),
    (Method::GET, "/api/agents/nonce", Need::Public),
    (Method::GET, "/api/agents/controller-key", Need::Read),
    (Method::POST, "/api/agents/hello", Need::Public),
    (Method::POST, "/api/agents/leave", Need::Public),
    (Method::GET, "/api/agents/{agent_id}/orphans", Need::Read),
    (Method::POST, "/api/agents/{agent_id}/accept", Need::Admin),
    (Method::POST, "/api/agents/{agent_id}/revoke", Need::Admin),
    (Method::GET, "/api/keys", Need::Read),
    (Method::POST, "/api/keys/rotate", Need::Admin),
    (Method::POST, "/api/keys/revoke", Need::Admin),
    (Method::GET, "/api/join-tokens", Need::Admin),
    (Method::POST, "/api/join-tokens", Need::Admin),
    (Method::DELETE, "/api/join-tokens/{id}", Need::Admin),
    // commands
    (Method::POST, "/api/commands", Need::Operate),
    (Method::GET, "/api/tasks", Need::Read),
    (Method::GET, "/api/tasks/{task_id}", Need::Read),
    (Method::GET, "/api/tasks/{task_id}/results", Need::Read),
    (Method::GET, "/api/tasks/{task_id}/bundle", Need::Read),
    (Method::POST, "/api/tasks/{task_id}/cancel", Need::Operate),
    (Method::GET, "/api/tasks/{task_id}/events", Need::Watch),
    (Method::GET, "/api/tasks/{task_id}/targets/{hostname}/{stream}", Need::Read),
    (Method::GET, "/api/dispatch", Need::Read),
    (Method::PUT, "/api/dispatch", Need::Operate),
    // approvals
    (Method::GET, "/api/approval-rules", Need::Read),
    (Method::POST, "/api/approval-rules", Need::Admin),
    (Method::DELETE, "/api/approval-rules/{id}", Need::Admin),
    (Method::GET, "/api/approvals", Need::Read),
    (Method::GET, "/api/approvals/{task_id}", Need::Read),
    (Method::POST, "/api/approvals/{task_id}/approve", Need::Operate),
    (Method::POST, "/api/approvals/{task_id}/refuse", Need::Operate),
    (Method::GET, "/api/approver-keys", Need::Operate),
    (Method::POST, "/api/approver-keys", Need::Operate),
    (Method::DELETE, "/api/approver-keys/{id}", Need::Operate),
    // deploy
    (Method::GET, "/api/v1/jobs", Need::Read),
    (Method::POST, "/api/v1/jobs", Need::Operate),
    (Method::GET, "/api/v1/jobs/{job_id}", Need::Read),
    (Method::GET, "/api/v1/jobs/{job_id}/logs", Need::Read),
    (Method::POST, "/api/v1/jobs/{job_id}/retry", Need::Operate),
    (Method::POST, "/api/v1/jobs/{job_id}/rollback", Need::Operate),
    (Method::POST, "/api/v1/jobs/{job_id}/cancel", Need::Operate),
    (Method::GET, "/api/deployments", Need::Read),
    (Method::GET, "/api/v1/jobs/host-keys", Need::Admin),
    (Method::DELETE, "/api/v1/jobs/host-keys/{host}", Need::Admin),
    // repositories
    (Method::GET, "/api/repositories", Need::Read),
    (Method::POST, "/api/repositories", Need::Admin),
    (Method::GET, "/api/repositories/{id}", Need::Read),
    (Method::PATCH, "/api/repositories/{id}", Need::Admin),
    (Method::DELETE, "/api/repositories/{id}", Need::Admin),
    // accounts
    (Method::POST, "/api/auth/login", Need::Public),
    (Method::POST, "/api/auth/refresh", Need::Public),
    (Method::POST, "/api/auth/logout", Need::Own),
    (Method::GET, "/api/users/me", Need::Own),
    (Method::PATCH, "/api/users/me", Need::Own),
    (Method::POST, "/api/users/me/password", Need::Own),
    (Method::GET, "/api/users", Need::Admin),
    (Method::POST, "/api/v1/auth/login", Need::Public),
    (Method::POST, "/api/v1/auth/register", Need::Public),
    (Method::POST, "/api/v1/auth/refresh", Need::Public),
    (Method::GET, "/api/v1/auth/profile", Need::Own),
    (Method::POST, "/api/v1/auth/logout", Need::Own),
    (Method::GET, "/api/v1/auth/token", Need::Public),
    (Method::GET, "/api/v1/users", Need::Admin),
    (Method::GET, "/api/v1/users/{id}", Need::Own),
    (Method::PUT, "/api/v1/users/{id}", Need::Own),
    (Method::DELETE, "/api/v1/users/{id}", Need::Admin),
    (Method::PUT, "/api/v1/users/{id}/password", Need::Own),
    (Method::POST, "/api/session", Need::Public),
    (Method::DELETE, "/api/session", Need::Own),
    (Method::POST, "/api/tickets", Need::Own),
    (Method::GET, "/api/tokens", Need::Own),
    (Method::POST, "/api/tokens", Need::Own),
    (Method::DELETE, "/api/tokens/{id}", Need::Own),
    // audit
    (Method::GET, "/api/audit", Need::Read),
    (Method::GET, "/api/audit/export", Need::Read),
    (Method::GET, "/api/audit/head", Need::Read),
];

/// The methods of one path.
type Methods = Vec<(Method, Need)>;

static BY_PATH: LazyLock<HashMap<&str, Methods>> = LazyLock::new(|| {
    let mut by_path: HashMap<&str, Methods> = HashMap::new();
    for (method, path, need) in ROUTES {
        by_path.entry(path).or_default().push((method.clone(), *need));
    }
    by_path
});

/// What the table says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Served, to whom has this.
    Needs(Need),
    /// There is such a path; its methods, for `Allow`.
    OtherMethods(String),
    /// There is no such path.
    Unknown,
}

/// Looks up a request by the router's path.
#[must_use]
pub fn rule(method: &Method, path: &str) -> Rule {
    let Some(methods) = BY_PATH.get(path) else { return Rule::Unknown };
    let wanted = if method == Method::HEAD { &Method::GET } else { method };
    match methods.iter().find(|(method, _)| method == wanted) {
        Some((_, need)) => Rule::Needs(*need),
        None => Rule::OtherMethods(allow(methods)),
    }
}

fn allow(methods: &Methods) -> String {
    let mut names: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.sort_unstable();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Pages that the interface's description leaves out.
    const UNDOCUMENTED: [&str; 6] =
        ["/", "/openapi.json", "/docs", "/docs/{*file}", "/api/docs", "/api/schema/swagger-ui"];

    #[test]
    fn every_documented_operation_stands_in_the_table_and_the_other_way_round() {
        let document = serde_json::to_value(crate::http::documented().into_openapi()).unwrap();
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().unwrap().keys().map(move |m| (m.to_uppercase(), path.clone()))
            })
            .collect();
        let table: BTreeSet<(String, String)> = ROUTES
            .iter()
            .filter(|(_, path, _)| !UNDOCUMENTED.contains(path))
            .map(|(method, path, _)| (method.to_string(), (*path).to_owned()))
            .collect();
        assert_eq!(documented, table);
    }

    #[test]
    fn what_needs_no_credential_is_this_and_nothing_else() {
        let open: Vec<&str> = ROUTES
            .iter()
            .filter(|(_, _, need)| matches!(need, Need::Public | Need::Static))
            .map(|(_, path, _)| *path)
            .filter(|path| !UNDOCUMENTED.contains(path))
            .collect();
        let known = [
            "/api/health",
            "/api/agents/nonce",
            "/api/agents/hello",
            "/api/agents/leave",
            "/api/auth/login",
            "/api/auth/refresh",
            "/api/v1/auth/login",
            "/api/v1/auth/register",
            "/api/v1/auth/refresh",
            // A 404 without the development flag.
            "/api/v1/auth/token",
            "/api/session",
        ];
        assert_eq!(open, known);
    }

    #[test]
    fn roles_are_nested() {
        for need in [Need::Read, Need::Operate, Need::Admin, Need::LoopbackOrRead] {
            assert!(need.allows(Role::Admin) && !need.allows(Role::User));
            assert!(!need.allows(Role::Viewer) || need.allows(Role::Operator));
        }
        assert!(Need::Operate.allows(Role::Operator) && !Need::Operate.allows(Role::Viewer));
        assert!(!Need::Admin.allows(Role::Operator));
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        assert_eq!(rule(&Method::HEAD, "/api/servers"), Rule::Needs(Need::Read));
        assert_eq!(rule(&Method::PUT, "/api/servers"), Rule::OtherMethods("GET, HEAD, POST".into()));
        assert_eq!(rule(&Method::GET, "/api/nothing"), Rule::Unknown);
    }
}
