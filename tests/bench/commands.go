package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
)

// What commands are paced at: each upload of an HTTP device brings one, so that a command is
// three messages there.
const (
	commandRate     = 1000
	commandRateHTTP = 200
)

// commandsTable measures commands to devices and their responses: through everything in one
// process and through processes for each part, by turns with requests between clients of
// mosquitto.
func commandsTable(ctx context.Context, o options, peerbench string) error {
	const devices = 100
	// Single messages wait for the peer's acknowledgements otherwise, up to 40 ms.
	mosquitto, err := startMosquitto(ctx, o, "set_tcp_nodelay true")
	if err != nil {
		return err
	}
	defer mosquitto.stop()
	sites, stop, err := startSites(ctx, o, devices)
	if err != nil {
		return err
	}
	defer stop()
	rows := o.selected(commandRows(sites[0], sites[1], mosquitto))
	if err := measureRows(ctx, o, peerbench, rows, o.rounds); err != nil {
		return err
	}
	fmt.Printf("\ncommands to devices, each answered: end to end is there and back, answer the command's outcome; processes of the last column: %s\n", sites[1].names)
	printDevices(os.Stdout, rows)
	return nil
}

// startSites starts everything in one process, and again with processes for each part, and
// registers devices in both.
func startSites(ctx context.Context, o options, devices int) (sites []*server, stop func(), err error) {
	stop = func() {
		for _, p := range sites {
			p.stop()
		}
	}
	for _, begin := range []func(*site, context.Context) (*server, error){(*site).startUp, (*site).startParts} {
		s, err := newSite(o)
		if err == nil {
			var p *server
			if p, err = begin(s, ctx); err == nil {
				sites = append(sites, p)
				err = s.register(deviceTenant, devices, quickSecret())
			}
		}
		if err != nil {
			stop()
			return nil, nil, err
		}
	}
	return sites, stop, nil
}

// commandRows are the same loads for each server.
func commandRows(up, parts, mosquitto *server) (rows []load) {
	over := func(p *server, mode, scheme, addr string, args ...string) []string {
		return append([]string{mode, "-url", scheme + "://" + addr, "-user", deviceUser, "-password", devicePassword,
			"-sink", p.url, "-tenant", deviceTenant}, args...)
	}
	for _, qos := range []string{"0", "1"} {
		for _, devices := range []string{"10", "100"} {
			name := fmt.Sprintf("MQTT QoS %s, %s devices, %d/s", qos, devices, commandRate)
			args := []string{"-qos", qos, "-pubs", devices, "-rate", strconv.Itoa(commandRate)}
			if mosquitto != nil {
				rows = append(rows, load{name: "mosquitto, " + name, server: mosquitto, first: true,
					args: append([]string{"mqtt-requests", "-url", "mqtt://" + mosquitto.addr}, args...)})
			}
			rows = append(rows,
				load{name: "sluice up, " + name, server: up, args: over(up, "commands", "mqtt", up.mqtt, args...)},
				load{name: "sluice in parts, " + name, server: parts, args: over(parts, "commands", "mqtt", parts.mqtt, args...)})
		}
	}
	name := fmt.Sprintf("HTTP hono-ttd, 20 devices, %d/s", commandRateHTTP)
	args := []string{"-conns", "20", "-rate", strconv.Itoa(commandRateHTTP)}
	return append(rows,
		load{name: "sluice up, " + name, server: up, alone: true, args: over(up, "commands-http", "http", up.addr, args...)},
		load{name: "sluice in parts, " + name, server: parts, alone: true, args: over(parts, "commands-http", "http", parts.addr, args...)})
}
