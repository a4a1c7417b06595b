package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/spf13/cobra"
)

// consumeFlags say where to consume from, what, and how to print it.
type consumeFlags struct {
	applicationFlags
	consumeFilter
	output  string
	count   int
	once    bool // end when the connection is lost
	release bool
}

func newConsumeCommand() *cobra.Command {
	var f consumeFlags
	cmd := &cobra.Command{
		Use:   "consume telemetry|event TENANT",
		Short: "Print the messages of a tenant's devices, one a line",
		Long: `Print the messages of a tenant's devices, one a line, until interrupted: to
standard output; what the connection does goes to standard error. Each message
is accepted once it is printed. A notification of how long a device can be
reached (a ttd) is told in words. -o json prints all there is of a message, one
object a line: annotations, such as x-opt-retain and the trace context, too.

A connection that is lost is made again, after 0.5 s at first and 30 s at most;
what was not accepted comes again then. A wrong user or a missing permission
ends the command, and so does a router that cannot be reached at the start.

Filters choose what is printed; all that are given have to match, and of the
same one given several times any. * stands for any run of characters, ? for one.
A consumer with filters takes ALL messages that it is given, also those that it
does not print: another consumer of the tenant does not get them. With --release
telemetry that does not match is released instead: its device learns that nobody
took it, as without a consumer. Events that were released would come again and
again, so there it is refused. How many were not printed is told at the end.

Exit code 0: interrupted, or --count messages were printed. Exit code 1: the
first connection failed, the permission is missing, or printing failed; on the
machine of an installation also when there is no such tenant.
` + applicationFlagsHelp,
		Example: `  sluice consume telemetry DEMO
  sluice consume event DEMO --device 'meter-*' --since 10m -o json
  sluice consume event DEMO --ttd-only
  sluice consume telemetry DEMO --property site=Kiel --content-type 'text/*' -n 10
  sluice consume telemetry ACME --url amqps://host:15671 --ca ca.crt --user shop --password ...`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 || args[0] != "telemetry" && args[0] != "event" {
				return errors.New("expected telemetry or event, and a tenant: sluice consume telemetry TENANT")
			}
			return checkName("tenant", args[1])
		},
		ValidArgsFunction: completeConsume,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(args[0]); err != nil {
				return err
			}
			if err := f.complete(); err != nil {
				return err
			}
			if err := f.missing(cmd.Context(), args[1], ""); err != nil {
				return err
			}
			c := &consumer{consumeFlags: &f, address: args[0] + "/" + args[1], out: cmd.OutOrStdout(), info: cmd.ErrOrStderr()}
			return c.run(cmd.Context())
		},
	}
	f.applicationFlags.add(cmd.Flags())
	f.consumeFilter.add(cmd.Flags())
	cmd.Flags().IntVarP(&f.count, "count", "n", 0, "stop after so many printed messages")
	cmd.Flags().BoolVar(&f.release, "release", false, "release telemetry that does not match instead of taking it")
	cmd.Flags().BoolVar(&f.once, "no-reconnect", false, "end when the connection is lost")
	outputFlag(cmd, &f.output)
	return cmd
}

func (f *consumeFlags) check(kind string) error {
	if _, err := checkOutput(f.output); err != nil {
		return err
	}
	if f.count < 0 {
		return fmt.Errorf("--count %d: expected a number of messages, or 0 for no end", f.count)
	}
	if f.release && kind == "event" {
		return errors.New("--release is for telemetry: a released event would come again and again")
	}
	return f.consumeFilter.compile(time.Now())
}

// consumer prints messages until its context ends.
type consumer struct {
	*consumeFlags
	address   string
	out, info io.Writer

	printed, passed int
	connected       bool // once, at least
	delay           time.Duration
}

// How long a consumer waits before it connects again: doubled each time.
const (
	minReconnect = 500 * time.Millisecond
	maxReconnect = 30 * time.Second
)

// fatal is an error that connecting again does not mend.
type fatal struct{ error }

func (c *consumer) run(ctx context.Context) error {
	defer c.sum()
	for {
		err := c.session(ctx)
		var f fatal
		switch {
		case ctx.Err() != nil || err == nil:
			return nil
		case errors.As(err, &f):
			return f.error
		case !c.connected || c.once || hopeless(err):
			return c.explain(err)
		}
		c.delay = min(max(2*c.delay, minReconnect), maxReconnect)
		wait := c.delay/2 + rand.N(c.delay/2+1)
		fmt.Fprintf(c.info, "%s; connecting again in %s\n", oneLine(plainError(err).Error()), wait.Round(100*time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// explain says what a person can do about an error.
func (c *consumer) explain(err error) error {
	if !notGranted(err) {
		return err
	}
	return c.grantable(fmt.Errorf("%s may not consume from %s: %w", c.user, c.address, plainError(err)), "--read "+quoted(c.address))
}

// session consumes on one connection. It returns nil when enough was printed.
func (c *consumer) session(ctx context.Context) error {
	conn, err := c.dial(ctx, "sluice-consume")
	if err != nil {
		return fmt.Errorf("connect to %s: %w", c.url, plainError(err))
	}
	defer conn.Close()
	session, err := conn.NewSession(ctx, nil)
	if err != nil {
		return err
	}
	receiver, err := session.NewReceiver(ctx, c.address, &goamqp.ReceiverOptions{Credit: 100})
	if err != nil {
		return fmt.Errorf("consume from %s: %w", c.address, err)
	}
	c.hello()
	for c.count == 0 || c.printed < c.count {
		m, err := receiver.Receive(ctx, nil)
		if err != nil {
			return err
		}
		c.delay = 0
		if err := c.take(context.WithoutCancel(ctx), receiver, m); err != nil {
			return err
		}
	}
	return nil
}

func (c *consumer) hello() {
	again := ""
	if c.connected {
		again = " again"
	}
	c.connected = true
	fmt.Fprintf(c.info, "waiting%s for messages on %s; Ctrl-C ends\n", again, c.address)
}

// take prints a message, or not, and settles it.
func (c *consumer) take(ctx context.Context, receiver *goamqp.Receiver, m *goamqp.Message) error {
	if !c.match(m) {
		c.passed++
		if c.release {
			return receiver.ReleaseMessage(ctx, m)
		}
		return receiver.AcceptMessage(ctx, m)
	}
	if err := printMessage(c.out, c.output == "json", m); err != nil {
		return fatal{err}
	}
	c.printed++
	return receiver.AcceptMessage(ctx, m)
}

// sum tells what the filters kept from being seen.
func (c *consumer) sum() {
	if c.passed == 0 {
		return
	}
	what := "taken"
	if c.release {
		what = "released"
	}
	fmt.Fprintf(c.info, "%s printed; %s did not match and %s %s\n", counted(c.printed, "message"), counted(c.passed, "message"),
		map[bool]string{true: "was", false: "were"}[c.passed == 1], what)
}
