use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::Instant;

use super::*;

fn check() -> HttpCheck {
    HttpCheck {
        method: "GET".to_owned(),
        path: "/healthz?full=1".to_owned(),
        host: "app.example:80".to_owned(),
        expect: 200..=399,
    }
}

/// What the check makes of a server that sends `parts`, one read each, and closes.
async fn answered(parts: &[&str]) -> Result<Status, HttpError> {
    let (ours, mut theirs) = duplex(64 * 1024);
    let server = async {
        for part in parts {
            theirs.write_all(part.as_bytes()).await.expect("the client reads");
            tokio::task::yield_now().await;
        }
        theirs
    };
    let asking = async {
        let deadline = Instant::now() + Duration::from_secs(20);
        get(ours, &check(), deadline).await
    };
    let server = async { drop(server.await) };
    tokio::join!(asking, server).0
}

#[tokio::test]
async fn the_request_names_path_host_and_prober() {
    let (ours, mut theirs) = duplex(4096);
    let server = async {
        theirs.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("the client reads");
        let mut request = String::new();
        theirs.read_to_string(&mut request).await.expect("the client closes");
        request
    };
    let asking = async { get(ours, &check(), Instant::now() + Duration::from_secs(20)).await };
    let (request, status) = tokio::join!(server, asking);
    assert_eq!(status.expect("204 is expected").code, 204);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "GET /healthz?full=1 HTTP/1.1\r\nHost: app.example:80\r\nUser-Agent: agentd-probe/{version}\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(request, expected);
}

#[tokio::test]
async fn an_answer_in_pieces_of_any_kind_is_read() {
    for parts in [
        &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"][..],
        &["H", "TTP/1.0 2", "00 OK\r\nA: b\r\n", "\r", "\n"],
        &["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200\r\n\r\n"],
        &["HTTP/1.1 200 \n\n"],
    ] {
        assert_eq!(answered(parts).await.expect("is good").code, 200, "{parts:?}");
    }
}

#[tokio::test]
async fn bad_answers_are_told_apart_in_words() {
    let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(20_000));
    for (parts, words) in [
        (&["HTTP/1.1 503 Service Unavailable\r\n\r\n"][..], "answered 503 Service Unavailable"),
        (&["HTTP/1.1 404\r\n\r\n"], "answered 404"),
        (&["HTTP/1.1 101 Switching Protocols\r\n\r\n"], "answered 101 Switching Protocols"),
        (&[], "closed the connection before answering"),
        (&["HTTP/1.1 100 Continue\r\n\r\n"], "closed the connection before answering"),
        (&["HTTP/1.1 200 OK\r\nA: b\r\n"], "closed the connection in the middle of its answer's headers"),
        (&["SSH-2.0-OpenSSH\x1b[31m\r\n"], "answered something that is not HTTP/1: \"SSH-2.0-OpenSSH[31m\""),
        (&["HTTP/1.1 20 OK\r\n\r\n"], "answered something that is not HTTP/1: \"HTTP/1.1 20 OK\""),
        (&[long.as_str()], "answered with more than 16 KiB of headers"),
    ] {
        assert_eq!(answered(parts).await.expect_err(words).to_string(), words);
    }
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let (ours, _theirs) = duplex(4096);
    let deadline = Instant::now() + Duration::from_millis(30);
    let error = get(ours, &check(), deadline).await.expect_err("nobody answers");
    assert!(matches!(error, HttpError::Timeout(given) if given <= Duration::from_millis(30)), "{error}");
    assert!(Instant::now() >= deadline);
    for (given, words) in [(2000, "2s"), (1500, "1.5s"), (300, "300ms")] {
        let error = HttpError::Timeout(Duration::from_millis(given));
        assert_eq!(error.to_string(), format!("did not answer within {words}"));
    }
}

#[tokio::test]
async fn a_path_that_would_break_the_request_is_not_sent() {
    for path in ["", "/a b", "/a\r\nX: y"] {
        let (ours, _theirs) = duplex(4096);
        let check = HttpCheck { path: path.to_owned(), ..check() };
        let refused = get(ours, &check, Instant::now() + Duration::from_secs(20)).await;
        assert!(matches!(refused, Err(HttpError::Request(_))), "{path:?}");
    }
}
