//! The one place where Rust errors become the exceptions of `gateway/errors.py`.

use gateway_proxy::{RuntimeError, SettingsError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

pub(crate) fn settings(py: Python<'_>, error: &SettingsError) -> PyErr {
    raise(py, "SettingsRejected", (error.to_string(),))
}

pub(crate) fn runtime(py: Python<'_>, error: &RuntimeError) -> PyErr {
    match error {
        RuntimeError::Rejected(config) => raise(
            py,
            "SnapshotRejected",
            (config.path.clone(), config.message.clone()),
        ),
        RuntimeError::Closed(_) => raise(py, "CoreClosed", (error.to_string(),)),
        RuntimeError::Start { .. } => raise(py, "GatewayError", (error.to_string(),)),
    }
}

fn raise<'py>(
    py: Python<'py>,
    class: &str,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
) -> PyErr {
    let made = py
        .import("gateway.errors")
        .and_then(|module| module.getattr(class))
        .and_then(|class| class.call1(arguments.into_pyobject(py)?));
    match made {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}
