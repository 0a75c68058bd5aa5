//! gRPC-Web: calls of browsers, translated to gRPC and back (the protocol's page: `grpc/grpc`, `doc/PROTOCOL-WEB.md`).
//!
//! Decides: what of a call is gRPC-Web, how its fields change, what its bodies are in the text form, and how trailers
//! become a frame behind the last message. Messages have the same frames in both protocols and pass as they are. A
//! response of the gateway alone has its status among the headers, which the protocol allows.
//!
//! Bounds: the state of a call is three characters of a request; bodies are translated as they come and grow by a third
//! at most.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use gateway_core::Code;
use gateway_h2::ErrorCode;

use crate::call::CallId;
use crate::conn::StreamAt;
use crate::headers::HeaderList;
use crate::reply::{Form, Reason, Reply};
use crate::worker::Worker;

const GRPC: &[u8] = b"application/grpc";
const WEB: &[u8] = b"application/grpc-web";
const WEB_TEXT: &[u8] = b"application/grpc-web-text";
/// Marks the frame of trailers.
const TRAILERS_FRAME: u8 = 0x80;
/// Characters of base64 that stand for three bytes.
const QUAD: usize = 4;

/// What a call of gRPC-Web keeps.
#[derive(Debug, Default)]
pub(crate) struct Web {
    /// The request is in base64; characters of a quad that is not whole yet.
    text: Option<Vec<u8>>,
}

/// A request that is no base64.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct NoBase64;

/// Whether a request is gRPC-Web, and in which form its response goes.
pub(crate) fn form(headers: &HeaderList) -> Option<Form> {
    let content_type = headers.value(b"content-type")?;
    let is_text = is_type(content_type, WEB_TEXT);
    if !is_text && !is_type(content_type, WEB) {
        return None;
    }
    // Without a word about it the response has the form of the request.
    let accept = headers.value(b"accept").unwrap_or_default();
    let mut wanted = accept.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let text = wanted
        .find_map(|kind| match kind {
            _ if is_type(kind, WEB_TEXT) => Some(true),
            _ if is_type(kind, WEB) => Some(false),
            _ => None,
        })
        .unwrap_or(is_text);
    Some(Form::Web { text })
}

/// A media type, with a suffix (`+proto`) or parameters.
fn is_type(value: &[u8], name: &[u8]) -> bool {
    let rest = value
        .get(..name.len())
        .filter(|it| it.eq_ignore_ascii_case(name));
    rest.is_some() && matches!(value.get(name.len()), None | Some(b'+' | b';' | b' '))
}

/// `+proto` of a media type that begins with this.
fn suffix<'a>(value: &'a [u8], names: &[&[u8]]) -> &'a [u8] {
    let name = names.iter().find(|name| is_type(value, name));
    name.map_or(&[], |name| &value[name.len()..])
}

/// Makes gRPC's request of a call's fields.
pub(crate) fn translate_request(headers: &mut HeaderList) -> Web {
    let content_type = headers.value(b"content-type").unwrap_or_default();
    let text = is_type(content_type, WEB_TEXT).then(Vec::new);
    let grpc = [GRPC, suffix(content_type, &[WEB_TEXT, WEB])].concat();
    for name in [&b"content-type"[..], b"content-length", b"accept", b"te"] {
        headers.remove(name);
    }
    headers.add(b"content-type", &grpc);
    headers.add(b"te", b"trailers");
    Web { text }
}

/// Makes gRPC-Web's response of an endpoint's fields.
pub(crate) fn translate_response(form: Form, list: &mut HeaderList) {
    let Form::Web { text } = form else { return };
    let Some(content_type) = list.value(b"content-type") else {
        return;
    };
    let name = if text { WEB_TEXT } else { WEB };
    let web = [name, suffix(content_type, &[GRPC])].concat();
    list.remove(b"content-length");
    list.replace(b"content-type", &web);
}

/// Trailers as the last frame of a body.
fn trailers_frame(list: &HeaderList) -> Vec<u8> {
    let mut frame = vec![TRAILERS_FRAME, 0, 0, 0, 0];
    for field in list.iter() {
        frame.extend_from_slice(field.name);
        frame.extend_from_slice(b": ");
        frame.extend_from_slice(field.value);
        frame.extend_from_slice(b"\r\n");
    }
    let length = (frame.len() - 5) as u32;
    frame[1..5].copy_from_slice(&length.to_be_bytes());
    frame
}

/// In the text form each piece is base64 of its own, so that a reader has whole messages as soon as they come.
pub(crate) fn encode(data: &[u8]) -> Vec<u8> {
    STANDARD.encode(data).into_bytes()
}

// === impl Web ===

impl Web {
    /// The request's bytes are to be given to `decode`.
    pub fn is_text(&self) -> bool {
        self.text.is_some()
    }

    /// Bytes of a text; it may be several pieces of base64 one behind the other.
    pub fn decode(&mut self, data: &[u8], end: bool) -> Result<Vec<u8>, NoBase64> {
        let Some(rest) = &mut self.text else {
            return Ok(data.to_vec());
        };
        rest.extend_from_slice(data);
        let whole = rest.len() - rest.len() % QUAD;
        if end && whole < rest.len() {
            return Err(NoBase64);
        }
        let mut bytes = Vec::with_capacity(whole / QUAD * 3);
        let mut quads = &rest[..whole];
        while !quads.is_empty() {
            // Up to the first quad that ends a piece.
            let padded = quads.iter().position(|byte| *byte == b'=');
            let len = padded.map_or(quads.len(), |at| at - at % QUAD + QUAD);
            let (piece, more) = quads.split_at(len);
            let decoded = STANDARD.decode_vec(piece, &mut bytes);
            decoded.map_err(|_the_place_tells_nothing| NoBase64)?;
            quads = more;
        }
        rest.drain(..whole);
        Ok(bytes)
    }
}

impl Worker {
    /// Bytes of a request in the text form.
    pub fn on_web_text(&mut self, id: CallId, data: &[u8], flow_len: u32, end: bool) {
        let Some(call) = self.call(id) else { return };
        let Some(web) = &mut call.web else { return };
        if let Ok(bytes) = web.decode(data, end) {
            return self.take_request_data(id, &bytes, flow_len, end);
        }
        call.request_ended |= end;
        let message = "the body of a gRPC-Web request in the text form must be base64";
        self.answer(id, &Reply::new(Code::Internal, Reason::BadRequest, message));
    }

    /// Ends a response by trailers in its body. They are in `work_list`, which is emptied.
    pub fn send_web_trailers(&mut self, down: StreamAt, text: bool) {
        let mut frame = trailers_frame(&self.work_list);
        if text {
            frame = encode(&frame);
        }
        self.work_list.clear();
        let codec = &mut self.conns[down.conn].codec;
        // Without them the response has no end: the client is told at least that it is broken.
        if codec.send_data(down.stream, &frame, true).is_err() {
            codec.reset(down.stream, ErrorCode::InternalError);
        }
        self.mark_dirty(down.conn);
    }
}

#[cfg(test)]
mod tests {
    use super::{NoBase64, Web, encode, form, is_type, trailers_frame, translate_request};
    use crate::headers::HeaderList;
    use crate::reply::Form;

    fn list(fields: &[(&str, &str)]) -> HeaderList {
        let mut list = HeaderList::default();
        for (name, value) in fields {
            list.add(name.as_bytes(), value.as_bytes());
        }
        list
    }

    #[test]
    fn what_is_grpc_web_and_how_it_is_answered() {
        let text = Some(Form::Web { text: true });
        let binary = Some(Form::Web { text: false });
        for (content_type, accept, expected) in [
            ("application/grpc-web", "", binary),
            ("application/grpc-web+proto", "*/*", binary),
            ("Application/gRPC-Web; charset=utf-8", "", binary),
            ("application/grpc-web-text", "", text),
            (
                "application/grpc-web-text+proto",
                "application/grpc-web-text",
                text,
            ),
            ("application/grpc-web-text", "application/grpc-web", binary),
            (
                "application/grpc-web",
                "text/html, application/grpc-web-text+proto",
                text,
            ),
            ("application/grpc-webs", "", None),
            ("application/grpc", "", None),
        ] {
            let headers = list(&[("content-type", content_type), ("accept", accept)]);
            assert_eq!(form(&headers), expected, "{content_type}, {accept}");
        }
        assert!(!is_type(
            b"application/grpc-web-text",
            b"application/grpc-web"
        ));
    }

    #[test]
    fn a_request_becomes_grpc() {
        let mut headers = list(&[
            (":path", "/a.B/C"),
            ("content-type", "application/grpc-web-text+proto"),
            ("content-length", "8"),
            ("accept", "application/grpc-web-text"),
            ("x-user-agent", "grpc-web-javascript/0.1"),
        ]);
        assert!(translate_request(&mut headers).is_text());
        let names: Vec<_> = headers.iter().map(|it| it.name.to_vec()).collect();
        assert_eq!(
            names,
            [&b":path"[..], b"x-user-agent", b"content-type", b"te"]
        );
        let content_type = headers.value(b"content-type");
        assert_eq!(content_type, Some(&b"application/grpc+proto"[..]));
    }

    #[test]
    fn text_is_decoded_however_it_is_cut() {
        let whole = [encode(b"first"), encode(b"second!"), encode(b"all three")].concat();
        for cut in 1..whole.len() {
            let mut web = Web {
                text: Some(Vec::new()),
            };
            let mut bytes = Vec::new();
            let pieces: Vec<_> = whole.chunks(cut).collect();
            for (at, piece) in pieces.iter().enumerate() {
                let end = at + 1 == pieces.len();
                bytes.extend(web.decode(piece, end).expect("is base64"));
            }
            assert_eq!(bytes, b"firstsecond!all three", "cut by {cut}");
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in ["AAA", "A===", "====", "AA=A", "AAA\n", "AA-_", "\0\0\0\0"] {
            let mut web = Web {
                text: Some(Vec::new()),
            };
            assert_eq!(web.decode(text.as_bytes(), true), Err(NoBase64), "{text:?}");
        }
    }

    #[test]
    fn trailers_become_a_frame() {
        let trailers = list(&[("grpc-status", "5"), ("grpc-message", "no")]);
        let frame = trailers_frame(&trailers);
        assert_eq!(&frame[..5], [0x80, 0, 0, 0, 34]);
        assert_eq!(&frame[5..], b"grpc-status: 5\r\ngrpc-message: no\r\n");
    }
}
