# The product as its images, against real devices and applications.

.PHONY: test-containers

# PostgreSQL and Mosquitto's clients are installed by `make deps`.
test-containers: ## routers, adapters and functions as containers; an engine that was started for it ends with it
	infra/docker/deps run bash -c '$(MAKE) --no-print-directory images && cd tests/containers && $(GO) vet . && SLUICE_TEST_ALL=1 $(GO) test -count=1 .'
	@cat build/containers.txt
