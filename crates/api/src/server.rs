//! The server gives one [`Backend`] a REST interface.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Json, routing};
use manifold_pci::FunctionId;
use tokio::net::UnixListener;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::backend::Backend;
use crate::problem::{Code, Problem};
use crate::types::{
    Adapter, ConfigQuery, ConfigSpace, EnableVfs, Function, Vfs, VfsDisabled, Worker,
};

type Shared = State<Arc<dyn Backend>>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Manifold",
        description = "A software SR-IOV network adapter: its PF, its VFs and who is attached to \
            them.",
    ),
    tags((name = "adapter"), (name = "functions"), (name = "vfs"))
)]
struct Document;

fn described() -> OpenApiRouter<Arc<dyn Backend>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(get_adapter))
        .routes(routes!(list_workers))
        .routes(routes!(list_functions))
        .routes(routes!(get_function))
        .routes(routes!(get_config))
        .routes(routes!(get_vfs, enable_vfs, disable_vfs))
}

/// Returns the interface as a router, its OpenAPI document at `GET /v1/openapi.json`.
fn router(backend: Arc<dyn Backend>) -> Router {
    let (router, document) = described().split_for_parts();
    router
        .route("/v1/openapi.json", routing::get(async move || Json(document)))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(backend)
}

/// Serves `backend` on `listener` until `stop` completes and the requests under way are answered.
///
/// # Errors
/// When connections cannot be accepted.
pub async fn serve(
    listener: UnixListener,
    backend: Arc<dyn Backend>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(backend)).with_graceful_shutdown(stop).await
}

/// Describes the adapter as a whole.
#[utoipa::path(get, path = "/v1/adapter", tag = "adapter", responses(
    (status = OK, body = Adapter),
    (status = INTERNAL_SERVER_ERROR, body = Problem),
))]
async fn get_adapter(State(backend): Shared) -> Result<Json<Adapter>, Problem> {
    blocking(move || Ok(backend.adapter())).await
}

/// Lists the threads that move frames, and where their time goes.
#[utoipa::path(get, path = "/v1/workers", tag = "adapter", responses(
    (status = OK, body = Vec<Worker>),
    (status = INTERNAL_SERVER_ERROR, body = Problem),
))]
async fn list_workers(State(backend): Shared) -> Result<Json<Vec<Worker>>, Problem> {
    blocking(move || Ok(backend.workers())).await
}

/// Lists the functions: the PF, then the VFs by index.
#[utoipa::path(get, path = "/v1/functions", tag = "functions", responses(
    (status = OK, body = Vec<Function>),
    (status = INTERNAL_SERVER_ERROR, body = Problem),
))]
async fn list_functions(State(backend): Shared) -> Result<Json<Vec<Function>>, Problem> {
    blocking(move || Ok(backend.functions())).await
}

/// Describes one function.
#[utoipa::path(get, path = "/v1/functions/{id}", tag = "functions",
    params(("id" = String, Path, description = "`pf`, `vf0` ... `vf255`")),
    responses(
        (status = OK, body = Function),
        (status = BAD_REQUEST, description = "Not a function's name", body = Problem),
        (status = NOT_FOUND, description = "The adapter has no such function now", body = Problem),
    ))]
async fn get_function(
    State(backend): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Function>, Problem> {
    let id = function_id(id)?;
    blocking(move || backend.function(id).ok_or_else(|| missing(&*backend, id))).await
}

/// Returns a function's configuration space.
#[utoipa::path(get, path = "/v1/functions/{id}/config", tag = "functions",
    params(("id" = String, Path, description = "`pf`, `vf0` ... `vf255`"), ConfigQuery),
    responses(
        (status = OK, body = ConfigSpace),
        (status = BAD_REQUEST, description = "Not a function's name, or no such view",
            body = Problem),
        (status = NOT_FOUND, description = "The adapter has no such function now", body = Problem),
    ))]
async fn get_config(
    State(backend): Shared,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<ConfigQuery>, QueryRejection>,
) -> Result<Json<ConfigSpace>, Problem> {
    let Query(ConfigQuery { view }) = query?;
    let id = function_id(id)?;
    blocking(move || {
        let function = backend.function(id).ok_or_else(|| missing(&*backend, id))?;
        let bytes = backend.config_space(id, view).ok_or_else(|| missing(&*backend, id))?;
        Ok(ConfigSpace { id, bdf: function.bdf, view, bytes })
    })
    .await
}

/// Lists the VFs.
#[utoipa::path(get, path = "/v1/vfs", tag = "vfs", responses(
    (status = OK, body = Vfs),
    (status = INTERNAL_SERVER_ERROR, body = Problem),
))]
async fn get_vfs(State(backend): Shared) -> Result<Json<Vfs>, Problem> {
    blocking(move || Ok(vfs(&*backend))).await
}

/// Enables VFs, through the PF's SR-IOV capability.
#[utoipa::path(post, path = "/v1/vfs", tag = "vfs", request_body = EnableVfs, responses(
    (status = CREATED, description = "The VFs exist, each with a socket to attach to", body = Vfs),
    (status = BAD_REQUEST, description = "The count is not 1 to TotalVFs", body = Problem),
    (status = CONFLICT, description = "VFs are enabled already", body = Problem),
    (status = INTERNAL_SERVER_ERROR, description = "The PF refused", body = Problem),
))]
async fn enable_vfs(
    State(backend): Shared,
    body: Result<Json<EnableVfs>, JsonRejection>,
) -> Result<(StatusCode, Json<Vfs>), Problem> {
    let Json(EnableVfs { count }) = body?;
    let enabled = blocking(move || {
        backend.enable_vfs(count)?;
        Ok(vfs(&*backend))
    })
    .await?;
    Ok((StatusCode::CREATED, enabled))
}

/// Disables all VFs. A machine that uses one loses it, as when hardware is pulled out.
#[utoipa::path(delete, path = "/v1/vfs", tag = "vfs", responses(
    (status = OK, body = VfsDisabled),
    (status = INTERNAL_SERVER_ERROR, description = "The PF refused", body = Problem),
))]
async fn disable_vfs(State(backend): Shared) -> Result<Json<VfsDisabled>, Problem> {
    blocking(move || backend.disable_vfs()).await
}

async fn no_such_path(uri: axum::http::Uri) -> Problem {
    Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path()))
        .with_hint("GET /v1/openapi.json describes what there is")
}

async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
        .with_hint("GET /v1/openapi.json describes what there is")
}

fn vfs(backend: &dyn Backend) -> Vfs {
    let total_vfs = backend.adapter().total_vfs;
    let is_vf = |function: &Function| matches!(function.id, FunctionId::Vf(_));
    let vfs: Vec<Function> = backend.functions().into_iter().filter(is_vf).collect();
    // There are at most 256 VFs, so the count fits.
    let num_vfs = u16::try_from(vfs.len()).unwrap_or(u16::MAX);
    Vfs { total_vfs, num_vfs, vfs }
}

fn missing(backend: &dyn Backend, id: FunctionId) -> Problem {
    Problem::no_such_function(id, backend.adapter().num_vfs)
}

fn function_id(path: Result<Path<String>, PathRejection>) -> Result<FunctionId, Problem> {
    let Path(name) = path.map_err(|e| Problem::new(Code::BadRequest, e.body_text()))?;
    name.parse().map_err(|e: manifold_pci::Error| Problem::new(Code::BadRequest, e.to_string()))
}

/// Runs a backend call on a thread that may block.
async fn blocking<T, F>(call: F) -> Result<Json<T>, Problem>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Problem> + Send + 'static,
{
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result.map(Json),
        Err(error) => {
            tracing::error!(%error, "a request did not complete");
            Err(Problem::new(Code::Internal, "the request did not complete")
                .with_hint("the daemon's log says more; please report this as a bug"))
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(Code::BadRequest, rejection.body_text()).with_hint(
            "send `Content-Type: application/json` and a body as /v1/openapi.json describes",
        )
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(Code::BadRequest, rejection.body_text())
    }
}
