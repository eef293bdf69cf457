# The API (--target api: small, without torch) and the CPU worker (--target worker: with torch and the weights).
#
#   docker build --target api -t regen-server:api .
#   docker build --target worker -t regen-server:worker .
ARG PYTHON_IMAGE=python:3.13.16-slim-bookworm

# ffmpeg with what the server uses of it, from the source of Debian's package, whose 215 libraries take 690 MB.
FROM ${PYTHON_IMAGE} AS ffmpeg
WORKDIR /build
# Not pinned: Debian keeps only the newest version of a package, and it differs from its forerunner by security fixes.
# hadolint ignore=DL3008
RUN find /etc/apt -name '*.sources' -exec sed -i 's/^Types: deb$/Types: deb deb-src/' {} + \
    && apt-get update \
    && apt-get install --yes --no-install-recommends \
        dpkg-dev gcc libbz2-dev libc6-dev libdav1d-dev libopus-dev libsvtav1enc-dev libvpx-dev libx264-dev \
        libx265-dev libzimg-dev make nasm pkg-config zlib1g-dev
COPY deploy/ffmpeg deploy/ffmpeg
COPY app/platform/media/components.py app/platform/media/whitelists.py server/
RUN deploy/ffmpeg/build server .

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/regen/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REGEN_DATA_DIR=/data \
    REGEN_LOG_FORMAT=json
# hadolint ignore=DL3008
RUN --mount=type=bind,from=ffmpeg,source=/build,target=/build \
    apt-get update \
    && apt-get install --yes --no-install-recommends /build/regen-ffmpeg.deb tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 regen \
    && useradd --uid 10001 --gid regen --home-dir /data --no-create-home --shell /usr/sbin/nologin regen \
    && install --directory --owner regen --group regen --mode 0700 /data

# Dependencies come before the source, so that a change of the source leaves these layers as they are.
FROM ${PYTHON_IMAGE} AS api-dependencies
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
WORKDIR /build
# Compiles the convolutions for CPUs and the launcher of ffmpeg, and strips.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.lock ./
COPY scripts/requirements.py scripts/slim_environment.py scripts/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/regen \
    && python scripts/requirements.py api >requirements.txt \
    && pip --python /opt/regen install --require-hashes --only-binary :all: --requirement requirements.txt

FROM api-dependencies AS api-environment
RUN python scripts/slim_environment.py /opt/regen

FROM api-dependencies AS worker-dependencies
# For Linux, PyPI's torch brings CUDA, gigabytes of it. What it needs itself is taken from PyPI, as pinned.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    python scripts/requirements.py worker >requirements.txt \
    && python scripts/requirements.py torch-cpu >torch.txt \
    && pip --python /opt/regen install --no-deps --index-url "$TORCH_INDEX" --requirement torch.txt \
    && pip --python /opt/regen install --require-hashes --only-binary :all: --requirement requirements.txt \
    && python scripts/slim_environment.py /opt/regen

FROM worker-dependencies AS weights
COPY models models
RUN /opt/regen/bin/python -m models.weights convert --directory /weights

# The pages that the API shows under /help.
FROM api-dependencies AS site
RUN --mount=type=cache,target=/root/.cache/pip \
    python scripts/requirements.py docs >docs.txt \
    && pip --python /opt/regen install --require-hashes --only-binary :all: --requirement docs.txt
COPY CHANGELOG.md CONTRIBUTING.md README.md SECURITY.md requirements.lock ./
COPY app/console/static/icon.svg app/console/static/
COPY bench/RESULTS.md bench/
COPY clients clients
COPY deploy/helm/regen-server/values.yaml deploy/helm/regen-server/
COPY docs docs
COPY scripts/site scripts/
COPY tests/media/README.md tests/media/
RUN PYTHON=/opt/regen/bin/python REGEN_SITE_CACHE=/tmp/site scripts/site /site

FROM api-dependencies AS package
RUN --mount=type=cache,target=/root/.cache/pip \
    python scripts/requirements.py build >build.txt \
    && pip --python /opt/regen install --require-hashes --only-binary :all: --requirement build.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY app app
COPY clients/python clients/python
COPY migrations migrations
COPY models models
COPY regen_server regen_server
COPY worker worker
COPY --from=site /site app/http/site
RUN pip --python /opt/regen wheel --no-deps --no-build-isolation --wheel-dir /wheels . ./clients/python

FROM base AS worker
COPY --from=worker-dependencies /opt/regen /opt/regen
COPY --from=weights /weights /opt/regen/share/regen-server/weights
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip --python /opt/regen install --no-cache-dir --no-index --no-deps /wheels/*.whl
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Regen Server: CPU worker" \
      org.opencontainers.image.description="Reads, upscales on the CPU and joins videos for a Regen server" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT"
ENV REGEN_WORKER_METRICS_HOST=0.0.0.0 \
    REGEN_WORKER_METRICS_PORT=9100
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 9100
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=15s --start-period=60s --retries=3 \
    CMD ["regen", "healthcheck", "--worker"]
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["regen", "worker"]

FROM base AS api
COPY --from=api-environment /opt/regen /opt/regen
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip --python /opt/regen install --no-cache-dir --no-index --no-deps /wheels/*.whl
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Regen Server: API" \
      org.opencontainers.image.description="The HTTP API of a Regen server" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT"
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# Whether this process lives. Whether it is ready is /readyz, which also fails while its disk is full: no reason to have
# it replaced.
HEALTHCHECK --interval=15s --timeout=15s --start-period=30s --retries=3 \
    CMD ["regen", "healthcheck"]
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["regen", "serve", "--host", "0.0.0.0", "--port", "8000", "--no-worker"]
