//! Header blocks as the next hop gets them: changed by route and cluster, freed of what is this hop's own business.

use gateway_core::config::HeaderOps;
use gateway_core::http::HttpChanges;
use gateway_core::{Route, deadline};
use gateway_h2::Fields;

use crate::call::Call;
use crate::headers::HeaderList;
use crate::reply::FEDERATION_PREFIX;
use crate::web;

const CORS_FIELDS: [&[u8]; 3] = [
    b"access-control-allow-origin",
    b"access-control-allow-credentials",
    b"access-control-expose-headers",
];
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// Applies changes in their order: remove, set, add.
pub(crate) fn apply_ops(list: &mut HeaderList, ops: Option<&HeaderOps>) {
    let Some(ops) = ops else { return };
    for name in &ops.remove {
        list.remove(name.as_bytes());
    }
    for (name, value) in &ops.set {
        list.remove(name.as_bytes());
        list.add(name.as_bytes(), value.as_bytes());
    }
    for (name, value) in &ops.add {
        list.add(name.as_bytes(), value.as_bytes());
    }
}

/// Writes the header block of the present try.
pub(crate) fn upstream_headers(call: &Call, route: &Route, now_ms: u64, out: &mut HeaderList) {
    out.clear();
    for field in call.request.iter() {
        out.push(field);
    }
    apply_ops(out, route.request_headers());
    let part = route.clusters().get(call.part);
    apply_ops(out, part.and_then(|part| part.request_headers.as_ref()));
    if let Some(changes) = route.http() {
        apply_changes(out, changes);
    }
    if !call.form.is_grpc() {
        return;
    }
    if let Some(at_ms) = call.timeout_at_ms {
        let mut buffer = [0; 16];
        let left_ms = at_ms.saturating_sub(now_ms);
        let text = deadline::format_grpc_timeout(left_ms, &mut buffer);
        out.add(b"grpc-timeout", text.as_bytes());
    }
    let retries = call.tries.counted.retries();
    if retries > 0 {
        out.remove(PREVIOUS_ATTEMPTS.as_bytes());
        out.add(PREVIOUS_ATTEMPTS.as_bytes(), retries.to_string().as_bytes());
    }
}

/// Asks the endpoint for another path or host.
fn apply_changes(list: &mut HeaderList, changes: &HttpChanges) {
    if let Some(host) = changes.host() {
        list.replace(b":authority", host.as_bytes());
    }
    let path = list.value(b":path").and_then(|path| changes.path(path));
    if let Some(path) = path.map(std::borrow::Cow::into_owned) {
        list.replace(b":path", &path);
    }
}

/// Writes the response's fields for the client: without the federation's own, changed by cluster and route.
pub(crate) fn response_headers(
    call: &Call,
    route: &Route,
    fields: Fields<'_>,
    out: &mut HeaderList,
) {
    out.clear();
    let mut has_status = false;
    for field in fields {
        has_status |= field.name == b":status";
        if !field.name.starts_with(FEDERATION_PREFIX) {
            out.push(field);
        }
    }
    if has_status {
        let part = route.clusters().get(call.part);
        apply_ops(out, part.and_then(|part| part.response_headers.as_ref()));
        apply_ops(out, route.response_headers());
        apply_cors(call, route, out);
        web::translate_response(call.form, out);
    }
}

/// Tells a foreign page's browser that the page may read the response.
fn apply_cors(call: &Call, route: &Route, out: &mut HeaderList) {
    let fields = cors_fields(&call.request, route);
    if fields.iter().next().is_some() {
        // The route's word replaces the service's own.
        for name in CORS_FIELDS {
            out.remove(name);
        }
        out.extend(&fields);
    }
}

/// What a response to this request tells a foreign page's browser; nothing where the route has no word on it.
pub(crate) fn cors_fields(request: &HeaderList, route: &Route) -> HeaderList {
    let mut fields = HeaderList::default();
    let Some(cors) = route.http().and_then(HttpChanges::cors) else {
        return fields;
    };
    let origin = request.value(b"origin");
    if let Some(origin) = origin.filter(|origin| cors.allows(origin)) {
        cors.response(origin, |name, value| fields.add(name, value));
    }
    fields
}
