package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sluice-iot/sluice/localstack/stack"
)

// startTimeout bounds how long all parts may take to start.
const startTimeout = 3 * time.Minute

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "local-aws:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("local-aws", flag.ContinueOnError)
	data := f.String("data", "build/local-aws", "`folder` for what is made; what it held is removed")
	o := stack.Options{Repository: ".", Log: slog.New(slog.NewTextHandler(stderr, nil))}
	f.StringVar(&o.Sluice, "sluice", "bin/sluice", "the `program`")
	f.StringVar(&o.Archive, "archive", "build/aws/sluice-function-amd64.zip", "the `archive` of the functions")
	f.DurationVar(&o.Idle, "idle", 5*time.Minute, "after how `long` without work an instance of a function ends")
	f.StringVar(&o.Device, "device", "127.0.0.1:8080", "`address` of the HTTP adapter")
	f.StringVar(&o.Northbound, "northbound", "127.0.0.1:15672", "`address` for applications (AMQP)")
	f.StringVar(&o.Management, "management", "127.0.0.1:28080", "`address` of the function URL")
	f.StringVar(&o.Invoke, "invoke", "127.0.0.1:9001", "`address` of the Invoke API")
	if err := f.Parse(args); err != nil {
		return err
	}
	o.Data = *data
	for _, path := range []*string{&o.Repository, &o.Data, &o.Sluice, &o.Archive} { // the parts start in folders of their own
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s, err := stack.Start(starting, o)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Fprintf(stdout, hint, stack.Tenant, s.Northbound, stack.App, stack.AppPassword,
		stack.DeviceUser, stack.DevicePassword, s.Device, stack.Tenant,
		stack.Operator, stack.OperatorPassword, s.Management, stack.Tenant, stack.DeviceID, filepath.Join(o.Data, "logs"))
	<-ctx.Done()
	return nil
}

const hint = `
The functions, their tables and queues, a router and an HTTP adapter are here. Wait for messages as an application:

  bin/sluice consume telemetry %s --url amqp://%s --user %s --password %s

and send one as a device:

  curl -i -u %s:%s -H 'QoS-Level: 1' -d 'hello' http://%s/telemetry

An event, to /event in the place of /telemetry, waits for an application: sluice consume event %s. The management API:

  curl -u %s:%s http://%s/v1/devices/%s/%s

Logs are in %s. Ctrl-C ends everything.
`
