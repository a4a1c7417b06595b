package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
)

// devicesTable measures telemetry of devices, QoS 1, from the device to an application
// that has accepted it before the device is answered: through everything in one
// process and through processes for each part, by turns with mosquitto.
func devicesTable(ctx context.Context, o options, peerbench string, mosquitto *server) error {
	const devices = 100
	sites, stop, err := startSites(ctx, o, devices)
	if err != nil {
		return err
	}
	defer stop()
	rows := o.selected(deviceRows(sites[0], sites[1], mosquitto))
	if err := measureRows(ctx, o, peerbench, rows, o.rounds); err != nil {
		return err
	}
	fmt.Printf("\ntelemetry of devices, QoS 1, to an application that accepts each message; processes of the last column: %s\n", sites[1].names)
	printDevices(os.Stdout, rows)
	return nil
}

// deviceRows are loads that each server gets by turns: devices that send as fast as they are
// answered, and a thousand messages a second.
func deviceRows(up, parts, mosquitto *server) (rows []load) {
	// More than can be in flight: a device that finds no credit in time is told so, and its connection ends.
	const credit = "5000"
	over := func(p *server, protocol, scheme, addr string, args ...string) []string {
		return append([]string{protocol, "-url", scheme + "://" + addr, "-user", deviceUser, "-password", devicePassword,
			"-sink", p.url, "-sink-addr", "telemetry/" + deviceTenant, "-credit", credit}, args...)
	}
	mqtt := func(name string, args ...string) {
		if mosquitto != nil {
			rows = append(rows, load{name: "mosquitto, MQTT, " + name, server: mosquitto, first: true,
				args: append([]string{"mqtt", "-url", "mqtt://" + mosquitto.addr}, args...)})
		}
		args = append(args, "-addr", "telemetry")
		rows = append(rows,
			load{name: "sluice up, MQTT, " + name, server: up, args: over(up, "mqtt", "mqtt", up.mqtt, args...)},
			load{name: "sluice in parts, MQTT, " + name, server: parts, args: over(parts, "mqtt", "mqtt", parts.mqtt, args...)})
	}
	http := func(name string, args ...string) {
		rows = append(rows,
			load{name: "sluice up, HTTP, " + name, server: up, alone: true, args: over(up, "http", "http", up.addr, args...)},
			load{name: "sluice in parts, HTTP, " + name, server: parts, alone: true, args: over(parts, "http", "http", parts.addr, args...)})
	}
	for _, n := range []struct{ devices, window int }{{1, 500}, {10, 100}, {100, 1}} {
		mqtt(fmt.Sprintf("%d devices, %d in flight each", n.devices, n.window), "-pubs", strconv.Itoa(n.devices), "-window", strconv.Itoa(n.window))
	}
	for _, n := range []string{"1", "10", "100"} {
		http(n+" connections", "-conns", n)
	}
	mqtt("10 devices, 1,000 msg/s", "-pubs", "10", "-rate", "1000")
	http("10 connections, 1,000 msg/s", "-conns", "10", "-rate", "1000")
	return rows
}

// printDevices prints the medians, and how MQTT compares with mosquitto under the same load.
func printDevices(w io.Writer, rows []load) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "\tserver CPU us/msg\tfrom\tto\tto mosquitto\tmsg/s\tanswer p50 us\tp99 us\tend to end p50 us\tp99 us\teach process\t")
	yard := 0.0
	for _, r := range rows {
		mid := func(of func(result) float64) float64 { return median(r.results, of) }
		cpu, ratio := mid(func(x result) float64 { return x.cpu }), "-"
		each := "-"
		if len(r.server.with) > 0 {
			each = r.results[len(r.results)/2].each
		}
		if r.first {
			yard = cpu
		}
		if yard > 0 && !r.alone {
			ratio = fmt.Sprintf("%.2f", cpu/yard)
		}
		fmt.Fprintf(tw, "%s\t%.2f\t%.2f\t%.2f\t%s\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%s\t\n", r.name, cpu,
			slices.MinFunc(r.results, byCPU).cpu, slices.MaxFunc(r.results, byCPU).cpu, ratio, mid(func(x result) float64 { return x.rate }),
			mid(func(x result) float64 { return x.ack50 }), mid(func(x result) float64 { return x.ack99 }),
			mid(func(x result) float64 { return x.p50 }), mid(func(x result) float64 { return x.p99 }), each)
	}
	tw.Flush()
}
