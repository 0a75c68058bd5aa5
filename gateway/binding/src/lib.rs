//! The Python extension module `gateway._native`: a few coarse verbs over `gateway-proxy`.
//!
//! Translates arguments and errors, nothing else; messages cross as JSON bytes. Every call that may wait gives up the
//! interpreter lock. Exceptions are those of `gateway/errors.py`.

// pyo3's macros expand to code that these lints do not fit.
#![allow(clippy::needless_pass_by_value, missing_docs)]

mod errors;

use gateway_proxy::{Runtime, Settings};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The data plane of one process; documented in `_native.pyi`.
#[pyclass(frozen, module = "gateway._native")]
struct Core {
    runtime: Runtime,
}

#[pymethods]
impl Core {
    #[new]
    fn new(py: Python<'_>, settings: &[u8]) -> PyResult<Self> {
        let settings =
            Settings::from_json(settings).map_err(|error| errors::settings(py, &error))?;
        Ok(Self {
            runtime: Runtime::new(settings),
        })
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.runtime.start())
            .map_err(|error| errors::runtime(py, &error))
    }

    fn apply<'py>(&self, py: Python<'py>, update: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let report = py
            .detach(|| self.runtime.apply(update))
            .map_err(|error| errors::runtime(py, &error))?;
        json_bytes(py, &report)
    }

    fn set_health(
        &self,
        py: Python<'_>,
        cluster: &str,
        address: &str,
        healthy: bool,
    ) -> PyResult<()> {
        py.detach(|| self.runtime.set_health(cluster, address, healthy))
            .map_err(PyValueError::new_err)
    }

    fn take_limit_demand<'py>(
        &self,
        py: Python<'py>,
        keys_max: usize,
        all: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let demand = py.detach(|| self.runtime.take_limit_demand(keys_max, all));
        json_bytes(py, &demand)
    }

    fn set_limit_shares(&self, py: Python<'_>, shares: &[u8]) -> PyResult<()> {
        py.detach(|| self.runtime.set_limit_shares(shares))
            .map_err(PyValueError::new_err)
    }

    fn set_known_methods(&self, py: Python<'_>, methods: &[u8]) -> PyResult<()> {
        py.detach(|| self.runtime.set_known_methods(methods))
            .map_err(PyValueError::new_err)
    }

    fn take_telemetry<'py>(
        &self,
        py: Python<'py>,
        max_bytes: usize,
    ) -> Vec<(String, &'static str, u64, Bound<'py, PyBytes>)> {
        let taken = py.detach(|| self.runtime.take_telemetry(max_bytes));
        taken
            .into_iter()
            .map(|(name, kind, items, bytes)| (name, kind, items, PyBytes::new(py, &bytes)))
            .collect()
    }

    fn reopen_logs(&self, py: Python<'_>) {
        py.detach(|| self.runtime.reopen_logs());
    }

    #[pyo3(signature = (filter))]
    fn set_tap(&self, py: Python<'_>, filter: Option<&[u8]>) -> PyResult<()> {
        py.detach(|| self.runtime.set_tap(filter))
            .map_err(PyValueError::new_err)
    }

    fn take_tap<'py>(&self, py: Python<'py>, max: usize) -> Bound<'py, PyBytes> {
        let lines = py.detach(|| self.runtime.take_tap(max));
        PyBytes::new(py, &lines)
    }

    fn drain(&self, py: Python<'_>, grace_ms: u64) {
        py.detach(|| self.runtime.drain(grace_ms));
    }

    fn drained(&self, py: Python<'_>) -> bool {
        py.detach(|| self.runtime.drained())
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.runtime.stop());
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let stats = py.detach(|| self.runtime.stats());
        json_bytes(py, &stats)
    }

    fn loads<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let loads = py.detach(|| self.runtime.loads());
        json_bytes(py, &loads)
    }

    fn events<'py>(&self, py: Python<'py>, max: usize) -> PyResult<Bound<'py, PyBytes>> {
        let notices = py.detach(|| self.runtime.notices(max));
        json_bytes(py, &notices)
    }
}

fn json_bytes<'py>(
    py: Python<'py>,
    value: &impl serde::Serialize,
) -> PyResult<Bound<'py, PyBytes>> {
    let text =
        serde_json::to_vec(value).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(PyBytes::new(py, &text))
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Core>()?;
    module.add("SOURCE_DIGEST", env!("GATEWAY_SOURCE_DIGEST"))
}
