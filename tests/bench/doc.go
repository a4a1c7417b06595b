// Command bench measures `sluice router` against its peers on this machine, in
// rounds that interleave the servers, and prints the median of each row: the
// server's CPU time per message, messages per second, and the ratio to
// mosquitto's CPU time in the same run. More tables follow: a thousand messages a
// second with their latency, how cost grows with connections and addresses, and
// what idle connections hold. One has stored events through `sluice up`
// with SQLite, and through RabbitMQ with a durable queue, where it is installed. One has
// telemetry of devices over HTTP and MQTT to an application that accepts each message, through
// everything in one process and through processes for each part. One has commands to such devices,
// and their responses. Rows with assertions run
// against a router of this program's own (asserted.go), which trusts a key made for the occasion.
//
//	make bench                         builds bin/sluice and runs three rounds
//	go run ./tests/bench -rounds 5     uses the bin/sluice that is there
//	go run ./tests/bench -tables idle  makes one of the tables
//	go run ./tests/bench -rows HTTP    measures only the rows that are called so
//
// The generator is peerbench, in a module of its own beside this file. It and
// the server share the machine, so messages per second say little by
// themselves; the CPU time of the server is the figure to compare. The servers
// listen on loopback ports of their own and end with the program.
//
// Linux only: CPU time is read from /proc.
package main
