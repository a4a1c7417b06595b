package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

// events measures stored events, against RabbitMQ with a durable queue: what is
// accepted has been synced, on both.
func events(ctx context.Context, o options, peerbench string) error {
	sluice, err := startEvents(ctx, o)
	if err != nil {
		return err
	}
	defer sluice.stop()
	rabbit, err := startRabbitMQ(ctx, o)
	if err != nil {
		return err
	}
	defer rabbit.stop()
	middle, slow, err := syncTime(o.dir)
	if err != nil {
		return err
	}
	fmt.Printf("\nstored events: %d bytes, durable; a write of 4 KiB with its sync takes p50 %d us, p99 %d us\n", o.size, middle.Microseconds(), slow.Microseconds())
	if rabbit == nil {
		fmt.Println("RabbitMQ is not installed (Debian package rabbitmq-server): no comparison in this run")
	} else {
		fmt.Printf("%s: listening after %d ms, %.0f MB resident when idle; sluice up: %d ms, %.0f MB\n",
			rabbit.version, rabbit.ready.Milliseconds(), rabbit.residentMB(), sluice.ready.Milliseconds(), sluice.residentMB())
	}
	rows := o.selected(eventLoads(sluice, rabbit))
	if err := measureRows(ctx, o, peerbench, rows, o.rounds); err != nil {
		return err
	}
	printEvents(os.Stdout, rows)
	return nil
}

// eventTenant and eventDevices are whom the events are from: more devices than there are partitions.
const (
	eventTenant  = "BENCH"
	eventDevices = "1000"
	// So many events may be on their way from senders to receivers, so that what goes in also
	// comes out: few suit RabbitMQ, whose queue slows down as it grows, many suit a log.
	few, many = 1000, 20_000
)

// eventLoads are the rows of the table of stored events: the servers by turns, with the same messages.
func eventLoads(sluice, rabbit *server) (rows []load) {
	add := func(name string, args ...string) {
		args = append([]string{"amqp-queue", "-durable", "-devices", eventDevices}, args...)
		rows = append(rows, load{name: "sluice up, " + name, server: sluice,
			args: append(slices.Clone(args), "-url", sluice.url, "-addr", "event/"+eventTenant)})
		if rabbit != nil {
			rows = append(rows, load{name: "RabbitMQ, " + name, server: rabbit,
				args: append(slices.Clone(args), "-url", rabbit.url, "-addr", "/amq/queue/"+rabbitQueue)})
		}
	}
	for _, n := range []struct{ senders, receivers, out int }{{1, 1, few}, {10, 1, few}, {10, 10, few}, {10, 1, many}, {10, 10, many}} {
		add(fmt.Sprintf("%d to %d, %d on their way", n.senders, n.receivers, n.out), "-senders", strconv.Itoa(n.senders),
			"-receivers", strconv.Itoa(n.receivers), "-outstanding", strconv.Itoa(n.out))
	}
	add("1 to 1, 1,000 events/s", "-rate", "1000")
	add("10 to 1, 1,000 events/s", "-senders", "10", "-rate", "100")
	return rows
}

// startEvents starts everything in one process, with the event store in SQLite.
func startEvents(ctx context.Context, o options) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.dir, "events-")
	if err != nil {
		return nil, err
	}
	config, users := filepath.Join(dir, "sluice.yaml"), filepath.Join(dir, "identities.yaml")
	for file, text := range map[string]string{
		config: fmt.Sprintf("insecure: true\nlog: {level: warn}\nlisteners: [{role: northbound, address: %q}]\nevents: {store: sqlite, max-bytes: 0}\n", addr),
		users:  identities,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	s, err := start(ctx, addr, o.sluice, "up", "--data", filepath.Join(dir, "data"), "--config", config, "--identities", users)
	if err != nil {
		return nil, err
	}
	s.url = "amqp://" + login + addr
	return s, nil
}

// syncTime is how long it takes to write a page and have it on the disk below a folder, in the middle and
// in the worst of a hundred cases.
func syncTime(dir string) (middle, slow time.Duration, err error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	page := make([]byte, 4096)
	times := make([]time.Duration, 200)
	for i := range times {
		began := time.Now()
		if _, err := f.Write(page); err != nil {
			return 0, 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, 0, err
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times[len(times)/2], times[len(times)*99/100], nil
}

// printEvents prints what an event costs, and how long its sender and its receiver wait.
func printEvents(w io.Writer, rows []load) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "stored events\tevents/s in and out\tserver CPU us/event\tfrom\tto\tack p50 us\tp99 us\tend to end p50 us\tp99 us\t")
	for _, r := range rows {
		mid := func(of func(result) float64) float64 { return median(r.results, of) }
		fmt.Fprintf(tw, "%s\t%.0f\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%.0f\t\n", r.name, mid(func(x result) float64 { return x.rate }),
			mid(func(x result) float64 { return x.cpu }), slices.MinFunc(r.results, byCPU).cpu, slices.MaxFunc(r.results, byCPU).cpu,
			mid(func(x result) float64 { return x.ack50 }), mid(func(x result) float64 { return x.ack99 }),
			mid(func(x result) float64 { return x.p50 }), mid(func(x result) float64 { return x.p99 }))
	}
	tw.Flush()
}
