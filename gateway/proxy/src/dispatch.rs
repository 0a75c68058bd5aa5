//! From a request to a stream at an endpoint: deadline, route, cluster, endpoint, connection, headers.

use std::sync::Arc;

use gateway_core::config::{ListenerKind, WeightedCluster};
use gateway_core::route::Target;
use gateway_core::{Code, HeaderLookup, NoRoute, Overload, PickError, Route, deadline};
use gateway_h2::{ErrorCode, Fields};

use crate::call::{Call, CallId, Phase, Tries, deadlines};
use crate::conn::{DownPhase, Side, StreamAt, UpPhase};
use crate::flow::Flow;
use crate::headers::HeaderList;
use crate::listener::WorkerListener;
use crate::reply::{FEDERATION_PREFIX, Form, HEALTH_CHECK_PATH, Reason, Reply};
use crate::rewrite::{cors_fields, upstream_headers};
use crate::telemetry::Early;
use crate::web;
use crate::worker::{Timer, Worker};

const GRPC: &[u8] = b"application/grpc";

/// A request's own fields, read for routing and kept for the endpoint.
struct Request {
    headers: HeaderList,
    timeout: Option<Result<u64, deadline::InvalidTimeout>>,
}

impl HeaderLookup for HeaderList {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.value(name.as_bytes())
    }

    fn any(&self, name: &str, test: &dyn Fn(&[u8]) -> bool) -> bool {
        self.iter()
            .any(|field| field.name == name.as_bytes() && test(field.value))
    }
}

impl Worker {
    /// A client asks for something.
    pub fn on_request(&mut self, down: StreamAt, fields: Fields<'_>, ended: bool) {
        let Some(listener) = self.listener_of(down.conn) else {
            return;
        };
        self.note_call_of_client(down.conn);
        let mut request = self.read_request(listener, fields);
        let listener_state = &self.listeners[listener];
        let form = form(&request.headers);
        let path = request.headers.value(b":path").unwrap_or_default();
        #[cfg(test)]
        crate::panics::provoke(path);
        if listener_state.kind == ListenerKind::EastWest && path == HEALTH_CHECK_PATH {
            self.answer_health_check(down, ended);
            return self.recycle(request.headers, Vec::new());
        }
        let random = self.random.u64(..);
        if let Err(why) = self.admission.admit(self.calls.len(), self.now_ms, random) {
            return self.shed(down, listener, (form, ended), (request.headers, why));
        }
        let listener_state = &self.listeners[listener];
        let host = host(&request.headers);
        if let Some(reply) = self.misdirected(down.conn, listener_state, host) {
            self.answer_stream(
                down,
                listener,
                (form, ended),
                &reply,
                &HeaderList::default(),
            );
            let at = (down.conn, listener);
            self.count_own(at, form, &request.headers, reply.code);
            let early = Early::reply(form, None, &reply);
            self.tell_early(down, listener, early, &mut request.headers);
            return self.recycle(request.headers, Vec::new());
        }
        let table = &listener_state.table;
        match table.lookup(host, path, &request.headers, form.is_grpc()) {
            Ok(route) => {
                let route = Arc::clone(route);
                match route.pass(&request.headers, self.now_ms) {
                    Ok(()) => self.begin(down, listener, &route, request, (form, ended)),
                    Err(limited) => {
                        let reply = Reply::limited(route.name(), &limited);
                        let extra = cors_fields(&request.headers, &route);
                        self.answer_stream(down, listener, (form, ended), &reply, &extra);
                        self.count_limited(&route, &reply);
                        let at = (down.conn, listener);
                        self.count_own(at, form, &request.headers, reply.code);
                        let early = Early::reply(form, Some(&route), &reply);
                        self.tell_early(down, listener, early, &mut request.headers);
                        self.recycle(request.headers, Vec::new());
                    }
                }
            }
            Err(NoRoute::NotGrpc) => {
                self.refuse_media_type(down, ended);
                let early = Early {
                    form,
                    route: None,
                    code: Code::Internal,
                    http_status: 415,
                    reason: Reason::MediaType,
                };
                self.tell_early(down, listener, early, &mut request.headers);
                self.recycle(request.headers, Vec::new());
            }
            Err(reason) => {
                let reply = no_route(reason, host, path, &listener_state.name);
                let none = HeaderList::default();
                self.answer_stream(down, listener, (form, ended), &reply, &none);
                let at = (down.conn, listener);
                self.count_own(at, form, &request.headers, reply.code);
                let early = Early::reply(form, None, &reply);
                self.tell_early(down, listener, early, &mut request.headers);
                self.recycle(request.headers, Vec::new());
            }
        }
    }

    /// The refusal of a request for a host of another listener of the port than the one that the connection was opened
    /// for by its server name (RFC 9110, 15.5.20): that one may demand other things of its clients.
    fn misdirected(&self, conn: usize, listener: &WorkerListener, host: &[u8]) -> Option<Reply> {
        let hosts = listener.hosts.as_ref()?;
        let name = self.conns.get(conn)?.transport.server_name()?;
        if !hosts.misdirected(name, host) {
            return None;
        }
        let host = String::from_utf8_lossy(host);
        Some(Reply::new(
            Code::Unimplemented,
            Reason::Misdirected,
            format!(
                "host `{host}` is not served on connections for the TLS server name `{name}`: open another for it"
            ),
        ))
    }

    /// Turns a call away before it costs anything more.
    fn shed(
        &mut self,
        down: StreamAt,
        listener: usize,
        (form, ended): (Form, bool),
        (mut headers, why): (HeaderList, Overload),
    ) {
        let message = format!("this gateway takes no more calls for now: {why}");
        let reply = Reply::unavailable(Reason::Overload, message);
        let none = HeaderList::default();
        self.answer_stream(down, listener, (form, ended), &reply, &none);
        self.stats.numbers.calls_shed.add(1);
        self.count_own((down.conn, listener), form, &headers, reply.code);
        let early = Early::reply(form, None, &reply);
        self.tell_early(down, listener, early, &mut headers);
        self.recycle(headers, Vec::new());
    }

    fn listener_of(&self, conn: usize) -> Option<usize> {
        match &self.conns.get(conn)?.side {
            Side::Down(down) if down.phase != DownPhase::Lingering => Some(down.listener),
            _ => None,
        }
    }

    /// Copies the request's fields, without those that this hop writes itself.
    fn read_request(&mut self, listener: usize, fields: Fields<'_>) -> Request {
        let from_client = self.listeners[listener].kind == ListenerKind::Ingress;
        let mut headers = self.spare_lists.pop().unwrap_or_default();
        let (mut timeout, mut cookies) = (None, 0);
        for field in fields {
            match field.name {
                b"grpc-timeout" => timeout = Some(deadline::parse_grpc_timeout(field.value)),
                // RFC 9113, 8.3.1: the authority is what routes; a second word for it would let the endpoint see another.
                b"host" if headers.value(b":authority").is_some() => {}
                name if from_client && name.starts_with(FEDERATION_PREFIX) => {}
                b"cookie" => {
                    cookies += 1;
                    headers.push(field);
                }
                _ => headers.push(field),
            }
        }
        // RFC 9113, 8.2.3: HTTP/2 may split it, what reads it further on may not know that.
        if cookies > 1 {
            headers.join(b"cookie", b"; ");
        }
        Request { headers, timeout }
    }

    fn begin(
        &mut self,
        down: StreamAt,
        listener: usize,
        route: &Arc<Route>,
        mut request: Request,
        (form, ended): (Form, bool),
    ) {
        if let Some(changes) = route.http()
            && self.answer_preflight(down, changes, &request.headers, ended)
        {
            let early = Early::bare(route, 200, Reason::Preflight);
            self.tell_early(down, listener, early, &mut request.headers);
            return self.recycle(request.headers, Vec::new());
        }
        let (session, held) = self.session_of(route, listener, &mut request.headers);
        let target = match held {
            Some(at) => Target::Cluster(at),
            None => route.pick(self.random.u64(..)),
        };
        let refusal = match (&request.timeout, target) {
            (Some(Err(error)), _) if form.is_grpc() => Some(Reply::new(
                Code::Internal,
                Reason::BadRequest,
                error.to_string(),
            )),
            (_, Target::Cluster(at)) => {
                let part = &route.clusters()[at];
                if let Some(cluster) = self.cluster_keys.get(&part.cluster) {
                    let cluster = *cluster;
                    let key = self.routes.enter(route);
                    let place = (key, cluster, at);
                    let record = self.open_record(listener, Some(route), &mut request.headers);
                    let id = self.add_call(down, listener, place, request, form);
                    let is_tunnel = self.asks_for_tunnel(&self.calls[id.key as usize]);
                    let call = &mut self.calls[id.key as usize];
                    call.is_tunnel = is_tunnel;
                    call.session = session;
                    call.record = record;
                    return self.start(id, ended);
                }
                Some(unknown_cluster(route, part))
            }
            (_, Target::Reply(reply)) => Some(
                Reply::new(
                    Code::from_number(u32::from(reply.grpc_status)).unwrap_or(Code::Unknown),
                    Reason::RouteReply,
                    reply.message.clone(),
                )
                .with_http(reply.http_status),
            ),
            (_, Target::Redirect(redirection)) => {
                let place = (route, redirection);
                self.redirect(down, listener, place, &request.headers, ended);
                let early = Early::bare(route, redirection.status(), Reason::Redirect);
                self.tell_early(down, listener, early, &mut request.headers);
                None
            }
            (_, Target::NoWeight) => Some(Reply::unavailable(
                Reason::NoWeight,
                format!(
                    "rule `{}`: the weights of all its backends are 0",
                    route.name()
                ),
            )),
        };
        if let Some(reply) = refusal {
            let extra = cors_fields(&request.headers, route);
            self.answer_stream(down, listener, (form, ended), &reply, &extra);
            let key = self.routes.enter(route);
            let code = u32::from(reply.code.number());
            let counters = self.routes.get_mut(key).own_answers(&self.stats);
            counters.record(code, 0);
            self.routes.leave(key);
            let at = (down.conn, listener);
            self.count_own(at, form, &request.headers, reply.code);
            let early = Early::reply(form, Some(route), &reply);
            self.tell_early(down, listener, early, &mut request.headers);
        }
        self.recycle(request.headers, Vec::new());
    }

    fn add_call(
        &mut self,
        down: StreamAt,
        listener: usize,
        (route, cluster, part): (usize, usize, usize),
        mut request: Request,
        form: Form,
    ) -> CallId {
        let id = CallId::of_call(self.calls.vacant_key(), self.next_serial());
        let timeout_ms = request.timeout.and_then(Result::ok);
        let timeout_ms = timeout_ms.filter(|_| form.is_grpc());
        let is_web = matches!(form, Form::Web { .. });
        let web = is_web.then(|| Box::new(web::translate_request(&mut request.headers)));
        let deadlines = deadlines(timeout_ms, &self.routes.get(route).route, self.now_ms);
        let conn = &mut self.conns[down.conn];
        conn.set_call(down.stream, id);
        conn.calls.push(id);
        let down_index = conn.calls.len() - 1;
        self.clusters[cluster].calls += 1;
        self.stats.numbers.calls_open.add(1);
        self.calls.insert(Call {
            id,
            phase: Phase::Backoff,
            started_us: self.clock.now_us(),
            down,
            down_index,
            listener,
            request: request.headers,
            form,
            web,
            http_status: 0,
            by_gateway: false,
            interim: 0,
            is_tunnel: false,
            request_ended: false,
            request_owed: 0,
            body: self.spare_bodies.pop().unwrap_or_default(),
            counted_bytes: 0,
            request_widened: 0,
            committed: false,
            flow: Flow::default(),
            route,
            cluster,
            series: None,
            part,
            session: None,
            copies: Vec::new(),
            pool: None,
            up: None,
            up_index: 0,
            up_ended: false,
            response_owed: 0,
            response_widened: 0,
            held: None,
            timeout_at_ms: deadlines.timeout_at_ms,
            deadline: deadlines.first,
            deadline_timer: None,
            try_timer: None,
            idle_timer: None,
            last_activity_ms: self.now_ms,
            tried_us: None,
            answered_us: None,
            place: None,
            tries: Tries::default(),
            record: None,
        });
        self.count_call(id);
        id
    }

    fn start(&mut self, id: CallId, ended: bool) {
        let call = &mut self.calls[id.key as usize];
        call.request_ended = ended;
        if ended && let Some(record) = &mut call.record {
            record.whole_us = call.started_us;
        }
        self.routes.count_call(call.route, self.now_ms);
        if let Some(idle_ms) = self.routes.get(call.route).route.idle_timeout_ms() {
            call.idle_timer = Some(self.timers.set(self.now_ms + idle_ms, Timer::Idle(id)));
        }
        if let Some(deadline) = call.deadline {
            call.deadline_timer = Some(self.timers.set(deadline.at_ms, Timer::Deadline(id)));
        }
        self.watch_liveness_of_client(id);
        if !self.is_hit_by_fault(id) {
            self.set_out(id);
        }
    }

    /// Nothing keeps the call any more: its first try begins.
    pub fn set_out(&mut self, id: CallId) {
        self.begin_copies(id);
        self.try_endpoint(id);
    }

    /// Begins a try: chooses an endpoint and opens a stream there, or waits for a connection.
    pub fn try_endpoint(&mut self, id: CallId) {
        if !self.take_place(id) {
            return self.answer_no_place(id);
        }
        let pool = match self.choose(id) {
            Ok(pool) => pool,
            Err(error) => return self.answer_no_endpoint(id, error),
        };
        if self.refuses_tunnel(id, pool) {
            return;
        }
        let now_us = self.times_answers(id).then(|| self.clock.now_us());
        let call = &mut self.calls[id.key as usize];
        call.pool = Some(pool);
        call.tried_us = now_us;
        call.answered_us = None;
        let policy = self.routes.get(call.route).route.retry();
        if let Some(at_ms) =
            policy.and_then(|policy| policy.try_ends_ms(self.now_ms, call.timeout_at_ms))
        {
            call.try_timer = Some(self.timers.set(at_ms, Timer::PerTry(id)));
        }
        self.count_place(id, pool);
        self.pools[pool].meter.started();
        self.pools[pool].load.began();
        self.note_try(id, pool);
        match self.usable_connection(pool) {
            Some(conn) => self.open_stream(id, conn),
            None => self.wait_for_connection(id, pool),
        }
    }

    /// Sends the request on the stream of a try.
    pub fn send_request(&mut self, id: CallId, up: StreamAt) {
        let call = &mut self.calls[id.key as usize];
        let conn = &mut self.conns[up.conn];
        let waited = call.phase == Phase::Waiting;
        call.phase = Phase::Open;
        call.up = Some(up);
        call.up_index = conn.calls.len();
        conn.calls.push(id);
        self.stats.numbers.upstream_tries.add(1);
        self.count_stream(up.conn);
        let call = &mut self.calls[id.key as usize];
        let bare = call.request_ended && call.body.is_empty();
        let list = &mut self.work_list;
        upstream_headers(call, &self.routes.get(call.route).route, self.now_ms, list);
        if let (Some(session), Some(pool)) = (&mut call.session, call.pool) {
            session.tried(&self.pools[pool].endpoint, list);
        }
        self.note_opened(id, waited);
        let (conn, list) = (&mut self.conns[up.conn], &mut self.work_list);
        let call = &mut self.calls[id.key as usize];
        let sent = conn.codec.send_headers(up.stream, list.iter(), bare);
        call.up_ended = bare;
        list.clear();
        self.mark_dirty(up.conn);
        if sent.is_err() {
            let code = ErrorCode::InternalError;
            return self.on_up_reset(id, code);
        }
        self.send_kept_body(id);
    }

    /// Counts a stream on a connection to an endpoint, perhaps the last one that it takes.
    pub fn count_stream(&mut self, conn: usize) {
        let Some(side) = self.conns[conn].up() else {
            return;
        };
        side.requests += 1;
        side.last_call_ms = self.now_ms;
        let cluster = &self.clusters[self.pools[side.pool].cluster].handle.config;
        let limit = cluster.max_requests_per_connection;
        if limit.is_some_and(|limit| side.requests >= limit) {
            side.phase = UpPhase::Leaving;
        }
    }

    fn answer_no_endpoint(&mut self, id: CallId, error: PickError) {
        let call = &self.calls[id.key as usize];
        let rule = self.routes.get(call.route).route.name();
        let cluster = &self.clusters[call.cluster].handle.config.name;
        self.stats.loads.unserved(cluster);
        let reason = match error {
            PickError::Empty => Reason::NoEndpoints,
            PickError::Unavailable => Reason::NoAvailableEndpoint,
        };
        let message = format!("rule `{rule}`, cluster `{cluster}`: {error}");
        let http_status = self.clusters[call.cluster].handle.config.empty_status;
        let http_status = http_status.filter(|_| error == PickError::Empty);
        let reply = Reply::unavailable(reason, message).with_http(http_status);
        self.answer(id, &reply);
    }
}

/// How a request with these fields is answered.
fn form(headers: &HeaderList) -> Form {
    if headers.value(b"content-type").is_some_and(is_grpc_type) {
        Form::Grpc
    } else if let Some(form) = web::form(headers) {
        form
    } else if headers.value(b":method") == Some(b"HEAD") {
        Form::HttpHead
    } else {
        Form::Http
    }
}

/// `application/grpc`, alone or with a suffix or parameters; not gRPC-Web, which merely begins with the same letters.
pub(crate) fn is_grpc_type(value: &[u8]) -> bool {
    let rest = value.strip_prefix(GRPC);
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

fn host(headers: &HeaderList) -> &[u8] {
    headers
        .value(b":authority")
        .or_else(|| headers.value(b"host"))
        .unwrap_or_default()
}

fn no_route(reason: NoRoute, host: &[u8], path: &[u8], listener: &str) -> Reply {
    let host = String::from_utf8_lossy(host);
    let path = String::from_utf8_lossy(path);
    Reply::new(
        Code::Unimplemented,
        Reason::NoRoute,
        format!("no route for host `{host}`, path `{path}` on listener `{listener}`: {reason}"),
    )
}

fn unknown_cluster(route: &Route, part: &WeightedCluster) -> Reply {
    let (rule, cluster) = (route.name(), &part.cluster);
    Reply::unavailable(
        Reason::NoEndpoints,
        format!("rule `{rule}`: the cluster `{cluster}` is not known"),
    )
}
