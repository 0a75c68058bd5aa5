"""From a seed: route tables, and scripts of requests that exercise them.

Decides: what is drawn and how often. Weights are 0 or 100, so that both proxies must choose alike.
Leaves to others: clusters and listeners (``rig``), which are the same for all seeds.
Invariants: the same seed gives the same cases; every case ends by itself within its time-outs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2

from tests.conformance.differential.scripts import (
    After,
    Answer,
    At,
    ClientReset,
    Deed,
    Hangup,
    Header,
    Leave,
    Reset,
    Script,
    Silence,
)

HOST_NAME = "differential.example.com"
OTHER_HOST = "sub.wild.example.com"
LIVE = ("first", "second")
"""Clusters with one endpoint each that listens."""

DEAD = "dead"
"""A cluster whose endpoint refuses connections."""

MIXED = "mixed"
"""A cluster with both: retries lead from one to the other."""

TIMEOUT_MS = 250
SLOW_S = 0.6
"""Longer than every time-out that is drawn."""

ENVIRONMENTS = ("canary", "prod", "v2", "v22", "v2x")
NO_ERROR, INTERNAL, REFUSED, CANCEL, CALM = 0x0, 0x2, 0x7, 0x8, 0xB
_Option = base_pb2.HeaderValueOption
_Route = route_components_pb2.Route
_Action = route_components_pb2.RouteAction


@dataclass(frozen=True, slots=True)
class Case:
    """One script and the route that it is meant for (it may meet another)."""

    name: str
    route: _Route
    script: Script


@dataclass(frozen=True, slots=True)
class Batch:
    """A route table with the cases to run against it."""

    seed: int
    table: route_pb2.RouteConfiguration
    cases: tuple[Case, ...]


def batch(seed: int, *, table_name: str, cases: int) -> Batch:
    """Everything that follows from ``seed``."""
    random = Random(seed)
    routes = [_route(random, index) for index in range(random.randint(4, 8))]
    other = [_route(random, index) for index in range(2)]
    table = route_pb2.RouteConfiguration(
        name=table_name,
        virtual_hosts=[
            route_components_pb2.VirtualHost(
                name="exact", domains=[HOST_NAME], routes=[_marker(seed), *routes]
            ),
            route_components_pb2.VirtualHost(
                name="wild", domains=["*.wild.example.com"], routes=other
            ),
        ],
    )
    drawn = []
    for index in range(cases):
        on_other = random.random() < 0.1
        route = random.choice(other if on_other else routes)
        script = _script(random, route, OTHER_HOST if on_other else HOST_NAME)
        drawn.append(Case(f"{seed}-{index}", route, script))
    return Batch(seed, table, tuple(drawn))


def directed(*, table_name: str) -> Batch:
    """What is drawn too rarely to rely on: one case each, with the seed -1."""
    patient, retrying = (
        _Route(name=name, match=route_components_pb2.RouteMatch(prefix=f"/pkg.{name}/"))
        for name in ("Patient", "Retrying")
    )
    for route in (patient, retrying):
        route.match.grpc.SetInParent()
        route.route.cluster = LIVE[0]
        route.route.timeout.FromMilliseconds(TIMEOUT_MS if route is patient else 0)
    policy = retrying.route.retry_policy
    policy.retry_on = "5xx,reset,unavailable"
    policy.num_retries.value = 2
    policy.retry_back_off.base_interval.FromMilliseconds(1)
    unavailable = Answer(
        messages=(), trailers=(("grpc-status", "14"), ("grpc-message", "said%20by the upstream"))
    )
    broken = Answer(status=503, content_type="text/plain", messages=(9,), trailers=())
    scripts = {
        "slow-upload": (patient, Answer(reads_after_s=2 * TIMEOUT_MS / 1000)),
        "too-late": (patient, Answer(delay_s=SLOW_S)),
        "broken-after-headers": (retrying, Reset(INTERNAL, After.HEADERS), Answer()),
        "unavailable-in-trailers": (retrying, unavailable, Answer()),
        "more-than-is-kept": (retrying, broken, Answer()),
        "refused": (retrying, Reset(REFUSED), Answer()),
    }
    sizes = {"slow-upload": (100_000,), "more-than-is-kept": (200_000,)}
    cases = tuple(
        Case(
            f"directed-{name}",
            route,
            Script(f"/pkg.{route.name}/A", chunks=sizes.get(name, (13,)), deeds=deeds),
        )
        for name, (route, *rest) in scripts.items()
        for deeds in (tuple(rest),)
    )
    host = route_components_pb2.VirtualHost(
        name="exact", domains=[HOST_NAME], routes=[_marker(-1), patient, retrying]
    )
    table = route_pb2.RouteConfiguration(name=table_name, virtual_hosts=[host])
    return Batch(-1, table, cases)


MARKER_PATH = "/differential.Batch/Which"


def _marker(seed: int) -> _Route:
    """A route whose answer tells which table is in force."""
    route = _Route(name="marker", match=route_components_pb2.RouteMatch(path=MARKER_PATH))
    route.match.grpc.SetInParent()
    route.direct_response.status = 503
    route.direct_response.body.inline_string = str(seed)
    return route


# Resources.


def _route(random: Random, index: int) -> _Route:
    route = _Route(name=f"route-{index}", match=_match(random))
    if random.random() < 0.12:
        route.direct_response.status = random.choice((400, 401, 403, 404, 429, 500, 503, 504))
        route.direct_response.body.inline_string = random.choice(("", "not here", "100 % gone: é"))
    else:
        route.route.CopyFrom(_action(random))
    _change_headers(random, route, often=0.4)
    return route


def _match(random: Random) -> route_components_pb2.RouteMatch:
    match = route_components_pb2.RouteMatch()
    service = f"pkg.Svc{random.randint(0, 2)}"
    kind = random.random()
    if kind < 0.45:
        match.path = f"/{service}/{random.choice('AB')}"
    elif kind < 0.75:
        match.prefix = f"/{service}/"
    else:
        expressions = (r"/pkg\.Svc[01]/[AB]", r"/pkg\..*/B.*", r"/.*\.Svc2/(A|B)")
        match.safe_regex.regex = random.choice(expressions)
    if random.random() < 0.9:
        match.grpc.SetInParent()
    while random.random() < 0.35:
        header = match.headers.add(name=random.choice(("x-env", "x-tier")))
        kind = random.random()
        if kind < 0.5:
            header.string_match.exact = random.choice(ENVIRONMENTS[:2])
        elif kind < 0.8:
            header.string_match.safe_regex.regex = r"v[0-9]+"
        else:
            header.present_match = True
    return match


def _action(random: Random) -> _Action:
    action = _Action()
    if random.random() < 0.3:
        action.cluster = random.choice((*LIVE, DEAD, MIXED))
    else:
        names = random.sample((*LIVE, *LIVE, DEAD, MIXED), 2)
        for name, weight in zip(names, random.choice(((0, 100), (100, 0))), strict=True):
            entry = action.weighted_clusters.clusters.add(name=name)
            entry.weight.value = weight
            _change_headers(random, entry, often=0.25)
    action.timeout.FromMilliseconds(TIMEOUT_MS if random.random() < 0.3 else 0)
    action.max_stream_duration.grpc_timeout_header_max.FromMilliseconds(0)
    if random.random() < 0.5:
        _retry(random, action.retry_policy)
    return action


def _retry(random: Random, policy: route_components_pb2.RetryPolicy) -> None:
    words = (
        *("5xx", "gateway-error", "connect-failure", "refused-stream", "reset"),
        *("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"),
    )
    chosen = random.sample(words, random.randint(1, 3))
    if random.random() < 0.2:
        chosen.append("retriable-status-codes")
        policy.retriable_status_codes.extend(random.sample((429, 500, 503), 2))
    policy.retry_on = ",".join(chosen)
    policy.num_retries.value = random.randint(1, 3)
    policy.retry_back_off.base_interval.FromMilliseconds(1)
    policy.retry_back_off.max_interval.FromMilliseconds(5)
    if random.random() < 0.3:
        policy.per_try_timeout.FromMilliseconds(TIMEOUT_MS // 3)


def _change_headers(
    random: Random,
    holder: _Route | route_components_pb2.WeightedCluster.ClusterWeight,
    *,
    often: float,
) -> None:
    names = ("x-set", "x-env", "x-answer", "x-more", "x-bin-bin")
    for side in ("request_headers", "response_headers"):
        if random.random() < often:
            for _ in range(random.randint(1, 2)):
                option = getattr(holder, f"{side}_to_add").add()
                option.header.key = random.choice(names[:-1])
                option.header.value = random.choice(("one", "two words", "100%%", "a,b"))
                option.append_action = random.choice(
                    (_Option.OVERWRITE_IF_EXISTS_OR_ADD, _Option.APPEND_IF_EXISTS_OR_ADD)
                )
        if random.random() < often / 2:
            getattr(holder, f"{side}_to_remove").append(random.choice(names))


# Scripts.


def _script(random: Random, route: _Route, authority: str) -> Script:
    script = Script(
        path=_path(random, route.match),
        authority=authority if random.random() < 0.9 else f"{authority}:8443",
        headers=_headers(random, route.match),
        chunks=_chunks(random),
    )
    if random.random() < 0.05:
        script = replace(
            script, authority=random.choice(("nobody.example.com", "wild.example.com"))
        )
    if random.random() < 0.05:
        script = replace(script, content_type=random.choice(("application/json", None)))
    elif random.random() < 0.1:
        script = replace(script, content_type="application/grpc+proto")
    if random.random() < 0.1:
        window = random.choice((1, 100, 4_000))
        script = replace(script, window=window, reads_after_s=random.choice((0.0, 0.05)))
    if random.random() < 0.05:
        script = replace(script, trailers=(("x-client-trailer", "late"),))
    return _with_deeds(random, script, _patience(route))


def _patience(route: _Route) -> bool:
    """Whether a time-out of the route ends a call that nobody answers (if it meets that route)."""
    return route.HasField("route") and route.route.timeout.ToMilliseconds() > 0


def _path(random: Random, match: route_components_pb2.RouteMatch) -> str:
    if random.random() < 0.08:
        return random.choice(
            ("/pkg.Nobody/A", "/", "/pkg.Svc0", "/pkg.Svc0/A/more", "//pkg.Svc0/A")
        )
    match match.WhichOneof("path_specifier"):
        case "path":
            return match.path
        case "prefix":
            return match.prefix + random.choice(("A", "B", "Other", ""))
        case _:
            return f"/pkg.Svc{random.randint(0, 2)}/{random.choice(('A', 'B', 'BB'))}"


def _headers(random: Random, match: route_components_pb2.RouteMatch) -> tuple[Header, ...]:
    headers: list[Header] = []
    for matcher in match.headers:
        if random.random() < 0.8:
            wanted = matcher.string_match.exact or random.choice(ENVIRONMENTS)
            headers.append((matcher.name, wanted))
    if random.random() < 0.2:
        headers.append(("x-env", random.choice(ENVIRONMENTS)))
    if random.random() < 0.3:
        headers += [("x-more", "here"), ("x-more", "and here")]
    if random.random() < 0.2:
        headers.append(("x-bin-bin", "AAECAw"))
    if random.random() < 0.1:
        # More than a frame in all, in pieces: hpack's time for one string grows with its square.
        headers += [("x-large", "y" * 2_000)] * random.choice((1, 3, 10))
    if random.random() < 0.1:
        headers.append(("user-agent", "differential/1"))
    if random.random() < 0.05:
        headers.append(("x-empty", ""))
    return tuple(headers)


def _chunks(random: Random) -> tuple[int, ...]:
    kind = random.random()
    if kind < 0.6:
        return (random.choice((5, 13, 100)),)
    if kind < 0.7:
        return ()
    if kind < 0.8:
        return (0,)
    if kind < 0.95:
        return tuple(random.choice((5, 500, 16_384)) for _ in range(random.randint(2, 5)))
    return (random.choice((65_536, 70_000, 200_000)),)


def _with_deeds(random: Random, script: Script, ends_alone: bool) -> Script:
    kind = random.random()
    if kind < 0.5:
        deeds: tuple[Deed, ...] = (_answer(random),)
    elif kind < 0.72:
        deeds = (_fault(random), *((_fault(random),) if random.random() < 0.3 else ()), Answer())
    elif kind < 0.8:
        deeds = (_fault(random),)
    elif kind < 0.88:
        deeds = (Answer(reads_after_s=0.08),)
        script = replace(script, chunks=(random.choice((100, 100_000, 300_000)),))
    elif kind < 0.94:
        deeds = (Silence(random.choice((After.NOTHING, After.HEADERS))),)
        deadline = "700m" if ends_alone else "200m"
        script = replace(script, headers=(*script.headers, ("grpc-timeout", deadline)))
    else:
        deeds = (Silence(random.choice((After.NOTHING, After.HEADERS, After.MESSAGE))),)
        after_answer = deeds[0] != Silence(After.NOTHING)
        script = replace(
            script,
            reset=ClientReset(random.choice((CANCEL, INTERNAL)), after_answer),
            ends=random.random() < 0.5,
        )
        if after_answer:
            # Where no upstream is reached, the answer comes all the same.
            script = replace(script, headers=(*script.headers, ("grpc-timeout", "900m")))
    script = replace(script, deeds=deeds)
    largest = max((sum(deed.messages) for deed in deeds if isinstance(deed, Answer)), default=0)
    # Byte by byte it takes long, which tells nothing more.
    return replace(script, window=max(script.window, min(4_000, largest // 20)))


def _answer(random: Random) -> Answer:
    answer = Answer(at=random.choice((At.END, At.END, At.HEADERS)))
    if random.random() < 0.3:
        answer = replace(
            answer,
            headers=(
                ("x-answer", "from upstream"),
                *((("x-more", "1"), ("x-more", "2")) if random.random() < 0.5 else ()),
            ),
        )
    kind = random.random()
    if kind < 0.3:
        sizes = random.choice(((5,), (), (10, 20, 30), (16_384, 16_384), (100_000,)))
        answer = replace(answer, messages=sizes)
    elif kind < 0.5:
        answer = replace(answer, trailers=_status(random), messages=random.choice(((), (8,))))
    elif kind < 0.7:
        answer = replace(answer, trailers=_status(random), messages=(), trailers_only=True)
    elif kind < 0.78:
        status = random.choice((204, 400, 404, 429, 500, 502, 503))
        answer = Answer(
            at=answer.at,
            status=status,
            content_type="text/plain",
            messages=() if status == 204 else (9,),
            trailers=(),
        )
    elif kind < 0.82:
        answer = replace(answer, delay_s=SLOW_S)
    elif kind < 0.86:
        answer = replace(answer, trailers=())
    return answer


def _status(random: Random) -> tuple[Header, ...]:
    code = random.choice((0, 1, 4, 5, 8, 13, 14, 14, 15, 16))
    extra: Sequence[Header] = random.choice(
        ((), (("x-trailer", "t"),), (("x-trailer-bin", "AAEC"), ("x-trailer", "t")))
    )
    return (("grpc-status", str(code)), ("grpc-message", "said%20by the upstream"), *extra)


def _fault(random: Random) -> Deed:
    at = random.choice((At.END, At.HEADERS))
    after = random.choice((After.NOTHING, After.NOTHING, After.HEADERS, After.MESSAGE))
    kind = random.random()
    if kind < 0.35:
        code = random.choice((NO_ERROR, INTERNAL, REFUSED, CANCEL, CALM))
        return Reset(code, after=After.NOTHING if code == REFUSED else after, at=at)
    if kind < 0.5:
        return Hangup(after=after, at=at)
    if kind < 0.6:
        return Leave(refuse=random.random() < 0.5)
    if kind < 0.85:
        return Answer(messages=(), trailers=_status(random), trailers_only=True)
    return Answer(
        status=random.choice((429, 500, 503)),
        content_type="text/plain",
        messages=(9,),
        trailers=(),
    )
