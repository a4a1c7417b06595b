# Kubernetes: the overlays, and their test on a real node.

.PHONY: node-programs test-kubernetes

node-programs: ## the programs of the Kubernetes test node: 11 minutes on 2 cores, once, in ~/.cache/kube-node
	tests/kubernetes/node packages
	tests/kubernetes/node build

# A node that a test which was killed left behind goes down first, and none is left.
test-kubernetes: deps node-programs build ## both overlays on a real one-node Kubernetes, which is started for it; needs root
	export KUBE_NODE_DIR=$(CURDIR)/build/kube-node; \
	tests/kubernetes/node down; trap 'tests/kubernetes/node down' EXIT; \
	infra/docker/deps run bash -c '$(MAKE) --no-print-directory images && cd tests/kubernetes && SLUICE_TEST_ALL=1 $(GO) test -count=1 -v -timeout 30m .'
