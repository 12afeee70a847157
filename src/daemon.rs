//! The daemon put together: model, transport, pipeline, HTTP; from start to an orderly end.

use crate::config::{Config, ConfigError, Listen, OnModelChange, TransportKind};
use crate::encode::InputFormat;
use crate::events::Events;
use crate::health::Health;
use crate::http::{App, serve};
use crate::model::{Model, ModelError, ModelSpec};
use crate::pipeline::{Parts, Pipeline, System};
use crate::rnn::matrix::Precision;
use crate::shutdown::Shutdown;
use crate::state::{ModelPolicy, StoreError};
use crate::transport::embedded::{Embedded, Opened, WriterThread};
use crate::transport::{Transport, TransportError, kafka, stdio};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long HTTP clients that are still connected may take once all else has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    #[error(transparent)]
    Pipeline(#[from] TransportError),
    #[error("what was in flight did not finish within shutdown_timeout ({0:?}); what was acknowledged is on disk")]
    ShutdownTimeout(Duration),
}

impl From<kafka::OpenError> for DaemonError {
    fn from(error: kafka::OpenError) -> Self {
        match error {
            kafka::OpenError::Config(error) => error.into(),
            kafka::OpenError::Store(error) => error.into(),
            kafka::OpenError::Thread(error) => DaemonError::Start(error),
        }
    }
}

/// Runs until `shutdown` is requested or the source ends. Call inside a tokio runtime. `started` is called once all runs,
/// with the embedded queue where that is the transport.
pub async fn run(
    config: Config,
    shutdown: Shutdown,
    started: impl FnOnce(Arc<Model>, Option<Embedded>),
) -> Result<(), DaemonError> {
    let labels = Models::labels(&config)?;
    let events = Events::new(&labels).map_err(|e| DaemonError::Start(std::io::Error::other(e)))?;
    // The disk is waited for while the weights are read and packed.
    let opening = (config.transport.kind == TransportKind::Embedded).then(|| {
        let (settings, events) = (config.embedded.clone(), events.clone());
        tokio::task::spawn_blocking(move || Opened::open(&settings, &events))
    });
    let models = Models::load(&config)?;
    let model = models.model.clone();
    events.starting(env!("CARGO_PKG_VERSION"), &model.spec().name, model.fingerprint());
    if let Some((previous, _)) = &models.previous {
        events.previous_model(&previous.spec().name, previous.fingerprint());
    }
    let health = Health::new(events.clone(), &["pipeline"]);

    let policy = models.policy(config.on_model_change);
    let (transport, embedded, writer) = open_transport(&config, opening, policy, &events, &health, &shutdown).await?;
    let parts = Parts {
        model: model.clone(),
        previous: models.previous,
        states: transport.states.clone(),
        events: events.clone(),
        input: &config.input,
        format: models.format,
        pipeline: &config.pipeline,
        state: &config.state,
        runtime: Arc::new(System),
    };
    // HTTP first: an address that is taken should be told before anything runs.
    let app = App::new(&config, &model, embedded.clone(), events.clone(), health.clone(), shutdown.clone());
    let http = start_http(&config, app, &events).await?;
    let sweeping = embedded.clone().map(|embedded| tokio::spawn(embedded.sweep_regularly()));
    let pipeline = Pipeline::start(transport, &parts, health, shutdown.clone()).map_err(DaemonError::Start)?;

    let (done, ended) = oneshot::channel();
    let when_done = shutdown.request_on_drop();
    let run = move || {
        let _when_done = when_done;
        let result = pipeline.run();
        // Nobody listens only if the daemon has given up waiting.
        let _ = done.send(result);
    };
    std::thread::Builder::new().name("pipeline".to_string()).spawn(run).map_err(DaemonError::Start)?;
    started(model, embedded);

    shutdown.requested().await;
    let limit = config.shutdown_timeout.0;
    let end = async {
        let result = ended.await;
        if let Some(sweeping) = sweeping {
            sweeping.abort();
        }
        if let Some(writer) = writer {
            // A panic of the writer was reported by those who waited for it.
            let _ = tokio::task::spawn_blocking(move || writer.stop()).await;
        }
        if let Some(http) = http {
            let abort = http.abort_handle();
            if timeout(LAST_ANSWERS, http).await.is_err() {
                abort.abort();
            }
        }
        result
    };
    let result = timeout(limit, end).await.map_err(|_| DaemonError::ShutdownTimeout(limit))?;
    let panicked = |_| TransportError::Fatal("the pipeline ended unexpectedly; this is a defect".to_string());
    result.map_err(panicked)??;
    events.stopped();
    Ok(())
}

/// The models that the configuration names, and how pieces are read for each.
pub struct Models {
    pub model: Arc<Model>,
    /// As [`Parts::format`].
    pub format: (InputFormat, Option<String>),
    /// With `on_model_change = "drain"`: `previous_model`.
    pub previous: Option<(Arc<Model>, InputFormat)>,
}

impl Models {
    /// Loads them, and checks that they go together and with `input.format`.
    pub fn load(config: &Config) -> Result<Models, DaemonError> {
        let model = load_model("model", &config.model, config.precision)?;
        let format = config.input.resolve(model.encoder().spec())?;
        let previous = match (config.on_model_change, &config.previous_model) {
            (OnModelChange::Drain, Some(dir)) => Some(load_model("previous_model", dir, config.precision)?),
            (OnModelChange::Refuse, Some(_)) => {
                let detail = "previous_model is given, but on_model_change is \"refuse\": with \"drain\" its live streams \
                              go on with it until they end; otherwise leave it out";
                return Err(ConfigError::Invalid(detail.to_string()).into());
            }
            _ => None,
        };
        let previous = previous.map(|previous| {
            if previous.fingerprint() == model.fingerprint() {
                let detail = "previous_model and model are the same model (their fingerprints are equal): previous_model \
                              is the one by which live streams were begun, model the one that takes its place";
                return Err(ConfigError::Invalid(detail.to_string()));
            }
            let within = |error| ConfigError::Invalid(format!("previous_model: {error}"));
            let (format, _) = config.input.resolve(previous.encoder().spec()).map_err(within)?;
            Ok((previous, format))
        });
        Ok(Models { model, format, previous: previous.transpose()? })
    }

    /// All labels that the models give, without reading more of them than that takes.
    fn labels(config: &Config) -> Result<Vec<String>, DaemonError> {
        let mut labels = spec_of("model", &config.model)?.labels;
        if let (OnModelChange::Drain, Some(dir)) = (config.on_model_change, &config.previous_model) {
            for label in spec_of("previous_model", dir)?.labels {
                if !labels.contains(&label) {
                    labels.push(label);
                }
            }
        }
        Ok(labels)
    }

    /// Whose states are taken up.
    fn policy(&self, on_model_change: OnModelChange) -> ModelPolicy {
        ModelPolicy {
            fingerprint: self.model.fingerprint().to_string(),
            previous: self.previous.as_ref().map(|(previous, _)| previous.fingerprint().to_string()),
            on_model_change,
        }
    }
}

fn load_model(key: &str, dir: &Path, precision: Option<Precision>) -> Result<Arc<Model>, DaemonError> {
    spec_of(key, dir)?;
    Ok(Arc::new(Model::load_as(dir, precision)?))
}

/// What `model.toml` says, of a model that a daemon can run.
fn spec_of(key: &str, dir: &Path) -> Result<ModelSpec, DaemonError> {
    if !dir.is_dir() {
        let detail = format!("{key} = {dir:?}: there is no such directory");
        return Err(ConfigError::Invalid(detail).into());
    }
    let spec = ModelSpec::load(dir)?;
    if spec.needs_the_end() {
        let detail = format!(
            "{key} = {dir:?}: its bidirectional layers see to the end of a stream, which here may never come; train it with \
             [look_ahead] (steps = 4, say), or label files with `strand tag`"
        );
        return Err(ConfigError::Invalid(detail).into());
    }
    Ok(spec)
}

/// `opening` is of the embedded transport.
async fn open_transport(
    config: &Config,
    opening: Option<JoinHandle<Result<Opened, StoreError>>>,
    policy: ModelPolicy,
    events: &Events,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<(Transport, Option<Embedded>, Option<WriterThread>), DaemonError> {
    if let Some(opening) = opening {
        let failed = |e| DaemonError::Start(std::io::Error::other(e));
        let opened = opening.await.map_err(failed)??;
        let (settings, events) = (config.embedded.clone(), events.clone());
        let start = move || Embedded::start(opened, &settings, &policy, &events);
        let (embedded, writer) = tokio::task::spawn_blocking(start).await.map_err(failed)??;
        return Ok((embedded.transport()?, Some(embedded), Some(writer)));
    }
    match config.transport.kind {
        TransportKind::Stdio => Ok((stdio::open(config, &policy, events)?, None, None)),
        _ => Ok((kafka::open(config, policy, events, health, shutdown)?, None, None)),
    }
}

async fn start_http(
    config: &Config,
    app: App,
    events: &Events,
) -> Result<Option<JoinHandle<std::io::Result<()>>>, DaemonError> {
    let address = match (config.http.listen, config.transport.kind) {
        (Some(Listen::Off), _) | (None, TransportKind::Stdio) => return Ok(None),
        (Some(Listen::At(address)), _) => address,
        (None, _) => SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
    };
    let failed = |source| DaemonError::Listen { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    events.listening(listener.local_addr().map_err(failed)?);
    Ok(Some(tokio::spawn(serve(listener, Arc::new(app)))))
}
