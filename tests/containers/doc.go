// Package containers holds the tests that run the product as its images: routers,
// HTTP and MQTT adapters and functions as containers on a network of their own, with
// mutual TLS between them, a read-only root, no capabilities and no root. The store is
// SQLite in a volume, or a PostgreSQL on this host.
//
// It is a module of its own, so that what starts containers is no dependency of the
// product. A Docker engine and the images have to be there:
//
//	make test-containers
//
// builds the images, starts an engine where none answers and ends that one again.
// Without an engine or an image a test is skipped, with SLUICE_TEST_ALL=1 it fails.
// SLUICE_EDGE_IMAGE and SLUICE_FUNCTION_IMAGE name other images than
// sluice-edge:dev and sluice-function:dev.
//
// Devices are net/http and the clients of Mosquitto, applications are go-amqp. What is measured on the way is
// printed at the end, and written to build/containers.txt.
package containers
