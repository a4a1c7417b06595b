# The container images. Nothing is pulled: they are made of our programs and of
# the certificates of public authorities that this machine believes.

IMAGES           := sluice-edge sluice-function
# Bytes that an image may have.
IMAGE_LIMIT      ?= 25000000
IMAGE_REVISION   := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# When the source was last changed, so that the same source makes the same labels.
IMAGE_EPOCH      := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || echo 0))
IMAGE_TAR        := tar --format=ustar --sort=name --numeric-owner --mode=u=rwX,go=rX --mtime=@$(IMAGE_EPOCH)
CA_CERTIFICATES  ?= /etc/ssl/certs/ca-certificates.crt

.PHONY: images images-check test-images $(addprefix image-,$(IMAGES))

images: $(addprefix image-,$(IMAGES)) images-check ## the images sluice-edge and sluice-function; STORES=nosqlite,... leaves stores out

# A context has a Dockerfile and what it adds, and nothing else. The folder of the
# volume is open like /tmp, because a tmpfs or a platform's own user gets its mode, not
# its owner; the data folder that is made in it is for its owner alone.
$(addprefix image-,$(IMAGES)): image-%:
	@infra/docker/deps >/dev/null
	@test -s $(CA_CERTIFICATES) || { echo "$(CA_CERTIFICATES) is missing: install ca-certificates, or name another with CA_CERTIFICATES=FILE"; exit 1; }
	@rm -rf build/images/$* && mkdir -p build/images/$*/context build/images/$*/root/etc/ssl/certs build/images/$*/root/var/lib/sluice
	CGO_ENABLED=0 $(GO) build -trimpath -tags "lambda.norpc,$(STORES)" -ldflags "$(LDFLAGS)" -o build/images/$*/root/$* ./cmd/$*
	@cp $(CA_CERTIFICATES) build/images/$*/root/etc/ssl/certs/ca-certificates.crt
	@cd build/images/$* && $(IMAGE_TAR) --owner=0 --group=0 -cf context/root.tar -C root $* etc && \
		$(IMAGE_TAR) --owner=0 --group=0 --no-recursion -rf context/root.tar -C root var var/lib && \
		$(IMAGE_TAR) --owner=65532 --group=65532 --mode=1777 -rf context/root.tar -C root var/lib/sluice
	@cp infra/docker/$*.Dockerfile build/images/$*/context/Dockerfile
	@# Newer clients warn of the classic builder, which is all that Debian's has.
	@DOCKER_BUILDKIT=0 docker build -q --build-arg VERSION=$(VERSION) --build-arg REVISION=$(IMAGE_REVISION) \
		--build-arg CREATED=$$(date -u -d @$(IMAGE_EPOCH) +%Y-%m-%dT%H:%M:%SZ) \
		-t $*:$(VERSION) -t $*:dev -t $*:latest build/images/$*/context >build/images/$*/log 2>&1 || { cat build/images/$*/log; exit 1; }

images-check: $(addprefix image-,$(IMAGES))
	@set -e; for i in $(IMAGES); do \
		size=$$(docker image inspect --format '{{.Size}}' $$i:dev); \
		echo "$$i:$(VERSION) $$size bytes"; \
		if [ $$size -gt $(IMAGE_LIMIT) ]; then echo "$$i has more than $(IMAGE_LIMIT) bytes: see what it links"; exit 1; fi; \
	done

test-images: ## the images as they would be run; an engine that was started for it ends with it
	infra/docker/deps run sh -c '$(MAKE) --no-print-directory images && SLUICE_TEST_ALL=1 $(GO) test -count=1 ./tests/images'
