// Package interop drives the built program with clients that nobody here wrote:
// curl, Proton for Python, rhea on Node, and go-amqp; as devices mosquitto's
// clients, paho for Python and for Go, and a page in Chromium.
//
// The tests build the program once, or take the one that SLUICE_BIN names, start
// it on free loopback ports with a data folder of their own, and end it and
// every other process they started, whatever happens.
//
// What needs a foreign client that is not installed is skipped with the reason;
// with SLUICE_TEST_ALL=1, as `make test-all` sets it, it fails instead.
//
// The foreign AMQP clients are small programs beside the tests, proton_peer.py
// and rhea_peer.js. Both read one JSON line of link options and then, as
// senders, one line a message from standard input, and write one JSON line for
// everything that happens; the end of their input closes them. A receiver
// answers a message with the outcome that the message's subject names, followed
// by the details it shall have (modified:failed:undeliverable:annotated). A line
// with a cmd gives credit, drains, or sends at full rate; see type outgoing.
//
// proton_service.py and rhea_service.js make requests to service addresses, or
// fetch a token, and print what was answered; their input is one JSON object.
//
// paho_peer.py (MQTT 3.1.1) and the command paho5 (MQTT 5, a module of its own)
// are devices that do what JSON lines tell them and write a line for everything
// that happens; see types mqttOptions, mqttCommand and mqttEvent.
// websocket_page.html is a device in a browser.
package interop
