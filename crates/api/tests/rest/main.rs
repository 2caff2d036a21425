//! These tests use the management interface over a real Unix socket, with a fake adapter behind it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail so")]

mod fake;

use std::path::Path;
use std::sync::Arc;

use fake::Fake;
use manifold_api::types::View;
use manifold_api::{Client, Code, Error, Problem};
use manifold_pci::{FunctionId, MAX_VFS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Starts a daemon with a fake adapter; it ends with the test's runtime.
fn serve(fake: Fake) -> (tempfile::TempDir, Client) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(manifold_api::serve(listener, Arc::new(fake), std::future::pending()));
    (dir, Client::new(socket))
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Problem {
    match result {
        Err(Error::Refused(problem)) => problem,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Sends `request` as it is and returns the status and the body.
async fn raw(socket: &Path, request: &str) -> (u16, serde_json::Value) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap())
}

fn post(path: &str, kind: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn vfs_are_enabled_listed_and_disabled() {
    let (_dir, client) = serve(Fake::new(MAX_VFS));
    assert_eq!(client.adapter().await.unwrap().num_vfs, 0);
    assert_eq!(client.functions().await.unwrap().len(), 1);

    let vfs = client.enable_vfs(256).await.unwrap();
    assert_eq!((vfs.total_vfs, vfs.num_vfs, vfs.vfs.len()), (256, 256, 256));
    let functions = client.functions().await.unwrap();
    assert_eq!(functions.len(), 257);
    assert_eq!(functions[0].id, FunctionId::Pf);
    assert_eq!(functions[256].id, FunctionId::Vf(255));
    assert_eq!(functions[256], client.function(FunctionId::Vf(255)).await.unwrap());

    let gone = client.disable_vfs().await.unwrap();
    assert_eq!((gone.disabled, gone.detached), (256, vec![FunctionId::Vf(0)]));
    assert_eq!(client.vfs().await.unwrap().num_vfs, 0);
    assert_eq!(client.disable_vfs().await.unwrap().disabled, 0, "with none, nothing happens");
}

#[tokio::test]
async fn counts_out_of_range_say_what_the_range_is() {
    let (_dir, client) = serve(Fake::new(7));
    for count in [0, 8, 256, 257, 65_536, u32::MAX] {
        let problem = refused(client.enable_vfs(count).await);
        assert_eq!(problem.code, Code::VfCountOutOfRange);
        assert!(problem.message.contains("1 to 7"), "{}", problem.message);
        assert!(problem.hint.is_some());
    }
}

#[tokio::test]
async fn the_number_of_vfs_is_locked_while_they_are_enabled() {
    let (_dir, client) = serve(Fake::new(MAX_VFS));
    client.enable_vfs(4).await.unwrap();
    let problem = refused(client.enable_vfs(8).await);
    assert_eq!(problem.code, Code::VfsAlreadyEnabled);
    assert!(problem.hint.unwrap().contains("manifold vf disable"));
}

#[tokio::test]
async fn a_function_that_does_not_exist_is_not_found() {
    let (_dir, client) = serve(Fake::new(MAX_VFS));
    let problem = refused(client.function(FunctionId::Vf(0)).await);
    assert_eq!(problem.code, Code::NoSuchFunction);
    assert!(problem.hint.unwrap().contains("manifold vf enable"));
    client.enable_vfs(2).await.unwrap();
    let problem = refused(client.config_space(FunctionId::Vf(2), View::Bus).await);
    assert_eq!(problem.code, Code::NoSuchFunction);
    assert!(problem.message.contains("vf0 to vf1"), "{}", problem.message);
}

#[tokio::test]
async fn both_views_of_a_configuration_space_are_served() {
    let (_dir, client) = serve(Fake::new(MAX_VFS));
    client.enable_vfs(1).await.unwrap();
    let bus = client.config_space(FunctionId::Vf(0), View::Bus).await.unwrap();
    assert_eq!(bus.bytes[..4], [0xff; 4]);
    let linux = client.config_space(FunctionId::Vf(0), View::Linux).await.unwrap();
    assert_eq!(linux.bytes[..4], [0xf4, 0x1a, 0x41, 0x10]);
}

#[tokio::test]
async fn whatever_is_refused_is_a_problem_with_the_right_status() {
    let (dir, client) = serve(Fake::new(4));
    client.enable_vfs(1).await.unwrap();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let json = "application/json";
    for (request, status, code) in [
        (get("/v1/functions/vf7"), 404, "no_such_function"),
        (get("/v1/functions/vf256"), 400, "bad_request"),
        (get("/v1/functions/%ff"), 400, "bad_request"),
        (get("/v1/functions/eth0"), 400, "bad_request"),
        (get("/v1/functions/vf0/config?view=windows"), 400, "bad_request"),
        (get("/v2/adapter"), 404, "not_found"),
        (get("/"), 404, "not_found"),
        (post("/v1/adapter", json, "{}"), 405, "method_not_allowed"),
        (post("/v1/vfs", json, r#"{"count":2}"#), 409, "vfs_already_enabled"),
        (post("/v1/vfs", json, r#"{"count":0}"#), 400, "vf_count_out_of_range"),
        (post("/v1/vfs", json, r#"{"count":-1}"#), 400, "bad_request"),
        (post("/v1/vfs", json, r#"{"count":1.5}"#), 400, "bad_request"),
        (post("/v1/vfs", json, r#"{"count":99999999999}"#), 400, "bad_request"),
        (post("/v1/vfs", json, r#"{"count":"4"}"#), 400, "bad_request"),
        (post("/v1/vfs", json, r#"{"count":4,"extra":1}"#), 400, "bad_request"),
        (post("/v1/vfs", json, "{}"), 400, "bad_request"),
        (post("/v1/vfs", json, ""), 400, "bad_request"),
        (post("/v1/vfs", json, "{"), 400, "bad_request"),
        (post("/v1/vfs", "text/plain", r#"{"count":4}"#), 400, "bad_request"),
    ] {
        let shown: String = request.chars().take(200).collect();
        let (got, problem) = raw(&dir.path().join("api.sock"), &request).await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{shown}\n{problem}");
        assert!(!problem["message"].as_str().unwrap().is_empty(), "{shown}");
        assert!(problem.get("hint").is_some(), "{shown}");
    }
}

#[tokio::test]
async fn the_document_describes_every_path() {
    let (dir, _) = serve(Fake::new(MAX_VFS));
    let request = "GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (status, document) = raw(&dir.path().join("api.sock"), request).await;
    assert_eq!(status, 200);
    let paths = document["paths"].as_object().unwrap();
    let mut described: Vec<String> = Vec::new();
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            described.push(format!("{method} {path}"));
        }
    }
    described.sort();
    assert_eq!(
        described,
        [
            "delete /v1/vfs",
            "get /v1/adapter",
            "get /v1/functions",
            "get /v1/functions/{id}",
            "get /v1/functions/{id}/config",
            "get /v1/vfs",
            "get /v1/workers",
            "post /v1/vfs",
        ]
    );
    for schema in ["Adapter", "Function", "Vfs", "Problem", "ConfigSpace", "EnableVfs"] {
        assert!(document["components"]["schemas"].get(schema).is_some(), "{schema}");
    }
}

#[tokio::test]
async fn without_a_daemon_the_client_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let absent = Client::new(&socket).adapter().await.unwrap_err();
    assert!(matches!(absent, Error::NotRunning { .. }), "{absent}");
    // A killed daemon leaves behind a socket that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let stale = Client::new(&socket).adapter().await.unwrap_err();
    assert!(matches!(stale, Error::NotRunning { .. }), "{stale}");
    assert!(stale.to_string().contains("manifold serve"));
}

#[tokio::test]
async fn an_answer_that_is_not_the_apis_is_told_apart() {
    for (answer, wanted) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "not understood"),
        ("HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", "not understood"),
        ("SSH-2.0-OpenSSH\r\n", "hung up"),
        ("", "hung up"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "hung up"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let error = Client::new(socket).adapter().await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn stopping_lets_the_call_under_way_finish() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let fake = Fake::slow(4);
    let begun = fake.begun();
    let server = tokio::spawn(manifold_api::serve(listener, Arc::new(fake), async {
        let _ = stopped.await;
    }));
    let call = tokio::spawn(async move { Client::new(socket).enable_vfs(4).await });
    begun.notified().await;
    stop.send(()).unwrap();
    assert_eq!(call.await.unwrap().unwrap().num_vfs, 4);
    server.await.unwrap().unwrap();
}
