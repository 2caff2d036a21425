//! The client makes typed calls to a daemon's `api.sock`.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use manifold_pci::FunctionId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::problem::Problem;
use crate::types::{Adapter, ConfigSpace, EnableVfs, Function, Vfs, VfsDisabled, View, Worker};

/// Longest time that a call may take. Enabling 256 VFs stays far below it.
const DEADLINE: Duration = Duration::from_secs(30);

/// Largest answer that is read, in bytes. A list of 257 functions has about half a megabyte.
const LARGEST_ANSWER: usize = 64 << 20;

/// The reason why a call did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No daemon listens on the socket.
    #[error(
        "no daemon answers at {}: start one with `manifold serve`, or name its folder with \
         `--run-dir`",
        .socket.display()
    )]
    NotRunning {
        /// Path of the socket.
        socket: PathBuf,
    },
    /// The socket is there, but not for this user.
    #[error("no permission to use {}: run as the user who started the daemon", .socket.display())]
    NotPermitted {
        /// Path of the socket.
        socket: PathBuf,
    },
    /// Connecting failed for another reason.
    #[error("cannot connect to {}", .socket.display())]
    Connect {
        /// Path of the socket.
        socket: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// The daemon hung up, or what it sent was not HTTP.
    #[error("the daemon at {} hung up during the call", .socket.display())]
    Transport {
        /// Path of the socket.
        socket: PathBuf,
        /// Error of the connection.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon did not answer within half a minute.
    #[error("the daemon at {} did not answer within {} s", .socket.display(), DEADLINE.as_secs())]
    Deadline {
        /// Path of the socket.
        socket: PathBuf,
    },
    /// The answer is not what this client understands.
    #[error(
        "the daemon's answer to {call} (HTTP {status}) is not understood: is it of another version?"
    )]
    Answer {
        /// Method and path.
        call: String,
        /// HTTP status.
        status: u16,
        /// Place at which reading it failed.
        source: serde_json::Error,
    },
    /// The daemon refused, and says why.
    #[error("{0}")]
    Refused(Problem),
}

/// A client of one daemon. Every call makes a connection of its own, and fails with an [`Error`].
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Makes a client of the daemon that listens on `socket`. Nothing is sent yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Describes the adapter as a whole.
    pub async fn adapter(&self) -> Result<Adapter, Error> {
        self.get("/v1/adapter").await
    }

    /// Lists the threads that move frames, and where their time goes.
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        self.get("/v1/workers").await
    }

    /// Lists the functions: the PF, then the VFs by index.
    pub async fn functions(&self) -> Result<Vec<Function>, Error> {
        self.get("/v1/functions").await
    }

    /// Describes one function.
    pub async fn function(&self, id: FunctionId) -> Result<Function, Error> {
        self.get(&format!("/v1/functions/{id}")).await
    }

    /// Returns a function's configuration space.
    pub async fn config_space(&self, id: FunctionId, view: View) -> Result<ConfigSpace, Error> {
        self.get(&format!("/v1/functions/{id}/config?view={view}")).await
    }

    /// Lists the VFs.
    pub async fn vfs(&self) -> Result<Vfs, Error> {
        self.get("/v1/vfs").await
    }

    /// Enables `count` VFs and returns them.
    pub async fn enable_vfs(&self, count: u32) -> Result<Vfs, Error> {
        self.call(Method::POST, "/v1/vfs", Some(&EnableVfs { count })).await
    }

    /// Disables all VFs.
    pub async fn disable_vfs(&self) -> Result<VfsDisabled, Error> {
        self.call(Method::DELETE, "/v1/vfs", None::<&()>).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path, None::<&()>).await
    }

    async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Error> {
        let call = format!("{method} {path}");
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|error| self.transport(error))?;
        let request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        let request = match body {
            Some(body) => {
                request.header(CONTENT_TYPE, "application/json").body(Full::from(Bytes::from(body)))
            }
            None => request.body(Full::default()),
        };
        let request = request.map_err(|error| self.transport(error))?;

        let (status, answer) = tokio::time::timeout(DEADLINE, self.exchange(request))
            .await
            .map_err(|_| Error::Deadline { socket: self.socket.clone() })??;
        let unclear = |source| Error::Answer { call, status: status.as_u16(), source };
        if status.is_success() {
            serde_json::from_slice(&answer).map_err(unclear)
        } else {
            Err(serde_json::from_slice(&answer).map_or_else(unclear, Error::Refused))
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.connect(e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.transport(error))?;
        let converse = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, body.to_bytes()))
        };
        tokio::pin!(converse);
        // The connection moves the bytes; it may well end before the conversation has read them.
        tokio::select! {
            result = &mut converse => result,
            _ = connection => converse.await,
        }
        .map_err(|error| self.transport(error))
    }

    fn connect(&self, source: io::Error) -> Error {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Error::NotRunning { socket }
            }
            io::ErrorKind::PermissionDenied => Error::NotPermitted { socket },
            _ => Error::Connect { socket, source },
        }
    }

    fn transport(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Transport { socket: self.socket.clone(), source: error.into() }
    }
}
