//! The Python face: settings in, a running node behind it, an exit code out.
//!
//! The only file that knows Python. No thread of the core touches Python: the caller's main thread owns the signals,
//! asks for the stop, and waits in slices so that it can hear the next signal.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::journal;
use crate::scheduling::be_prompt;
use crate::shutdown::EXIT_FATAL;
use crate::startup::{self, Ports};

const MODULE_LOG_TARGET: &str = "hse_ingest_core";

/// Set once, when the node has stopped.
#[derive(Default)]
struct Outcome {
    exit_code: Mutex<Option<i32>>,
    is_set: Condvar,
}

/// One ingest node in this process.
#[pyclass(frozen, module = "hse._ingest_core")]
struct Core {
    config: Config,
    runtime: Mutex<Option<Runtime>>,
    stop: CancellationToken,
    outcome: Arc<Outcome>,
}

#[pymethods]
impl Core {
    #[new]
    fn new(config_json: &str) -> PyResult<Self> {
        let config = Config::from_json(config_json)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self {
            config,
            runtime: Mutex::default(),
            stop: CancellationToken::new(),
            outcome: Arc::default(),
        })
    }

    /// Opens the journals, binds the ports and serves. Returns the ports by name.
    fn start(&self, py: Python<'_>) -> PyResult<Ports> {
        py.detach(|| self.start_detached())
    }

    /// Asks the node to stop; returns at once.
    fn request_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the node has stopped, `timeout_ms` at most. True when it has.
    fn wait(&self, py: Python<'_>, timeout_ms: u64) -> bool {
        py.detach(|| {
            let exit_code = self
                .outcome
                .exit_code
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let timeout = Duration::from_millis(timeout_ms);
            let waited = self
                .outcome
                .is_set
                .wait_timeout_while(exit_code, timeout, |code| code.is_none());
            waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
        })
    }

    /// Waits for the end and gives up the node's threads. Returns the process's exit code.
    fn join(&self, py: Python<'_>) -> i32 {
        py.detach(|| {
            let guard = self
                .outcome
                .exit_code
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let waited = self.outcome.is_set.wait_while(guard, |code| code.is_none());
            let exit_code = waited
                .unwrap_or_else(PoisonError::into_inner)
                .unwrap_or(EXIT_FATAL);
            if let Some(runtime) = self
                .runtime
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
            {
                runtime.shutdown_timeout(Duration::from_secs(5));
            }
            exit_code
        })
    }
}

impl Core {
    fn start_detached(&self) -> PyResult<Ports> {
        let mut slot = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            return Err(PyRuntimeError::new_err(
                "this core was started before; make a new one",
            ));
        }
        start_logging(&self.config.log_level)?;
        if let Err(error) = be_prompt() {
            debug!(%error, "the core's threads have slices as long as everybody's");
        }
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .thread_name("ingest")
            .max_blocking_threads(64)
            .build()
            .map_err(|error| {
                PyOSError::new_err(format!("cannot start the core's threads: {error}"))
            })?;
        let running = runtime
            .block_on(startup::start(self.config.clone()))
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        let ports = running.ports.clone();
        let (stop, outcome) = (self.stop.clone(), Arc::clone(&self.outcome));
        runtime.spawn(async move {
            let ended = tokio::spawn(running.until_stopped(stop)).await;
            // A panic of the node itself is fatal too, and must not leave the process waiting.
            let exit_code = ended.unwrap_or(EXIT_FATAL);
            *outcome
                .exit_code
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(exit_code);
            outcome.is_set.notify_all();
        });
        *slot = Some(runtime);
        Ok(ports)
    }
}

/// JSON lines on standard error; one that cannot be written is lost, and nothing else. A second core in one process keeps the first
/// one's.
fn start_logging(level: &str) -> PyResult<()> {
    let filter = EnvFilter::try_new(format!("warn,{MODULE_LOG_TARGET}={level}"))
        .map_err(|error| PyValueError::new_err(format!("log_level: {error}")))?;
    let _ = tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        // By default a line that cannot be written is complained of on standard error, in a way that panics when that is full, too.
        .log_internal_errors(false)
        .try_init();
    Ok(())
}

/// What a journal directory holds, as JSON. Reads only; a running core is not disturbed.
#[pyfunction]
fn inspect_journal(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    py.detach(|| {
        let inspection =
            journal::inspect(&path).map_err(|error| PyOSError::new_err(error.to_string()))?;
        serde_json::to_string(&inspection)
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))
    })
}

/// Cuts damage out of a journal that no core has open. Returns what is lost, as JSON.
#[pyfunction]
fn repair_journal(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    py.detach(|| {
        let storage = journal::DirectoryStorage::existing(&path)?;
        let repaired = journal::repair(Arc::new(storage))
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        serde_json::to_string(&repaired).map_err(|error| PyRuntimeError::new_err(error.to_string()))
    })
}

#[pymodule]
fn _ingest_core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Core>()?;
    module.add_function(wrap_pyfunction!(inspect_journal, module)?)?;
    module.add_function(wrap_pyfunction!(repair_journal, module)?)
}
