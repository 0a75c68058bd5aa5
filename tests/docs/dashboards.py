"""Grafana's dashboards, laid out so that a person finds things: from the whole to the part, and
questions in the order in which they are asked.

Decides: rows, panels and queries.
Leaves to others: Grafana's form (``grafana``), which metrics there are (the catalogues; a test
holds the queries against them).
"""

from __future__ import annotations

from tests.docs.grafana import Dashboard, Panel, Row

RATE = "$__rate_interval"
FAULTS = 'grpc_code=~"Unknown|DeadlineExceeded|Internal|Unavailable|DataLoss"'


def _rate(metric: str, by: str, match: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{match}}}[{RATE}]))"


def _errors(by: str, match: str = "") -> str:
    faults = ",".join(part for part in (match, FAULTS) if part)
    total = _rate("grpc_server_handled_total", by, match)
    return f"{_rate('grpc_server_handled_total', by, faults)} / {total}"


def _quantile(share: float, by: str, match: str = "") -> str:
    buckets = _rate("grpc_server_handling_seconds_bucket", f"le, {by}" if by else "le", match)
    return f"histogram_quantile({share}, {buckets})"


_COMPILE = _rate("federation_agent_compile_seconds_bucket", "le, instance")

FEDERATION = Dashboard(
    "grpc-federation",
    "gRPC federation",
    (
        Row(
            "Is anything wrong?",
            (
                Panel(
                    "Calls",
                    (("sum(rate(grpc_server_handled_total[$__rate_interval]))", "calls"),),
                    "reqps",
                    "stat",
                ),
                Panel(
                    "Faults",
                    ((_errors("").replace(" by ()", ""), "faults"),),
                    "percentunit",
                    "stat",
                ),
                Panel(
                    "Services without a target",
                    (('max(federation_resolver_services{state="no_target"})', "services"),),
                    kind="stat",
                ),
                Panel(
                    "Silent clusters",
                    (
                        (
                            "count(federation_resolver_cluster_stale_seconds > 30) or vector(0)",
                            "clusters",
                        ),
                    ),
                    kind="stat",
                ),
                Panel(
                    "Resources refused by gateways",
                    (("sum(federation_agent_refused_resources)", "resources"),),
                    kind="stat",
                ),
                Panel(
                    "A resolver leads",
                    (("max(federation_resolver_leading)", "leads"),),
                    kind="stat",
                ),
            ),
        ),
        Row(
            "Where does traffic go?",
            (
                Panel(
                    "Calls between regions",
                    (
                        (
                            _rate(
                                "federation_gateway_region_calls_total",
                                "source_region, destination_region",
                            ),
                            "{{source_region}} → {{destination_region}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "Bytes between regions",
                    (
                        (
                            _rate(
                                "federation_gateway_region_bytes_total",
                                "source_region, destination_region, direction",
                            ),
                            "{{source_region}} → {{destination_region}} {{direction}}",
                        ),
                    ),
                    "Bps",
                ),
                Panel(
                    "Services that do not go where policy sends them",
                    (
                        (
                            'max by (state) (federation_resolver_services{state!="as_asked"})',
                            "{{state}}",
                        ),
                    ),
                    about="moved: weights in force are not those asked for; see `fedctl explain`.",
                ),
            ),
        ),
        Row(
            "How do regions answer?",
            (
                Panel(
                    "Faults by region that answers",
                    ((_errors("destination_region"), "{{destination_region}}"),),
                    "percentunit",
                ),
                Panel(
                    "99th percentile by region that answers",
                    ((_quantile(0.99, "destination_region"), "{{destination_region}}"),),
                    "s",
                ),
            ),
        ),
        Row(
            "Drains",
            (
                Panel(
                    "Weight left",
                    (("max by (drain) (federation_resolver_drain_remaining_ratio)", "{{drain}}"),),
                    "percentunit",
                ),
                Panel(
                    "Streams on what is drained",
                    (("max by (drain) (federation_resolver_drain_streams_left)", "{{drain}}"),),
                ),
                Panel(
                    "Overdue",
                    (("max by (drain) (federation_resolver_drain_overdue_seconds)", "{{drain}}"),),
                    "s",
                ),
            ),
        ),
        Row(
            "Clusters and the store",
            (
                Panel(
                    "Silent for",
                    (
                        (
                            "max by (cluster) (federation_resolver_cluster_stale_seconds)",
                            "{{cluster}}",
                        ),
                    ),
                    "s",
                ),
                Panel(
                    "Agents: since etcd was heard",
                    (
                        (
                            "time() - federation_agent_store_heard_timestamp_seconds",
                            "{{instance}}",
                        ),
                    ),
                    "s",
                ),
                Panel(
                    "Clock against the API server",
                    (("federation_agent_clock_skew_seconds", "{{instance}}"),),
                    "s",
                ),
            ),
        ),
        Row(
            "From a change to the gateways",
            (
                Panel(
                    "Compilation, 99th percentile",
                    (
                        (
                            f"histogram_quantile(0.99, {_COMPILE})",
                            "{{instance}}",
                        ),
                    ),
                    "s",
                ),
                Panel(
                    "Pieces made anew",
                    ((_rate("federation_agent_compiled_pieces_total", "piece"), "{{piece}}"),),
                ),
                Panel(
                    "Gateways behind",
                    (("max by (node) (federation_agent_gateway_behind_seconds) > 0", "{{node}}"),),
                    "s",
                ),
                Panel(
                    "Writes to the API server",
                    (
                        (
                            _rate("federation_agent_writes_total", "what, result"),
                            "{{what}} {{result}}",
                        ),
                    ),
                    "wps",
                ),
            ),
        ),
    ),
)

_SERVICE = 'grpc_service=~"$service"'

_STARTED = f"sum(grpc_server_started_total{{{_SERVICE}}})"
_ENDED = f"sum(grpc_server_handled_total{{{_SERVICE}}})"

SERVICE = Dashboard(
    "grpc-federation-service",
    "gRPC federation: service",
    (
        Row(
            "How is it?",
            (
                Panel(
                    "Calls",
                    (
                        (
                            _rate("grpc_server_handled_total", "grpc_service", _SERVICE),
                            "{{grpc_service}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "Faults",
                    ((_errors("grpc_service", _SERVICE), "{{grpc_service}}"),),
                    "percentunit",
                ),
                Panel(
                    "Latency",
                    tuple(
                        (_quantile(share, "", _SERVICE), f"p{round(share * 100)}")
                        for share in (0.5, 0.9, 0.99)
                    ),
                    "s",
                ),
            ),
        ),
        Row(
            "Which codes, which methods?",
            (
                Panel(
                    "Codes",
                    ((_rate("grpc_server_handled_total", "grpc_code", _SERVICE), "{{grpc_code}}"),),
                    "reqps",
                ),
                Panel(
                    "Calls by method",
                    (
                        (
                            _rate("grpc_server_handled_total", "grpc_method", _SERVICE),
                            "{{grpc_method}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "99th percentile by method",
                    ((_quantile(0.99, "grpc_method", _SERVICE), "{{grpc_method}}"),),
                    "s",
                ),
            ),
        ),
        Row(
            "Where is it answered?",
            (
                Panel(
                    "Calls by source and destination",
                    (
                        (
                            _rate(
                                "grpc_server_handled_total",
                                "source_region, destination_cluster",
                                _SERVICE,
                            ),
                            "{{source_region}} → {{destination_cluster}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "Faults by destination",
                    ((_errors("destination_cluster", _SERVICE), "{{destination_cluster}}"),),
                    "percentunit",
                ),
                Panel(
                    "99th percentile by destination",
                    (
                        (
                            _quantile(0.99, "destination_cluster", _SERVICE),
                            "{{destination_cluster}}",
                        ),
                    ),
                    "s",
                ),
            ),
        ),
        Row(
            "Streams and error budget",
            (
                Panel(
                    "Messages",
                    (
                        (
                            f"sum(rate(grpc_server_msg_received_total{{{_SERVICE}}}[{RATE}]))",
                            "from clients",
                        ),
                        (
                            f"sum(rate(grpc_server_msg_sent_total{{{_SERVICE}}}[{RATE}]))",
                            "to clients",
                        ),
                    ),
                ),
                Panel(
                    "Calls open",
                    (
                        (
                            f"{_STARTED} - {_ENDED}",
                            "open",
                        ),
                    ),
                    about="Begun and not ended, since the gateways started.",
                ),
                Panel(
                    "Burn of a 99.9 % budget (1 h)",
                    (
                        (
                            f"federation:grpc_errors:ratio_rate1h{{{_SERVICE}}} / 0.001",
                            "{{destination_region}}",
                        ),
                    ),
                    about="1: the budget lasts exactly its month. Alerts at 14.4 and (6 h) 6.",
                ),
            ),
        ),
        Row(
            "Tiers",
            (
                Panel(
                    "Tier in force at the gateways",
                    (
                        (
                            "max by (service, source_cluster) (federation_gateway_active_tier)",
                            "{{service}} from {{source_cluster}}",
                        ),
                    ),
                    about="Lowest tier that takes traffic; -1: none can. All services.",
                ),
                Panel(
                    "Ignoring health (panic)",
                    (
                        (
                            "max by (service, source_cluster) (federation_gateway_panic) > 0",
                            "{{service}} from {{source_cluster}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
    (("service", "label_values(grpc_server_handled_total, grpc_service)"),),
)

_AT = 'instance=~"$instance"'

_FULL = f"max by (cluster, breaker) (federation_gateway_circuit_breaker_full{{{_AT}}})"
_ENDS = "federation_gateway_certificate_expiry_timestamp_seconds"
_EXPIRY = f"min by (secret) ({_ENDS}{{{_AT}}})"

GATEWAY = Dashboard(
    "grpc-federation-gateway",
    "gRPC federation: gateway",
    (
        Row(
            "Load",
            (
                Panel("Calls open", ((f"federation_gateway_calls_open{{{_AT}}}", "{{instance}}"),)),
                Panel(
                    "Connections",
                    (
                        (
                            f"federation_gateway_downstream_connections{{{_AT}}}",
                            "clients {{instance}}",
                        ),
                        (
                            f"federation_gateway_upstream_connections{{{_AT}}}",
                            "endpoints {{instance}}",
                        ),
                    ),
                ),
                Panel(
                    "Bytes buffered",
                    ((f"federation_gateway_buffered_bytes{{{_AT}}}", "{{instance}}"),),
                    "bytes",
                ),
                Panel(
                    "Calls by code",
                    ((_rate("federation_gateway_calls_total", "grpc_code", _AT), "{{grpc_code}}"),),
                    "reqps",
                ),
            ),
        ),
        Row(
            "Tries and endpoints",
            (
                Panel(
                    "Tries",
                    ((_rate("federation_gateway_tries_total", "outcome", _AT), "{{outcome}}"),),
                    "reqps",
                ),
                Panel(
                    "Retries",
                    ((_rate("federation_gateway_retries_total", "reason", _AT), "{{reason}}"),),
                    "reqps",
                ),
                Panel(
                    "Ejections",
                    (
                        (
                            _rate("federation_gateway_ejections_total", "cluster, reason", _AT),
                            "{{cluster}} {{reason}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Bounds",
            (
                Panel(
                    "Bounds reached now",
                    (
                        (
                            f"{_FULL} > 0",
                            "{{cluster}} {{breaker}}",
                        ),
                    ),
                ),
                Panel(
                    "Calls that wait for a connection",
                    ((f"sum by (cluster) (federation_gateway_pending{{{_AT}}})", "{{cluster}}"),),
                ),
                Panel(
                    "Refused by rate limits",
                    ((_rate("federation_gateway_rate_limited_total", "limit", _AT), "{{limit}}"),),
                    "reqps",
                ),
                Panel(
                    "Attacks and faults of peers",
                    ((_rate("federation_gateway_protocol_abuse_total", "kind", _AT), "{{kind}}"),),
                ),
            ),
        ),
        Row(
            "Configuration and certificates",
            (
                Panel(
                    "Since the agent was heard",
                    ((f"federation_gateway_config_age_seconds{{{_AT}}}", "{{instance}}"),),
                    "s",
                ),
                Panel(
                    "Resources refused",
                    ((f"federation_gateway_refused_resources{{{_AT}}}", "{{instance}}"),),
                ),
                Panel(
                    "Certificates end in",
                    (
                        (
                            f"{_EXPIRY} - time()",
                            "{{secret}}",
                        ),
                    ),
                    "s",
                ),
                Panel(
                    "TLS handshakes",
                    (
                        (
                            _rate("federation_gateway_tls_handshakes_total", "side, result", _AT),
                            "{{side}} {{result}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Telemetry",
            (
                Panel(
                    "Made",
                    (
                        (
                            _rate(
                                "federation_gateway_telemetry_items_total", "collector, kind", _AT
                            ),
                            "{{kind}} for {{collector}}",
                        ),
                    ),
                ),
                Panel(
                    "Dropped",
                    (
                        (
                            _rate(
                                "federation_gateway_telemetry_dropped_total", "collector, kind", _AT
                            ),
                            "{{kind}} for {{collector}}",
                        ),
                    ),
                ),
                Panel(
                    "Access log lines lost",
                    (
                        (
                            _rate("federation_gateway_access_log_dropped_total", "file", _AT),
                            "{{file}}",
                        ),
                    ),
                ),
                Panel(
                    "Series",
                    ((f"federation_gateway_metric_series{{{_AT}}}", "{{instance}}"),),
                    about="At 10,000 calls count without labels.",
                ),
            ),
        ),
    ),
    (("instance", "label_values(federation_gateway_state, instance)"),),
)

DASHBOARDS = {"federation": FEDERATION, "service": SERVICE, "gateway": GATEWAY}
