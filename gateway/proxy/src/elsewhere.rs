//! Requests that a route of HTTP answers without an endpoint: redirects, and what browsers ask before a page calls.

use std::sync::Arc;

use gateway_core::Route;
use gateway_core::http::{Asked, HttpChanges, Redirection};

use crate::conn::StreamAt;
use crate::headers::HeaderList;
use crate::rewrite::apply_ops;
use crate::worker::Worker;

impl Worker {
    /// Sends the client elsewhere.
    pub fn redirect(
        &mut self,
        down: StreamAt,
        listener: usize,
        (route, redirection): (&Arc<Route>, &Redirection),
        request: &HeaderList,
        ended: bool,
    ) {
        let encrypted = self.listeners[listener].tls.is_some();
        let authority = request
            .value(b":authority")
            .or_else(|| request.value(b"host"));
        let location = redirection.location(Asked {
            scheme: if encrypted { "https" } else { "http" },
            authority: authority.unwrap_or_default(),
            path: request.value(b":path").unwrap_or(b"/"),
        });
        let mut fields = std::mem::take(&mut self.work_list);
        fields.clear();
        let status = redirection.status().to_string();
        fields.add(b":status", status.as_bytes());
        fields.add(b"location", &location);
        fields.add(b"content-length", b"0");
        apply_ops(&mut fields, route.response_headers());
        self.answer_bare(down, ended, &fields);
        fields.clear();
        self.work_list = fields;
        // By the worker's own entry: no lock is taken for a request.
        let key = self.routes.enter(route);
        let counters = self.routes.get_mut(key).own_answers(&self.stats);
        counters.record(0, 0);
        self.routes.leave(key);
    }

    /// Answers a browser that asks whether a page may call, without a word of leave if it may not; false when the
    /// request is something else, or the question is the service's to answer.
    pub fn answer_preflight(
        &mut self,
        down: StreamAt,
        changes: &HttpChanges,
        request: &HeaderList,
        ended: bool,
    ) -> bool {
        let method = request.value(b"access-control-request-method");
        let asks = request.value(b":method") == Some(b"OPTIONS");
        let (Some(cors), Some(origin), Some(method), true) =
            (changes.cors(), request.value(b"origin"), method, asks)
        else {
            return false;
        };
        let allowed = cors.allows(origin);
        if !allowed && cors.forwards_foreign() {
            return false;
        }
        let mut fields = std::mem::take(&mut self.work_list);
        fields.clear();
        fields.add(b":status", b"200");
        let headers = request.value(b"access-control-request-headers");
        if allowed {
            cors.preflight(origin, method, headers, |name, value| {
                fields.add(name, value);
            });
        }
        fields.add(b"content-length", b"0");
        self.answer_bare(down, ended, &fields);
        fields.clear();
        self.work_list = fields;
        true
    }
}
