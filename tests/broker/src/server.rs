//! Sockets: clients' connections, the control port, and what happens at its time.

use crate::faults::Fault;
use crate::node::Node;
use crate::requests::{self, Context, Reply, Session};
use anyhow::{Context as _, Result, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// Kafka's socket.request.max.bytes.
const MAX_REQUEST: usize = 100 << 20;

/// What all connections share.
pub struct Shared {
    node: Mutex<Node>,
    news: watch::Sender<()>,
    times: Notify,
    ended: Notify,
}

impl Shared {
    pub fn new(node: Node) -> Shared {
        Shared { node: Mutex::new(node), news: watch::Sender::new(()), times: Notify::new(), ended: Notify::new() }
    }

    pub fn with<R>(&self, act: impl FnOnce(&mut Node) -> R) -> R {
        act(&mut self.node.lock().expect("nothing has panicked"))
    }

    /// Tells those who wait for records that there may be some.
    pub fn new_records(&self) {
        self.news.send_replace(());
    }

    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Something has to be done at another time than was known.
    pub fn new_times(&self) {
        self.times.notify_one();
    }

    /// Until a fault has ended the broker.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }
}

/// Does what has to be done at its time.
pub async fn keep_time(shared: Arc<Shared>) {
    loop {
        let (next, news) = shared.with(|node| if node.dead { (None, false) } else { node.tick(Instant::now()) });
        if news {
            shared.new_records();
        }
        // A little later, so that it is over then.
        let next = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600)) + Duration::from_millis(1);
        // Either is a reason to look again.
        let _ = tokio::time::timeout_at(next.into(), shared.times.notified()).await;
    }
}

/// `told`: what clients are told to be the broker's address.
pub async fn accept(listener: TcpListener, told: SocketAddr, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    if let Err(error) = connection(&shared, told, stream).await {
                        eprintln!("strand-test-broker: a connection is closed: {error:#}");
                    }
                });
            }
            // Too many open files, for instance.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Answers one request after the other, as Kafka does, until the client closes.
async fn connection(shared: &Shared, told: SocketAddr, mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let host = stream.peer_addr()?.ip().to_string();
    let mut session = Session::default();
    while let Ok(length) = stream.read_i32().await {
        let length = usize::try_from(length).ok().filter(|length| (8..=MAX_REQUEST).contains(length));
        let Some(length) = length else { bail!("this is no request of Kafka's protocol") };
        let mut request = vec![0; length];
        if stream.read_exact(&mut request).await.is_err() {
            break;
        }
        let (fault, answer) = answer(shared, &mut session, &host, told, request.into()).await?;
        let Some(answer) = answer.filter(|_| !shared.with(|node| node.dead)) else { break };
        match fault {
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::DropAfter) => break,
            Some(Fault::Cut) => {
                let _ = stream.write_all(&answer[..answer.len() / 2]).await;
                break;
            }
            _ => {}
        }
        if stream.write_all(&answer).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The fault of a request, and the bytes of its answer; none to close the connection.
async fn answer(
    shared: &Shared,
    session: &mut Session,
    host: &str,
    told: SocketAddr,
    mut request: Bytes,
) -> Result<(Option<Fault>, Option<Bytes>)> {
    let (key, version) = ((&request[..]).get_i16(), (&request[2..]).get_i16());
    let Ok(api) = ApiKey::try_from(key) else { bail!("there is no request {key}") };
    if !requests::is_supported(api, version) {
        if api == ApiKey::ApiVersions {
            // The client learns which versions there are and asks again.
            let correlation_id = (&request[4..]).get_i32();
            let versions = requests::api_versions(Err(ResponseError::UnsupportedVersion));
            let mut body = BytesMut::new();
            versions.encode(&mut body, 0)?;
            return Ok((None, Some(framed(api, 0, correlation_id, &body)?)));
        }
        bail!("version {version} of {api:?} is not supported");
    }
    let header = RequestHeader::decode(&mut request, api.request_header_version(version));
    let header = header.with_context(|| format!("the header of {api:?}"))?;
    let client_id = header.client_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let (fault, released) = shared.with(|node| (node.faults.take(&client_id, api), node.faults.released(api)));
    match fault {
        Some(Fault::Late(time)) => tokio::time::sleep(time).await,
        Some(Fault::Hold) => {
            while shared.with(|node| node.faults.released(api)) == released {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        _ => {}
    }
    if shared.with(|node| node.dead) || fault == Some(Fault::DropBefore) {
        return Ok((fault, None));
    }
    let context = Context { version, client_id, host: host.to_string(), told, fault };
    let reply = requests::handle(shared, session, api, &context, request).await;
    let reply = reply.with_context(|| format!("version {version} of {api:?}"))?;
    if shared.with(|node| node.dead) {
        shared.ended.notify_one();
    }
    Ok((
        fault,
        match reply {
            Reply::Body(body) => Some(framed(api, version, header.correlation_id, &body)?),
            Reply::Nothing => Some(Bytes::new()),
            Reply::Close => None,
        },
    ))
}

fn framed(api: ApiKey, version: i16, correlation_id: i32, body: &[u8]) -> Result<Bytes> {
    let mut answer = BytesMut::new();
    answer.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    header.encode(&mut answer, api.response_header_version(version))?;
    answer.put_slice(body);
    let length = (answer.len() - 4) as i32;
    answer[..4].copy_from_slice(&length.to_be_bytes());
    Ok(answer.freeze())
}

/// Takes commands, one a line, and answers each with `ok` or with what is wrong.
pub async fn control(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let result = shared.with(|node| node.faults.command(&line));
                let answer = result.map_or_else(|error| format!("error: {error}\n"), |()| "ok\n".to_string());
                if lines.get_mut().write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        });
    }
}
