//! What is told about calls: spans, lines of access logs, and live calls for whoever watches.
//!
//! ```text
//!   request ─ open_record ─▶ Record in the call ─ tries ─▶ close_record ─▶ outboxes of the worker ── batches ──▶ Hub
//! ```
//! Decides whether a call is told about (its listener, its caller's sampled flag, a tap) when it begins; notes its
//! tries as they come and go; writes everything at its end. A listener that tells nothing costs one branch. What is
//! written goes into outboxes of this worker alone; `hub` takes them in batches, `files` writes those for files, the
//! owner takes the rest and sends it.
//!
//! Trace context: a listener that traces reads `traceparent` strictly. A recorded call passes on the id of the span of
//! its try; one that is not recorded passes on what came, or a new context that says so, which keeps those behind it
//! from starting a trace of their own. Without tracing, the fields pass as they are.

mod facts;
mod files;
pub(crate) mod hub;
mod lines;
pub(crate) mod record;
mod spans;
pub(crate) mod tap;
pub(crate) mod told;

use std::rc::Rc;
use std::sync::Arc;

use gateway_core::config::ListenerKind;
use gateway_core::otlp::ReadyAttributes;
use gateway_core::trace::{TraceContext, is_tracestate, samples};
use gateway_core::{Code, Name, Outcome, Route};

use slab::Slab;

use self::facts::Facts;
pub(crate) use self::files::FileWriter;
use self::hub::{Batch, Hub, Sink};
use self::record::{Destination, Maker, Record, Trace};
use self::tap::Tap;
use crate::call::{Call, CallId, Phase};
use crate::clock::Clock;
use crate::conn::{Conn, Down, Side, StreamAt};
use crate::flow::Flow;
use crate::headers::HeaderList;
use crate::listener::WorkerListener;
use crate::pool::Pool;
use crate::relay::Verdict;
use crate::reply::{Form, Reason, Reply};
use crate::worker::{Timer, Worker};

const TRACEPARENT: &[u8] = b"traceparent";
const TRACESTATE: &[u8] = b"tracestate";
/// An outbox that holds as much is handed over at once.
const BATCH_BYTES: usize = 64 * 1024;
/// Any other one after this long.
const HAND_OVER_MS: u64 = 100;
/// Records of calls that are over, for the next ones.
const SPARES_MAX: usize = 256;
/// A tap that nobody takes from is over.
const TAP_UNTAKEN_MS: u64 = 30_000;

/// A worker's part.
pub(crate) struct Telling {
    hub: Arc<Hub>,
    /// Somebody watches calls.
    pub tap: Option<Tap>,
    outboxes: Vec<(Sink, Batch)>,
    /// What the spans of one call have in common; its memory goes from call to call.
    common: ReadyAttributes,
    timer_set: bool,
    #[allow(clippy::vec_box)] // the boxes are what is kept
    spares: Vec<Box<Record>>,
}

/// Where this gateway is.
#[derive(Debug)]
pub(crate) struct Home {
    pub cluster: Name,
    pub region: Name,
}

/// An answer to a request that never became a call.
#[derive(Clone, Copy)]
pub(crate) struct Early<'a> {
    pub form: Form,
    pub route: Option<&'a Route>,
    pub code: Code,
    pub http_status: u16,
    pub reason: Reason,
}

// === impl Early ===

impl<'a> Early<'a> {
    /// By a reply of our own.
    pub fn reply(form: Form, route: Option<&'a Route>, reply: &Reply) -> Self {
        Self {
            form,
            route,
            code: reply.code,
            http_status: reply.http_status,
            reason: reply.reason,
        }
    }

    /// By a status of HTTP that is no failure.
    pub fn bare(route: &'a Route, http_status: u16, reason: Reason) -> Self {
        Self {
            form: Form::Http,
            route: Some(route),
            code: Code::Ok,
            http_status,
            reason,
        }
    }
}

// === impl Telling ===

impl Telling {
    pub fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            tap: None,
            outboxes: Vec::new(),
            common: ReadyAttributes::default(),
            timer_set: false,
            spares: Vec::new(),
        }
    }

    fn tell(&mut self, facts: &Facts<'_>) {
        let record = facts.record;
        if let Some(told) = &record.told {
            let trace = record.trace.filter(|trace| trace.context.sampled);
            if let (Some(traced), Some(trace)) = (&told.tracing, trace) {
                let mut common = std::mem::take(&mut self.common);
                self.write(&traced.sink, |out| {
                    spans::write(trace, traced, facts, &mut common, out);
                });
                self.common = common;
            }
            for log in told.logs.iter().filter(|log| log.takes(facts.rule())) {
                self.write(&log.sink, |out| lines::write(log, facts, out));
            }
        }
        if let (Some(drawn), Some(tap)) = (record.tapped, &mut self.tap)
            && tap.drew(drawn)
            && tap.shows(facts)
        {
            let line = lines::tapped(facts, drawn.per_million);
            self.hub.tap(drawn.tap, line);
        }
    }

    fn write(&mut self, sink: &Sink, write: impl FnOnce(&mut Vec<u8>)) {
        let found = self.outboxes.iter().position(|(it, _)| it == sink);
        let at = found.unwrap_or_else(|| {
            self.outboxes.push((sink.clone(), Batch::default()));
            self.outboxes.len() - 1
        });
        let (_, batch) = &mut self.outboxes[at];
        write(&mut batch.bytes);
        batch.items += 1;
        if batch.bytes.len() >= BATCH_BYTES {
            // Where so much is told, the next one fills up, too.
            let next = Batch::with_room(BATCH_BYTES + BATCH_BYTES / 8);
            self.hub.push(sink, std::mem::replace(batch, next));
        }
    }

    /// Gives everything to the hub.
    pub fn hand_over(&mut self) {
        self.timer_set = false;
        for (sink, batch) in self.outboxes.drain(..) {
            if batch.items > 0 {
                self.hub.push(&sink, batch);
            }
        }
    }

    /// Once a second.
    pub fn tick(&mut self, now_ms: u64) {
        if let Some(tap) = &mut self.tap {
            tap.tick();
            if self.hub.tap_untaken_ms(now_ms) > TAP_UNTAKEN_MS {
                self.tap = None;
            }
        }
    }

    fn recycle(&mut self, mut record: Box<Record>) {
        if self.spares.len() < SPARES_MAX {
            record.told = None;
            record.tries.clear();
            self.spares.push(record);
        }
    }

    #[allow(clippy::unnecessary_box_returns)] // the box is what is kept
    fn record(&mut self, fresh: Record) -> Box<Record> {
        let Some(mut record) = self.spares.pop() else {
            return Box::new(fresh);
        };
        let tries = std::mem::take(&mut record.tries);
        *record = fresh;
        record.tries = tries;
        record
    }
}

impl Worker {
    /// What is to be remembered of a new request, for what is told about it; puts its trace context in order.
    pub fn open_record(
        &mut self,
        listener: usize,
        route: Option<&Route>,
        request: &mut HeaderList,
    ) -> Option<Box<Record>> {
        if self.listeners[listener].told.is_none() && self.telling.tap.is_none() {
            return None;
        }
        let told = self.listeners[listener].told.clone();
        let rule = route.map_or("", |route| route.name());
        let traced = told.as_ref().and_then(|told| told.tracing.as_ref());
        let trace = traced.map(|traced| {
            let own = route.and_then(|route| route.config().tracing.as_ref());
            let share = own.map_or(traced.config.sampling_per_million, |own| {
                own.sampling_per_million
            });
            self.place_in_trace(share, request)
        });
        let tap = self.telling.tap.as_ref();
        let random = self.random.u64(..);
        let tapped = tap.and_then(|tap| tap.draws(rule, request, random));
        let is_recorded = trace.is_some_and(|trace| trace.context.sampled);
        let is_logged = || {
            let mut logs = told.iter().flat_map(|told| &told.logs);
            logs.any(|log| log.takes(rule))
        };
        if !is_recorded && tapped.is_none() && !is_logged() {
            return None;
        }
        Some(self.telling.record(Record::new(told, trace, tapped)))
    }

    /// Reads the caller's context, or begins a trace, and writes what is to be passed on into the request.
    fn place_in_trace(&mut self, share: u32, request: &mut HeaderList) -> Trace {
        let (came, caller) = callers_context(request);
        if came && caller.is_none() {
            self.stats.numbers.trace_contexts_refused.add(1);
            request.remove(TRACEPARENT);
        }
        if let Some(context) = caller.filter(|caller| !caller.sampled) {
            let parent_id = context.span_id;
            return Trace { context, parent_id };
        }
        self.check_tracestate(caller.is_some(), request);
        let mut context = caller.unwrap_or_else(|| TraceContext {
            trace_id: u128::from(self.random.u64(..)) << 64 | u128::from(self.random.u64(1..)),
            span_id: 0,
            sampled: samples(share, self.random.u64(..)),
        });
        let parent_id = context.span_id;
        context.span_id = self.random.u64(1..);
        if caller.is_some() {
            request.replace(TRACEPARENT, &context.format());
        } else {
            request.add(TRACEPARENT, &context.format());
        }
        Trace { context, parent_id }
    }

    /// Without a context it means nothing; one that breaks a rule is not passed on.
    fn check_tracestate(&mut self, has_context: bool, request: &mut HeaderList) {
        if request.value(TRACESTATE).is_none() {
            return;
        }
        request.join(TRACESTATE, b",");
        let fine = request.value(TRACESTATE).is_some_and(is_tracestate);
        if !fine {
            self.stats.numbers.trace_contexts_refused.add(1);
        }
        if !fine || !has_context {
            request.remove(TRACESTATE);
        }
    }

    /// A try goes to the endpoint of a pool.
    pub fn note_try(&mut self, id: CallId, pool: usize) {
        let call = &mut self.calls[id.key as usize];
        if let Some(record) = &mut call.record {
            let span_id = self.random.u64(1..);
            let now_us = self.clock.now_us();
            let Pool { told, endpoint, .. } = &mut self.pools[pool];
            let to = told.get_or_insert_with(|| Rc::new(Destination::new(endpoint)));
            record.begin_try(Rc::clone(to), span_id, now_us);
        }
    }

    /// The request of a try is about to leave, perhaps after a wait for its connection; its header list is in
    /// `work_list`.
    pub fn note_opened(&mut self, id: CallId, waited: bool) {
        let call = &mut self.calls[id.key as usize];
        let Some(record) = &mut call.record else {
            return;
        };
        let trace = record.trace.filter(|trace| trace.context.sampled);
        let Some(present) = record.present_try() else {
            return;
        };
        present.opened_us = if waited {
            self.clock.now_us()
        } else {
            present.began_us
        };
        if let Some(trace) = trace {
            let context = trace.of_try(present.span_id);
            self.work_list.replace(TRACEPARENT, &context.format());
        }
    }

    /// Response headers of a try have come.
    pub fn note_answered(&mut self, id: CallId) {
        let call = &mut self.calls[id.key as usize];
        if let Some(record) = &mut call.record
            && let Some(present) = record.present_try()
        {
            present.answered_us = self.clock.now_us();
        }
    }

    /// What a peer's gateway said about an answer of its own.
    pub fn note_verdict(&mut self, id: CallId, verdict: &Verdict) {
        if let Some(record) = &mut self.calls[id.key as usize].record {
            record.peer_reason = verdict.peer_reason;
        }
    }

    /// A try has ended.
    pub fn note_try_ended(&mut self, id: CallId, outcome: Option<Outcome>) {
        let call = &mut self.calls[id.key as usize];
        if let Some(record) = &mut call.record {
            record.end_try(outcome, self.clock.now_us());
        }
    }

    /// This gateway makes the call's status.
    pub fn note_own_answer(&mut self, id: CallId, reason: Reason, http_status: u16) {
        if let Some(record) = &mut self.calls[id.key as usize].record {
            record.maker = Maker::Gateway(reason);
            record.http_status = http_status;
        }
    }

    /// The status of a call is known: tells of it.
    pub fn close_record(&mut self, id: CallId, code: Code, now_us: u64) {
        let Some(record) = self.calls[id.key as usize].record.take() else {
            return;
        };
        let call = &self.calls[id.key as usize];
        let facts = Facts {
            request: &call.request,
            form: call.form,
            route: Some(&self.routes.get(call.route).route),
            flow: &call.flow,
            code,
            http_status: http_status(call, record.maker, record.http_status),
            started_us: call.started_us,
            ..facts(
                &record,
                &self.listeners[call.listener],
                side(&self.conns, call.down),
                &self.home,
                (self.clock, now_us),
            )
        };
        self.telling.tell(&facts);
        self.told(record);
    }

    /// Tells of a request that was answered before it became a call.
    pub fn tell_early(
        &mut self,
        down: StreamAt,
        listener: usize,
        early: Early<'_>,
        request: &mut HeaderList,
    ) {
        let Some(mut record) = self.open_record(listener, early.route, request) else {
            return;
        };
        record.maker = Maker::Gateway(early.reason);
        let is_grpc = early.form.is_grpc();
        let facts = Facts {
            request,
            form: early.form,
            route: early.route,
            code: early.code,
            http_status: if is_grpc { 200 } else { early.http_status },
            ..facts(
                &record,
                &self.listeners[listener],
                side(&self.conns, down),
                &self.home,
                (self.clock, self.clock.now_us()),
            )
        };
        self.telling.tell(&facts);
        self.told(record);
    }

    fn told(&mut self, record: Box<Record>) {
        self.telling.recycle(record);
        if !self.telling.timer_set && !self.telling.outboxes.is_empty() {
            self.telling.timer_set = true;
            let at_ms = self.now_ms + HAND_OVER_MS;
            self.timers.set(at_ms, Timer::HandOver);
        }
    }
}

/// What does not depend on the call itself.
fn facts<'a>(
    record: &'a Record,
    listener: &'a WorkerListener,
    side: Option<&'a Down>,
    home: &'a Home,
    (clock, now_us): (Clock, u64),
) -> Facts<'a> {
    const NO_FLOW: &Flow = &Flow::NONE;
    const NO_FIELDS: &HeaderList = &HeaderList::NONE;
    let (source_cluster, source_region) = match listener.kind {
        ListenerKind::Ingress => (&*home.cluster, &*home.region),
        ListenerKind::EastWest => {
            let peer = side.and_then(|side| side.peer_cluster.as_deref());
            (peer.unwrap_or_default(), "")
        }
    };
    Facts {
        record,
        request: NO_FIELDS,
        form: Form::Http,
        route: None,
        listener: &listener.name,
        source_cluster,
        source_region,
        client: side.map(|side| side.client),
        flow: NO_FLOW,
        code: Code::Ok,
        http_status: 0,
        started_us: now_us,
        ended_us: now_us,
        clock,
    }
}

fn side(conns: &Slab<Conn>, at: StreamAt) -> Option<&Down> {
    match &conns.get(at.conn)?.side {
        Side::Down(side) => Some(side),
        Side::Up(_) => None,
    }
}

/// Whether a request has a trace context, and what it says if it is one. Two of them contradict each other.
fn callers_context(request: &HeaderList) -> (bool, Option<TraceContext>) {
    let mut all = request.iter().filter(|field| field.name == TRACEPARENT);
    let Some(first) = all.next() else {
        return (false, None);
    };
    let read = TraceContext::parse(first.value);
    (true, read.filter(|_| all.next().is_none()))
}

/// What a client of HTTP has seen, or a client of gRPC.
fn http_status(call: &Call, maker: Maker, own: u16) -> u16 {
    let begun = matches!(call.phase, Phase::Streaming | Phase::Closing);
    let cut = matches!(
        maker,
        Maker::Gateway(Reason::Cancelled | Reason::BufferOverflow)
    );
    match (call.form.is_grpc(), call.http_status) {
        (_, 0) if cut && !begun => 0,
        (true, _) => 200,
        (false, 0) => own,
        (false, status) => status,
    }
}
