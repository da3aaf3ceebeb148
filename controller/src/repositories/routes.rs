//! HTTP in, HTTP out.

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use signet_common::deploy::GitUrl;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{About, Change, Repository};
use super::service::{Changes, New};
use super::{address, credential, signers};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::extract::{Author, Json, Path};
use crate::http::known::Unknown;

/// The slice's routes.
#[must_use]
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_repositories, post_repository)).routes(routes!(
        get_repository,
        patch_repository,
        delete_repository
    ))
}

/// What is known of a repository, or of all below an address. Secrets are never shown.
#[derive(Debug, Serialize, ToSchema)]
struct RepositoryView {
    id: String,
    /// With a final slash it is for all repositories below.
    url: String,
    /// What opens it, without its secret.
    credential: Option<About>,
    /// Lines of an OpenSSH `allowed_signers` file: every deployment needs the signature of one of these.
    allowed_signers: Option<String>,
    created_at: String,
    updated_at: String,
}

impl From<Repository> for RepositoryView {
    fn from(entry: Repository) -> Self {
        Self {
            id: entry.id,
            url: entry.url,
            credential: entry.about,
            allowed_signers: entry.allowed_signers,
            created_at: entry.created_at.rfc3339(),
            updated_at: entry.updated_at.rfc3339(),
        }
    }
}

/// What opens a repository; the secret is never shown again.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes a part of the body, which is read field by field")]
pub(crate) struct CredentialRequest {
    /// `deploy_key` (over SSH) or `https_token` (over HTTPS).
    kind: String,
    /// With `deploy_key`: in OpenSSH's format, without a passphrase.
    private_key: Option<String>,
    /// With `deploy_key`: lines of a `known_hosts` file; only these hosts are believed then.
    known_hosts: Option<String>,
    /// With `https_token`.
    token: Option<String>,
    /// With `https_token`: the user that goes with it; `git` unless given.
    username: Option<String>,
}

/// An entry that is asked for. It has a credential, signers, or both.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the body, which is read field by field to name all that is wrong")]
struct RepositoryRequest {
    /// One repository, or with a final slash all below. Stays as it is: a secret goes to no other address.
    url: String,
    /// What opens it.
    credential: Option<CredentialRequest>,
    /// Lines of an OpenSSH `allowed_signers` file.
    allowed_signers: Option<String>,
}

/// What is changed: a field that is not there stays, `null` takes it away.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the body, which is read field by field to name all that is wrong")]
struct RepositoryChange {
    /// What opens it.
    credential: Option<CredentialRequest>,
    /// Lines of an OpenSSH `allowed_signers` file.
    allowed_signers: Option<String>,
}

/// The fields of a body, and what is wrong with them.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    unknown: Unknown,
    wrong: Vec<(String, String)>,
}

impl<'a> Fields<'a> {
    /// Of what should be a `T`.
    fn of<T: ToSchema>(body: &'a Value) -> Result<Self> {
        let object = body.as_object().ok_or_else(|| Error::invalid("", "the body must be a JSON object"))?;
        Ok(Self { object, unknown: Unknown::in_body::<T>(body), wrong: Vec::new() })
    }

    fn take<T>(&mut self, name: &str, found: std::result::Result<T, String>) -> Option<T> {
        found.map_err(|why| self.wrong.push((name.to_owned(), format!("{name} {why}")))).ok()
    }

    fn url(&mut self) -> Option<GitUrl> {
        let found = match self.object.get("url") {
            Some(Value::String(text)) => git_url(text),
            _ => Err("must be the address of a repository".into()),
        };
        self.take("url", found)
    }

    fn credential(&mut self, url: Option<&GitUrl>) -> Change<credential::Credential> {
        match self.object.get("credential") {
            None => Change::Keep,
            Some(Value::Null) => Change::Set(None),
            Some(value) => match credential::read(value, "credential", url) {
                Ok(found) => Change::Set(Some(found)),
                Err(wrong) => {
                    self.wrong.extend(
                        wrong.into_iter().map(|(field, why)| (field.clone(), format!("{field} {why}"))),
                    );
                    Change::Keep
                }
            },
        }
    }

    fn signers(&mut self) -> Change<String> {
        let found = match self.object.get("allowed_signers") {
            None => return Change::Keep,
            Some(Value::Null) => return Change::Set(None),
            Some(Value::String(text)) => signers::read(text),
            Some(_) => Err("must be a string".into()),
        };
        self.take("allowed_signers", found).map_or(Change::Keep, |text| Change::Set(Some(text)))
    }

    fn done(mut self) -> Result<()> {
        // Last: of a credential more can be said.
        self.wrong.extend(self.unknown.refusal());
        if self.wrong.is_empty() { Ok(()) } else { Err(Error::InvalidFields(self.wrong)) }
    }
}

/// A repository that the entry is for: itself, or one below.
fn example(url: &str) -> String {
    if url.ends_with('/') { format!("{url}x") } else { url.to_owned() }
}

fn git_url(url: &str) -> std::result::Result<GitUrl, String> {
    let found = example(url).parse::<GitUrl>().map_err(|bad| bad.why.to_owned())?;
    if address::strays(url) { Err("must have no part . or ..".into()) } else { Ok(found) }
}

/// Every entry, by its address.
#[utoipa::path(get, path = "/api/repositories", tag = "repositories",
    responses((status = 200, body = Vec<RepositoryView>)))]
async fn list_repositories(State(app): State<App>) -> Result<axum::Json<Vec<RepositoryView>>> {
    Ok(axum::Json(app.repositories.list().await?.into_iter().map(Into::into).collect()))
}

/// Adds an entry. For each deployment the longest address counts.
#[utoipa::path(post, path = "/api/repositories", tag = "repositories", request_body = RepositoryRequest,
    responses((status = 201, body = RepositoryView), (status = 400), (status = 409)))]
async fn post_repository(
    State(app): State<App>,
    by: Author,
    Json(body): Json<Value>,
) -> Result<(StatusCode, axum::Json<RepositoryView>)> {
    let mut fields = Fields::of::<RepositoryRequest>(&body)?;
    let url = fields.url();
    let given = |change| if let Change::Set(value) = change { value } else { None };
    let credential = given(fields.credential(url.as_ref()));
    let allowed_signers = if let Change::Set(value) = fields.signers() { value } else { None };
    let faultless = fields.wrong.is_empty() && fields.unknown.refusal().is_none();
    if credential.is_none() && allowed_signers.is_none() && faultless {
        fields.wrong.push(("credential".into(), "give a credential, allowed_signers, or both".into()));
    }
    fields.done()?;
    let url = body["url"].as_str().unwrap_or_default().to_owned();
    let entry = app.repositories.add(&by, &New { url, credential, allowed_signers }).await?;
    tracing::warn!(repository = %entry.id, url = %entry.url, "a repository was added");
    Ok((StatusCode::CREATED, axum::Json(entry.into())))
}

/// One entry.
#[utoipa::path(get, path = "/api/repositories/{id}", tag = "repositories", params(("id" = String, Path)),
    responses((status = 200, body = RepositoryView), (status = 404)))]
async fn get_repository(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<axum::Json<RepositoryView>> {
    Ok(axum::Json(app.repositories.one(&id).await?.into()))
}

/// Changes an entry's credential or signers. Deployments that begin from now on use it.
#[utoipa::path(patch, path = "/api/repositories/{id}", tag = "repositories", params(("id" = String, Path)),
    request_body = RepositoryChange,
    responses((status = 200, body = RepositoryView), (status = 400), (status = 404)))]
async fn patch_repository(
    State(app): State<App>,
    by: Author,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Result<axum::Json<RepositoryView>> {
    let url = example(&app.repositories.one(&id).await?.url).parse::<GitUrl>().ok();
    let mut fields = Fields::of::<RepositoryChange>(&body)?;
    let changes = Changes { credential: fields.credential(url.as_ref()), allowed_signers: fields.signers() };
    fields.done()?;
    let entry = app.repositories.change(&by, &id, &changes).await?;
    tracing::warn!(repository = %id, url = %entry.url, "a repository was changed");
    Ok(axum::Json(entry.into()))
}

/// Removes an entry with its secret.
#[utoipa::path(delete, path = "/api/repositories/{id}", tag = "repositories", params(("id" = String, Path)),
    responses((status = 204), (status = 404)))]
async fn delete_repository(State(app): State<App>, by: Author, Path(id): Path<String>) -> Result<StatusCode> {
    app.repositories.remove(&by, &id).await?;
    tracing::warn!(repository = %id, "a repository was removed");
    Ok(StatusCode::NO_CONTENT)
}
