//! Answers of the workload to its checks.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus, sync::LazyLock, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    runtime::{Builder, Runtime},
    time::timeout,
};
use understudy_heartbeat::checks::fuzzing;

use crate::{bytes::Bytes, text::assert_one_line};

/// Everything is in memory, so a check that has not ended by now waits for what never comes. A check is stopped by its
/// own timeout there; here that would hide a hang.
const LONGEST: Duration = Duration::from_secs(10);

/// What a connection holds before its writer waits: more than any request.
const BUFFER: usize = 64 * 1024;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime can be built"));

fn judge(result: &Result<(), String>) -> bool {
    if let Err(reason) = result {
        assert_one_line(reason);
    }
    result.is_ok()
}

/// Reads the request to its empty line, answers with `answer` and hangs up.
async fn serve_http(mut stream: DuplexStream, answer: &[u8]) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    // The check hangs up as soon as it knows enough.
    let _ = stream.write_all(answer).await;
}

/// The answer of a workload to `GET /healthz`.
pub(crate) fn http_check(data: &[u8]) {
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let work = async { tokio::join!(fuzzing::http(ours), serve_http(theirs, data)).0 };
    let result = RUNTIME.block_on(async { timeout(LONGEST, work).await }).expect("a check ends");
    if judge(&result) {
        // Empty lines before the answer are passed over (RFC 9112 section 2.2).
        let first = data.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or_default();
        assert!(data[first..].starts_with(b"HTTP/1."), "an answer that is no HTTP counts as up");
    }
}

/// Sends `opening`, waits for the request (its HEADERS frame, RFC 9113 section 4.1), sends `answer` and hangs up.
async fn serve_grpc(mut stream: DuplexStream, opening: Vec<u8>, answer: Vec<u8>) -> std::io::Result<()> {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    stream.write_all(&opening).await?;
    stream.read_exact(&mut [0; PREFACE]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if head[3] == HEADERS {
            break;
        }
    }
    stream.write_all(&answer).await
}

/// What a gRPC server sends: a piece before it has read the request, the rest after.
pub(crate) fn grpc_check(data: &[u8]) {
    let mut input = Bytes(data);
    let (opening, answer) = (input.piece().to_vec(), input.0.to_vec());
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let work = async { tokio::join!(fuzzing::grpc(ours), serve_grpc(theirs, opening, answer)).0 };
    let result = RUNTIME.block_on(async { timeout(LONGEST, work).await }).expect("a check ends");
    judge(&result);
}

/// Exit status, then what a command wrote, one piece a read.
pub(crate) fn exec_check(data: &[u8]) {
    let mut input = Bytes(data);
    let status = ExitStatus::from_raw(i32::from(input.byte()) << 8 | i32::from(input.byte()));
    let mut chunks = Vec::new();
    while !input.is_empty() {
        chunks.push(input.piece());
    }
    assert_one_line(&fuzzing::exec(status, chunks.into_iter()));
}
