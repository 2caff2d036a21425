//! This crate is the management interface: REST over HTTP/1.1 and JSON on a Unix socket,
//! `api.sock`.
//!
//! It is what the command line, and whatever else manages the adapter, says to the daemon. It is
//! *not* where anything is decided: every answer comes from a [`Backend`], which is the adapter,
//! and no frame ever passes here. Nor does it guard the socket: who may open the file may use it.
//!
//! ```text
//! manifold vf enable 4                                  daemon (manifold serve)
//! ┌────────┐ POST /v1/vfs {"count":4} ┌────────────────┐  enable_vfs(4)  ┌──────────┐
//! │ Client │ ────── api.sock ───────► │ router / serve │ ──────────────► │ Backend: │
//! │        │ ◄─────────────────────── │                │ ◄────────────── │ Software │─► adapter
//! └────────┘ 201 Vfs or a Problem     └────────────────┘  Ok or Problem  └──────────┘
//!            {code, message, hint}
//! ```
//!
//! | method and path                              | answer          |
//! |----------------------------------------------|-----------------|
//! | `GET /v1/adapter`                            | [`types::Adapter`] |
//! | `GET /v1/workers`                            | a list of [`types::Worker`] |
//! | `GET /v1/functions`                          | a list of [`types::Function`] |
//! | `GET /v1/functions/{id}`                     | [`types::Function`] |
//! | `GET /v1/functions/{id}/config?view=linux\|bus` | [`types::ConfigSpace`] |
//! | `GET /v1/vfs`                                | [`types::Vfs`] |
//! | `POST /v1/vfs` with [`types::EnableVfs`]     | [`types::Vfs`] |
//! | `DELETE /v1/vfs`                             | [`types::VfsDisabled`] |
//! | `GET /v1/openapi.json`                       | the OpenAPI document |
//!
//! A request that is refused is answered with a [`Problem`] and the HTTP status of its [`Code`].

#![forbid(unsafe_code)]

mod backend;
mod client;
mod problem;
mod server;
mod software;
mod text;
pub mod types;

pub use backend::Backend;
pub use client::{Client, Error};
pub use problem::{Code, Problem};
pub use server::serve;
pub use software::Software;
