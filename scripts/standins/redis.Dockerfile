ARG BASE
FROM ${BASE}
RUN groupadd -g 1000 redis \
    && useradd -u 999 -g redis redis \
    && apt-get update \
    && apt-get install --yes --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /data
VOLUME /data
CMD ["redis-server"]
