# syntax=docker/dockerfile:1.7
# The gateway itself. Built from the project's root:
#   docker build -f container/gateway.Dockerfile -t comfy-runpod-gateway .
ARG PYTHON_BASE=python:3.12-slim

FROM ${PYTHON_BASE} AS environment
WORKDIR /opt/gateway
COPY requirements.lock run_gateway.sh ./
COPY scripts/environment.sh scripts/find_python.sh scripts/
# What run_gateway.sh does at its first start, done here: .venv from the lock with its hashes, at the path it stays at.
RUN bash -euc '. scripts/find_python.sh; . scripts/environment.sh; prepare_environment runtime'

FROM ${PYTHON_BASE}
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_HOST=0.0.0.0 PORT=8000 GATEWAY_STATE_DIR=/var/lib/gateway
RUN useradd --system --uid 10001 --create-home --home-dir /home/gateway gateway \
    && install -d -o gateway -m 0700 /var/lib/gateway
WORKDIR /opt/gateway
COPY --from=environment /opt/gateway /opt/gateway
COPY config config
COPY addons addons
USER 10001
VOLUME /var/lib/gateway
EXPOSE 8000
# SIGTERM ends the gateway within 10 s.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD [".venv/bin/python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/gateway/healthz\", timeout=4)"]
CMD ["./run_gateway.sh", "serve"]
