# syntax=docker/dockerfile:1
# One image for every part: `fedctl agent`, `resolver`, `gateway` and the rest.
#
#   docker build -t federation .
#   docker run --read-only federation --version
#
# It runs as nobody in particular (65532), writes nothing to its root, and has no shell: probes ask
# the commands' own HTTP endpoints. Python is Debian 12's in both stages, so that what is installed
# in the one runs in the other.

FROM rust:1-slim-bookworm AS build
# Debian keeps no old versions to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY constraints.txt ./
RUN python3 -m venv /tools && /tools/bin/pip install --constraint constraints.txt maturin
COPY Cargo.toml Cargo.lock pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY federation federation
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    /tools/bin/maturin build --release --locked --out /wheels
RUN python3 -m venv --without-pip /opt/federation \
    && /tools/bin/pip --python /opt/federation/bin/python install \
        --no-compile --constraint constraints.txt /wheels/*.whl

FROM gcr.io/distroless/python3-debian12:nonroot
LABEL org.opencontainers.image.title="federation" \
      org.opencontainers.image.description="Multi-cluster federation for gRPC on Kubernetes: agent, resolver and gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/federation /opt/federation
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["/opt/federation/bin/fedctl"]
