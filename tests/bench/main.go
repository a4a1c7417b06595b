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
	"strconv"
	"strings"
	"syscall"
	"time"
)

type options struct {
	sluice, dir string
	rounds      int
	size        int
	dur, warm   time.Duration
}

func main() {
	o := options{}
	flag.StringVar(&o.sluice, "sluice", "bin/sluice", "the program to measure")
	flag.IntVar(&o.rounds, "rounds", 3, "interleaved rounds; five for a figure to quote")
	flag.IntVar(&o.size, "size", 256, "payload bytes")
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
	mosquitto, err := startMosquitto(ctx, o)
	if err != nil {
		return err
	}
	defer mosquitto.stop()

	describeMachine(o, router, mosquitto)
	rows := loads(router, mosquitto)
	for round := range o.rounds {
		for i := range rows {
			res, err := measure(ctx, o, peerbench, &rows[i])
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, rows[i].name, err)
			}
			rows[i].results = append(rows[i].results, res)
			fmt.Fprintf(os.Stderr, "round %d/%d  %-54s %6.2f us/msg %8.0f msg/s\n", round+1, o.rounds, rows[i].name, res.cpu, res.rate)
		}
	}
	printTable(os.Stdout, rows)
	return nil
}

// load is one row of the table: a server and what it is made to do.
type load struct {
	name    string
	server  *server
	args    []string
	results []result
	yard    bool // the row that the others are compared with
}

func loads(router, mosquitto *server) []load {
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
			rows = append(rows, load{
				name:   fmt.Sprintf("sluice router, %s, %d+%d", kind.name, pairs, pairs),
				server: router,
				args: append([]string{"amqp-raw", "-url", router.url, "-addr", "telemetry/bench%d", "-pairs", strconv.Itoa(pairs)},
					kind.args...),
			})
		}
	}
	// The rows above come in writes of up to a hundred messages, which is the best
	// case of a server that works in batches; here every message is a write of its own.
	return append(rows, load{name: "sluice router, at least once, 1+1, unbatched (go-amqp)", server: router,
		args: []string{"amqp-go", "-url", router.url, "-addr", "telemetry/bench%d", "-pairs", "1"}})
}

// result is what one run of peerbench found: CPU microseconds of the server a
// message, and messages a second.
type result struct{ cpu, rate float64 }

var resultLine = regexp.MustCompile(`([0-9]+) msg/s +srv +([0-9.]+) us/msg.* bad ([0-9]+)`)

func measure(ctx context.Context, o options, peerbench string, l *load) (result, error) {
	args := append([]string{l.args[0], "-label", "x", "-pid", strconv.Itoa(l.server.pid()), "-size", strconv.Itoa(o.size),
		"-d", o.dur.String(), "-warm", o.warm.String()}, l.args[1:]...)
	out, err := exec.CommandContext(ctx, peerbench, args...).CombinedOutput()
	if err != nil {
		return result{}, fmt.Errorf("%w\n%s%s", err, out, l.server.log())
	}
	m := resultLine.FindSubmatch(out)
	if m == nil {
		return result{}, fmt.Errorf("no result in what peerbench printed\n%s%s", out, l.server.log())
	}
	if bad, _ := strconv.Atoi(string(m[3])); bad > 0 {
		return result{}, fmt.Errorf("%d messages or links failed\n%s%s", bad, out, l.server.log())
	}
	if err := conserved(out); err != nil {
		return result{}, fmt.Errorf("%w\n%s%s", err, out, l.server.log())
	}
	rate, _ := strconv.ParseFloat(string(m[1]), 64)
	cpu, _ := strconv.ParseFloat(string(m[2]), 64)
	return result{cpu: cpu, rate: rate}, nil
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
