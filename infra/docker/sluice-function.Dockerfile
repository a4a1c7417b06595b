# The identity functions and the management API, with every store. `make images`
# makes root.tar: the program, the certificates of public authorities for stores and
# identity providers behind them, an empty folder for the volume. An archive keeps
# owners and times as they are, so that the same source makes the same layer.
FROM scratch

ADD root.tar /

# Numbers, because there is no /etc/passwd, and because Kubernetes wants to see
# that it is not root.
USER 65532:65532
# A folder below the volume, so that it can be for its owner alone whoever made
# the volume. SQLite's file is there; its temporary tables are in memory.
ENV SLUICE_DATA=/var/lib/sluice/data
VOLUME /var/lib/sluice

# Functions; management over HTTP and HTTPS; probes. A platform that sets PORT gets everything there.
EXPOSE 8444 28080 28443 8088

HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 CMD ["/sluice-function", "health"]
ENTRYPOINT ["/sluice-function"]

ARG VERSION
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.title="sluice-function" \
      org.opencontainers.image.description="Identity functions and management API of Sluice" \
      org.opencontainers.image.source="https://github.com/sluice-iot/sluice" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
