"""What is written of calls: the gateway's spans and its access log.

Decides: what each attribute and each reason means, in words; the sources say which there are, and
one without words here, or words without one there, is an error.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.docs import sources

ATTRIBUTES = {
    "federation.listener": "The listener that took the call.",
    "federation.source.cluster": "Where the call entered.",
    "federation.tries": "How often it was sent to an endpoint or waited for one.",
    "federation.answered_by": "`application`, `gateway` or `peer_gateway`.",
    "federation.reason": "Why a gateway answered or ended the call; see below.",
    "federation.retry.number": "Of a further try, from 1.",
    "federation.retry.reason": "What became of the try before it.",
    "network.peer.address": "The address at the other end of the connection.",
    "network.peer.port": "Its port.",
    "client.address": "The client's address, on a server span.",
    "rpc.system.name": "`grpc`.",
    "rpc.method": "`package.Service/Method`, or `_OTHER` if no route or reflection knows it.",
    "rpc.method_original": "The method as the client named it, where `rpc.method` is `_OTHER`.",
    "http.request.method": "Of what is not gRPC.",
    "url.path": "Of what is not gRPC, without its query.",
    "server.address": "The host that the client asked for.",
    "server.port": "Its port, where the client named one.",
    "federation.route": "The route.",
    "federation.rule": "The rule that matched.",
    "rpc.response.status_code": "Name of the gRPC status.",
    "error.type": "The same, or the HTTP status, where it counts as an error.",
    "http.response.status_code": "Of what is not gRPC.",
    "federation.destination.cluster": "Cluster of the endpoint.",
    "federation.destination.region": "Its region.",
    "federation.tier": "Its priority; 0 is the first choice.",
}
"""What each attribute of a gateway's span says."""

EVENTS = {
    "federation.retry": "On the server span: a further try began.",
    "federation.stream.opened": "On a client span: the try got a stream; before that it waited.",
}
"""What each event of a gateway's span says."""

REASONS = {
    "no_route": "No rule matches.",
    "misdirected": "The host is none of this connection's listener.",
    "route_reply": "The route itself answers, since its backends cannot be used.",
    "redirect": "The route redirects.",
    "preflight": "The gateway answers a CORS preflight.",
    "media_type": "The content type is none that is served here.",
    "no_weight": "All backends of the rule have weight 0.",
    "no_endpoints": "The backend has no endpoints.",
    "no_available_endpoint": "It has some, but none may be used now.",
    "connect_failure": "No connection to an endpoint came up.",
    "pending_overflow": "Too many calls wait for a connection.",
    "request_overflow": "Too many calls of the backend are open.",
    "reset": "The endpoint reset the stream or its connection went.",
    "retry_budget": "A further try was due, and the budget was used up.",
    "deadline": "The deadline was over.",
    "stream_age": "The stream reached the most time that one may take.",
    "idle": "Nothing moved for long.",
    "drained": "The endpoint's drain grace was over.",
    "shutdown": "The gateway ended.",
    "connection_age": "The grace of an old connection was over.",
    "bad_request": "The request broke a rule of HTTP or gRPC.",
    "rate_limit": "A rate limit refused it.",
    "fault": "A fault was injected on purpose.",
    "overload": "The gateway had more work, or held more, than it can.",
    "cancelled": "The client left.",
    "buffer_overflow": "The worker held too much, this call the most.",
}
"""What each reason means."""


def sections() -> Iterator[str]:
    """The page's sections about calls."""
    yield from ("## Spans of calls", "")
    yield "A server span for each call at each gateway, named by its method or rule; in it a client"
    yield "span for each try, of which the next gateway's server span is the child."
    yield ""
    yield from _rows("Attribute", _told(sources.attributes(), ATTRIBUTES))
    yield from _rows("Event", _told(sources.events(), EVENTS))
    yield from ("## Access log", "")
    yield "`%FIELD%` in a text format, the key in lower case in JSON; `%REQ(name)%` is a header"
    yield "field of the request."
    yield from ("", "| Field | Without a format | Meaning |", "| --- | --- | --- |")
    for field in sources.fields():
        yield f"| `{field.word}` | {'yes' if field.default else ''} | {field.meaning} |"
    yield from ("", "| Reason | Flag | Meaning |", "| --- | --- | --- |")
    reasons = sources.reasons()
    told = _told([word for word, _ in reasons], REASONS)
    for word, flag in reasons:
        yield f"| `{word}` | `{flag}` | {told[word]} |"
    yield ""


def _told(there: list[str], words: dict[str, str]) -> dict[str, str]:
    missing, gone = [word for word in there if word not in words], words.keys() - set(there)
    assert not missing, f"say in tests/docs/calls.py what {missing} means"
    assert not gone, f"{sorted(gone)} in tests/docs/calls.py is nowhere in the sources any more"
    return {word: words[word] for word in there}


def _rows(title: str, words: dict[str, str]) -> Iterator[str]:
    yield f"| {title} | Meaning |"
    yield "| --- | --- |"
    for word, meaning in words.items():
        yield f"| `{word}` | {meaning} |"
    yield ""
