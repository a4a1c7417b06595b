// Package mqtt is the adapter for devices that speak MQTT 3.1.1 or 5 (contract:
// adapters 8). It is no broker: what a device publishes goes to the
// applications, and a device gets only what is addressed to itself.
package mqtt
