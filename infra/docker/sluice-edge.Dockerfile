# The router and the protocol adapters. `make images` makes root.tar: the program,
# the certificates of public authorities, an empty folder for the volume. An archive
# keeps owners and times as they are, so that the same source makes the same layer.
FROM scratch

ADD root.tar /

# Numbers, because there is no /etc/passwd, and because Kubernetes wants to see
# that it is not root.
USER 65532:65532
# A folder below the volume, so that it can be for its owner alone whoever made
# the volume. A router keeps the key of its tokens there; an adapter with a
# certificate of its own keeps nothing.
ENV SLUICE_DATA=/var/lib/sluice/data
VOLUME /var/lib/sluice

# AMQPS, AMQP, AMQPS of components, ingress of changes; HTTP, HTTPS of devices,
# their MQTT without and with TLS; probes and metrics.
EXPOSE 5671 5672 5673 8445 8080 8443 1883 8883 8088

HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 CMD ["/sluice-edge", "health"]
ENTRYPOINT ["/sluice-edge"]

ARG VERSION
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.title="sluice-edge" \
      org.opencontainers.image.description="AMQP 1.0 router and protocol adapters of Sluice" \
      org.opencontainers.image.source="https://github.com/sluice-iot/sluice" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
