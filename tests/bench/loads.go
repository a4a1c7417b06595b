package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
)

// loads are the rows of the main table.
func loads(router, asserted, mosquitto *server) []load {
	var rows []load
	if mosquitto != nil {
		rows = append(rows, load{name: "mosquitto, QoS 1, 1 to 1", server: mosquitto, yard: true,
			args: []string{"mqtt", "-url", "mqtt://" + mosquitto.addr, "-pubs", "1"}})
	}
	for _, kind := range []struct {
		name string
		args []string
	}{{"at least once", nil}, {"pre-settled", []string{"-settled"}}} {
		for _, pairs := range []int{1, 10} {
			args := append([]string{"-pairs", strconv.Itoa(pairs)}, kind.args...)
			rows = append(rows,
				load{name: fmt.Sprintf("sluice router, %s, %d+%d", kind.name, pairs, pairs), server: router,
					args: append([]string{"amqp-raw", "-url", router.url, "-addr", "telemetry/bench%d"}, args...)},
				load{name: fmt.Sprintf("sluice router, %s, %d+%d, with assertions", kind.name, pairs, pairs), server: asserted,
					args: append([]string{"amqp-raw", "-url", asserted.url, "-addr", "telemetry/" + assertedTenant + "/%d",
						"-tenant", assertedTenant, "-assertions", asserted.tokens}, args...)})
		}
	}
	// The rows above come in writes of up to a hundred messages, which is the best
	// case of a server that works in batches; here every message is a write of its own.
	return append(rows, load{name: "sluice router, at least once, 1+1, unbatched (go-amqp)", server: router,
		args: []string{"amqp-go", "-url", router.url, "-addr", "telemetry/bench%d", "-pairs", "1"}})
}

// paced are a thousand messages a second, each written when its time comes.
func paced(router, mosquitto *server) []load {
	const rate = "1000"
	rows := []load{
		{name: "sluice router, at least once, 1,000 msg/s", server: router,
			args: []string{"amqp-raw", "-url", router.url, "-addr", "telemetry/bench%d", "-rate", rate}},
		{name: "sluice router, pre-settled, 1,000 msg/s", server: router,
			args: []string{"amqp-raw", "-url", router.url, "-addr", "telemetry/bench%d", "-rate", rate, "-settled"}},
	}
	if mosquitto != nil {
		rows = append(rows, load{name: "mosquitto, QoS 1, 1,000 msg/s", server: mosquitto,
			args: []string{"mqtt", "-url", "mqtt://" + mosquitto.addr, "-pubs", "1", "-rate", rate}})
	}
	return rows
}

// growth has more and more of what there can be many of.
func growth(router *server) []load {
	var rows []load
	// The same window for each pair, so that the first rows are no better batched than
	// the last by what was asked for.
	for _, window := range []int{500, 100} {
		for i, pairs := range []int{1, 10, 100, 1000} {
			rows = append(rows, load{name: fmt.Sprintf("%d pairs of connections, %d in flight each", pairs, window), server: router, first: i == 0,
				args: []string{"amqp-raw", "-url", router.url, "-addr", "telemetry/pair%d", "-pairs", strconv.Itoa(pairs),
					"-window", strconv.Itoa(window), "-credit", strconv.Itoa(2 * window)}})
		}
	}
	for i, addresses := range []int{10, 1000, 100_000} {
		rows = append(rows, load{name: fmt.Sprintf("%d addresses over 2+2 connections", addresses), server: router, first: i == 0,
			args: []string{"amqp-addresses", "-url", router.url, "-addr", "telemetry/tenant%d", "-addresses", strconv.Itoa(addresses)}})
	}
	return rows
}

var idleLine = regexp.MustCompile(`(\d+) conns: RSS (\d+) -> (\d+) KiB, ([0-9.]+) KiB per connection; idle CPU ([0-9.]+)%`)

// idle measures what connections hold that do nothing, each time in a new router.
func idle(ctx context.Context, o options, peerbench string) error {
	for _, kind := range []string{"TCP", "TLS"} {
		router, err := startRouter(ctx, o)
		if err != nil {
			return err
		}
		url := router.url
		if kind == "TLS" {
			url = router.tlsURL
		}
		out, err := exec.CommandContext(ctx, peerbench, "amqp-idle", "-label", "x", "-pid", strconv.Itoa(router.pid()), "-url", url,
			"-addr", "telemetry/idle%d", "-conns", strconv.Itoa(o.idle), "-warm", "3s", "-d", "5s").CombinedOutput()
		router.stop()
		if err != nil {
			return fmt.Errorf("idle connections over %s: %w\n%s%s", kind, err, out, router.log())
		}
		m := idleLine.FindSubmatch(out)
		if m == nil {
			return fmt.Errorf("idle connections over %s: no result in\n%s%s", kind, out, router.log())
		}
		fmt.Fprintf(os.Stdout, "%s idle connections over %s, each with a receiver link: %s KiB resident each, %s %% of a processor\n", m[1], kind, m[4], m[5])
	}
	return nil
}
