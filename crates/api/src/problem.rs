//! An error of the API is one JSON object, with the HTTP status that fits.

use std::fmt;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use manifold_pci::FunctionId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The reason why a request was refused, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Kind of problem, for programs.
    pub code: Code,
    /// Text for people that says what is wrong, with the value that was wrong.
    pub message: String,
    /// Text for people that says what to do next; `null` where there is nothing better than trying
    /// again.
    pub hint: Option<String>,
}

/// The kind of a [`Problem`]. Its text form never changes once released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is not of the form the API takes (400).
    BadRequest,
    /// NumVFs is 0 or larger than TotalVFs (400).
    VfCountOutOfRange,
    /// The path leads nowhere (404).
    NotFound,
    /// The adapter has no such function now (404).
    NoSuchFunction,
    /// The path exists, but not for this method (405).
    MethodNotAllowed,
    /// VFs are enabled, and their number cannot change while they are (409).
    VfsAlreadyEnabled,
    /// The PF's driver or the adapter failed (500).
    Internal,
    /// The daemon is shutting down (503).
    ShuttingDown,
    /// The code comes from a daemon newer than this client.
    #[serde(other)]
    Unknown,
}

impl Code {
    /// Returns the HTTP status of a response that carries this problem.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::VfCountOutOfRange => StatusCode::BAD_REQUEST,
            Self::NotFound | Self::NoSuchFunction => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::VfsAlreadyEnabled => StatusCode::CONFLICT,
            Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal | Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Problem {
    /// Makes a problem without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Adds a hint: what to do about the problem.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Reports that `count` VFs cannot be enabled, because 1 to `total_vfs` can.
    pub fn vf_count_out_of_range(count: u32, total_vfs: u16) -> Self {
        let problem = Self::new(
            Code::VfCountOutOfRange,
            format!("cannot enable {count} VFs: NumVFs must be 1 to {total_vfs} (TotalVFs)"),
        );
        if count == 0 {
            problem.with_hint("to have no VFs, run `manifold vf disable`")
        } else if count <= u32::from(manifold_pci::MAX_VFS) {
            problem.with_hint(format!(
                "enable at most {total_vfs}, or start the daemon with `--total-vfs {count}`"
            ))
        } else {
            problem.with_hint(format!("enable at most {total_vfs}"))
        }
    }

    /// Reports that VFs are enabled already, so that NumVFs is locked.
    pub fn vfs_already_enabled(num_vfs: usize, wanted: u32) -> Self {
        Self::new(
            Code::VfsAlreadyEnabled,
            format!(
                "cannot enable {wanted} VFs: {num_vfs} are enabled already, and NumVFs is locked \
                 while VF Enable is set"
            ),
        )
        .with_hint(format!(
            "run `manifold vf disable` first, which takes the VFs away from the machines that use \
             them (`manifold vf list` shows which), then `manifold vf enable {wanted}`"
        ))
    }

    /// Reports that the adapter has no function `id` while `num_vfs` VFs are enabled.
    pub fn no_such_function(id: FunctionId, num_vfs: u16) -> Self {
        let problem = match num_vfs {
            0 => {
                Self::new(Code::NoSuchFunction, format!("{id} does not exist: no VFs are enabled"))
            }
            1 => {
                Self::new(Code::NoSuchFunction, format!("{id} does not exist: only vf0 is enabled"))
            }
            _ => Self::new(
                Code::NoSuchFunction,
                format!("{id} does not exist: vf0 to vf{} are enabled", num_vfs - 1),
            ),
        };
        problem.with_hint(if num_vfs == 0 {
            "enable VFs with `manifold vf enable N`"
        } else {
            "`manifold function list` shows the functions there are"
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.code.status(), Json(self)).into_response()
    }
}
