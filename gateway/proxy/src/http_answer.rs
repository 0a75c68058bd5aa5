//! Responses to requests that are not gRPC: what their status means for retries and for the endpoint.
//!
//! The status decides alone: from 500 it is a failure of the endpoint, 502 to 504 one of a gateway. A response that is
//! not tried again passes with its body, whatever its status.

use gateway_core::outcome::Answer;
use gateway_core::retry::NoRetry;
use gateway_core::{Code, Outcome, status};
use gateway_h2::{Field, Fields};

use crate::call::{CallId, Phase};
use crate::relay::Verdict;
use crate::reply::{FEDERATION_PREFIX, REASON_HEADER, Reason, says_unprocessed};
use crate::tries::over_budget;
use crate::worker::Worker;

/// The answer that makes a tunnel of a request.
const SWITCHING_PROTOCOLS: u16 = 101;

/// Interim responses to one request that are passed on; those beyond are dropped.
const INTERIM_MAX: u8 = 16;

impl Worker {
    /// A response of the 1xx kind (RFC 9110 section 15.2): it tells something before the response and ends nothing.
    pub fn on_interim_response(&mut self, id: CallId, fields: Fields<'_>) {
        let call = &mut self.calls[id.key as usize];
        if call.form.is_grpc() || call.phase != Phase::Open || call.interim >= INTERIM_MAX {
            return;
        }
        call.interim += 1;
        let down = call.down;
        let passes = |field: &Field<'_>| !field.name.starts_with(FEDERATION_PREFIX);
        let _gone_is_seen_as_reset =
            self.conns[down.conn]
                .codec
                .send_headers(down.stream, fields.filter(passes), false);
        self.mark_dirty(down.conn);
    }

    /// Response headers from the endpoint.
    pub fn on_http_response(&mut self, id: CallId, fields: Fields<'_>, status: u16, end: bool) {
        let call = &self.calls[id.key as usize];
        let peer = call.pool.is_some_and(|pool| self.pools[pool].endpoint.peer);
        let verdict = verdict(fields.clone(), status, peer);
        self.note_verdict(id, &verdict);
        if verdict.code != Code::Ok {
            match self.try_instead_of(id, &verdict) {
                Ok(()) => return,
                Err(Some(NoRetry::Budget)) => {
                    let failure = format!("the endpoint answered with status {status}");
                    self.end_try(id, verdict.outcome);
                    return self.answer(id, &over_budget(&failure));
                }
                Err(_) => {}
            }
        }
        let call = &mut self.calls[id.key as usize];
        call.http_status = status;
        call.by_gateway = matches!(verdict.outcome, Outcome::Answer(answer) if answer.by_gateway);
        self.forward_headers(id, fields, end);
        self.begin_response(id);
        if status == SWITCHING_PROTOCOLS {
            self.on_tunnel_open(id);
        }
        if end {
            self.on_http_end(id);
        }
    }

    /// The end of a response, with or without trailers.
    pub fn on_http_end(&mut self, id: CallId) {
        let call = &self.calls[id.key as usize];
        let (status, by_gateway) = (call.http_status, call.by_gateway);
        self.end_try(id, outcome(status, by_gateway));
        self.finish(id, code(status));
    }
}

fn verdict(mut fields: Fields<'_>, http_status: u16, peer: bool) -> Verdict {
    let mark = fields.find(|field| peer && field.name == REASON_HEADER);
    let mark = mark.map(|field| field.value);
    Verdict {
        outcome: outcome(http_status, mark.is_some()),
        code: code(http_status),
        pushback: None,
        unprocessed: mark.is_some_and(says_unprocessed),
        peer_reason: mark.and_then(Reason::parse),
    }
}

/// In the words of ejection and retry. A status below 500 is the service's answer to this client, whatever it would
/// mean to one of gRPC.
const fn outcome(http_status: u16, by_gateway: bool) -> Outcome {
    let code = match http_status {
        0..400 => Code::Ok,
        502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Outcome::Answer(Answer {
        code,
        http_status,
        by_gateway,
    })
}

/// For the counters.
const fn code(http_status: u16) -> Code {
    if http_status < 400 {
        Code::Ok
    } else {
        status::http_to_grpc(http_status)
    }
}
