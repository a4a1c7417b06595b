// Package status is the one table that says how a sentinel error of
// internal/iot looks in each protocol: the CloudEvent error code and status,
// HTTP, CoAP, MQTT and AMQP, and whether trying again makes sense (contract:
// events 3, adapters 15 and 8.3, messaging 1.3). It formats nothing and sends
// nothing.
//
//	row := status.Of(err)
//	http.Error(w, status.Text(err), row.HTTP)
package status
