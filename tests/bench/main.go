package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type options struct {
	sluice, dir string
	rounds      int
	size        int
	idle        int
	idleDevices int
	tables      string
	rows        *regexp.Regexp
	dur, warm   time.Duration
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == assertedCommand {
		if err := serveAsserted(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	o := options{}
	flag.StringVar(&o.sluice, "sluice", "bin/sluice", "the program to measure")
	flag.IntVar(&o.rounds, "rounds", 3, "interleaved rounds; five for a figure to quote")
	flag.IntVar(&o.size, "size", 256, "payload bytes")
	flag.IntVar(&o.idle, "idle", 8000, "idle AMQP connections")
	flag.IntVar(&o.idleDevices, "idle-devices", 0, "idle MQTT connections; 0 = as many as the limit of descriptors allows, 250,000 at most")
	flag.StringVar(&o.tables, "tables", "load,events,paced,growth,devices,commands,idle", "which tables to make")
	flag.Func("rows", "a pattern: measure only the rows whose name it matches", func(text string) (err error) {
		o.rows, err = regexp.Compile(text)
		return err
	})
	flag.DurationVar(&o.dur, "d", 4*time.Second, "time measured for each row and round")
	flag.DurationVar(&o.warm, "warm", time.Second, "time before measuring")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run starts the servers, measures and stops them again, whatever happens.
func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.dir = dir

	peerbench := filepath.Join(dir, "peerbench")
	build := exec.CommandContext(ctx, "go", "build", "-o", peerbench, ".")
	build.Dir = filepath.Join("tests", "bench", "peerbench")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build peerbench in %s: %w\n%s", build.Dir, err, out)
	}

	router, err := startRouter(ctx, o)
	if err != nil {
		return err
	}
	defer router.stop()
	asserted, err := startAsserted(ctx, o)
	if err != nil {
		return err
	}
	defer asserted.stop()
	mosquitto, err := startMosquitto(ctx, o)
	if err != nil {
		return err
	}
	defer mosquitto.stop()

	describeMachine(o, router, mosquitto)
	for _, table := range []struct {
		name   string
		rows   []load
		rounds int
		print  func([]load)
	}{
		{"load", loads(router, asserted, mosquitto), o.rounds, func(rows []load) { printTable(os.Stdout, rows) }},
		{"paced", paced(router, mosquitto), o.rounds, func(rows []load) { printPaced(os.Stdout, rows) }},
		{"growth", growth(router), min(o.rounds, 2), func(rows []load) { printGrowth(os.Stdout, rows) }},
	} {
		if !strings.Contains(o.tables, table.name) {
			continue
		}
		rows := o.selected(table.rows)
		if err := measureRows(ctx, o, peerbench, rows, table.rounds); err != nil {
			return err
		}
		table.print(rows)
	}
	if strings.Contains(o.tables, "devices") {
		if err := devicesTable(ctx, o, peerbench, mosquitto); err != nil {
			return err
		}
	}
	if strings.Contains(o.tables, "commands") {
		if err := commandsTable(ctx, o, peerbench); err != nil {
			return err
		}
	}
	router.stop() // it need not wait for what comes now
	asserted.stop()
	mosquitto.stop()
	if strings.Contains(o.tables, "idle") {
		if err := idle(ctx, o, peerbench); err != nil {
			return err
		}
		if err := idleDevices(ctx, o, peerbench); err != nil {
			return err
		}
	}
	if strings.Contains(o.tables, "events") {
		return events(ctx, o, peerbench)
	}
	return nil
}

// selected are the rows that were asked for.
func (o *options) selected(rows []load) []load {
	if o.rows == nil {
		return rows
	}
	return slices.DeleteFunc(rows, func(l load) bool { return !o.rows.MatchString(l.name) })
}

// measureRows measures every row in turn, several times.
func measureRows(ctx context.Context, o options, peerbench string, rows []load, rounds int) error {
	for round := range rounds {
		for i := range rows {
			res, err := measure(ctx, o, peerbench, &rows[i])
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, rows[i].name, err)
			}
			rows[i].results = append(rows[i].results, res)
			fmt.Fprintf(os.Stderr, "round %d/%d  %-54s %6.2f us/msg %8.0f msg/s\n", round+1, rounds, rows[i].name, res.cpu, res.rate)
		}
	}
	return nil
}

// load is one row of the table: a server and what it is made to do.
type load struct {
	name    string
	server  *server
	args    []string
	results []result
	yard    bool // the row that the others are compared with
	alone   bool // there is nothing to compare it with
	first   bool // the row that those behind it are compared with, in a table of growth
}

// result is what one run of peerbench found: CPU microseconds of the server a
// message, messages a second, and microseconds from end to end.
type result struct {
	cpu, rate, p50, p99, ack50, ack99 float64
	each                              string // CPU microseconds of each process
}

var resultLine = regexp.MustCompile(`([0-9]+) msg/s +srv +([0-9.]+) us/msg \( *[0-9]+%; ([0-9.+]*)\).* e2e p50 ([0-9]+) p99 ([0-9]+) us +ack p50 ([0-9]+) p99 ([0-9]+) us.* bad ([0-9]+)`)

func measure(ctx context.Context, o options, peerbench string, l *load) (result, error) {
	args := append([]string{l.args[0], "-label", "x", "-pid", l.server.pids(), "-size", strconv.Itoa(o.size),
		"-d", o.dur.String(), "-warm", o.warm.String()}, l.args[1:]...)
	out, err := exec.CommandContext(ctx, peerbench, args...).CombinedOutput()
	if err != nil {
		return result{}, fmt.Errorf("%w\n%s%s", err, out, l.server.log())
	}
	m := resultLine.FindSubmatch(out)
	if m == nil {
		return result{}, fmt.Errorf("no result in what peerbench printed\n%s%s", out, l.server.log())
	}
	if bad, _ := strconv.Atoi(string(m[8])); bad > 0 {
		return result{}, fmt.Errorf("%d messages or links failed\n%s%s", bad, out, l.server.log())
	}
	if err := conserved(out); err != nil {
		return result{}, fmt.Errorf("%w\n%s%s", err, out, l.server.log())
	}
	figure := func(i int) float64 {
		f, _ := strconv.ParseFloat(string(m[i]), 64)
		return f
	}
	return result{rate: figure(1), cpu: figure(2), each: string(m[3]), p50: figure(4), p99: figure(5), ack50: figure(6), ack99: figure(7)}, nil
}

var drainedLine = regexp.MustCompile(`drained: sent ([0-9]+) received ([0-9]+) acked ([0-9]+)`)

// conserved checks that what was sent was received once: a server that loses or
// repeats messages has no cost per message. peerbench says so for all loads but amqp-go.
func conserved(out []byte) error {
	m := drainedLine.FindSubmatch(out)
	if m == nil || string(m[1]) == string(m[2]) {
		return nil
	}
	return fmt.Errorf("%s messages sent, %s received", m[1], m[2])
}

func describeMachine(o options, router, mosquitto *server) {
	model := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(info); m != nil {
			model = string(m[1])
		}
	}
	version, _ := exec.Command(o.sluice, "--version").Output()
	fmt.Printf("%s, %d processors, %s, %s\n", model, runtime.NumCPU(), runtime.Version(),
		cmp.Or(strings.TrimSpace(string(version)), o.sluice))
	fmt.Printf("sluice router: listening after %d ms, %.1f MB resident when idle\n", router.ready.Milliseconds(), router.residentMB())
	if mosquitto == nil {
		fmt.Println("mosquitto is not installed (Debian package mosquitto): no yardstick in this run")
	} else {
		fmt.Printf("%s\n", mosquitto.version)
	}
	fmt.Printf("%d bytes a message, %s a row and round, %d rounds\n", o.size, o.dur, o.rounds)
}
