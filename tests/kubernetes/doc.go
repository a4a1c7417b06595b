// Package kubernetes holds the test of infra/kubernetes on a real Kubernetes of
// one node, which the script node beside it brings up: the overlays are applied
// with strict validation in namespaces of the Pod Security level "restricted",
// and what they describe runs, is updated under load and goes away again.
//
//	make test-kubernetes
//
// It is a module of its own, and the programs of the node are another one, in
// programs, so that neither says anything about what the product is built from.
package kubernetes
