# Kubernetes: the overlays, and their test on a real node.

.PHONY: node-programs test-kubernetes

node-programs: ## the programs of the Kubernetes test node: 11 minutes on 2 cores, once, in ~/.cache/kube-node
	tests/kubernetes/node packages
	tests/kubernetes/node build

# One at a time on a machine. A node that a killed test left goes down first, and none is left.
test-kubernetes: deps node-programs build ## both overlays on a real one-node Kubernetes, which is started for it; needs root
	KUBE_NODE_DIR=$(CURDIR)/build/kube-node tests/kubernetes/node run infra/docker/deps run \
		bash -c '$(MAKE) --no-print-directory images && cd tests/kubernetes && SLUICE_TEST_ALL=1 $(GO) test -count=1 -v -timeout 30m .'
