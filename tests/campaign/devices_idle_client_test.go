package campaign_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// idleClientsEnv has this program be clients that are idle, and nothing else: a process
// has only so many descriptors, and what holds connections on one side of many
// should not be held by the one that tests.
const idleClientsEnv = "SLUICE_IDLE_CLIENTS"

func init() {
	if settings := os.Getenv(idleClientsEnv); settings != "" {
		if err := beIdle(settings); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// idleSettings are those of the process.
type idleSettings struct {
	Addr, Tenant string
	TLS          bool
	Clients      int
	KeepAlive    uint16 // seconds; they ping in half of it
	Subscribe    bool   // for commands, with quality of service 0, once a line comes on standard input
}

// idleReport is what it says when all are connected, and again at the end.
type idleReport struct {
	Took  time.Duration // until all were connected
	Lost  int           // connections that the server ended
	Deaf  int           // connections over which no ping was answered
	Pings int           // sent on each
	// Commands that came, and devices to which one came, where they are subscribed.
	Commands, Commanded int
}

// connecting is how many clients connect at a time.
const connecting = 64

// beIdle connects clients, reports, lets them ping until standard input ends, and
// reports again. It keeps neither a buffer nor a goroutine for any of them.
func beIdle(text string) error {
	var o idleSettings
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	began := time.Now()
	conns, err := connectAll(&o)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	report := idleReport{Took: time.Since(began)}
	if err := out.Encode(report); err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	if o.Subscribe {
		if _, err := in.ReadByte(); err != nil {
			return err
		}
		began = time.Now()
		if err := subscribeAll(conns); err != nil {
			return err
		}
		if err := out.Encode(idleReport{Took: time.Since(began)}); err != nil {
			return err
		}
	}
	stop := make(chan struct{})
	go func() {
		_, _ = in.ReadByte()
		close(stop)
	}()
	report.Pings = pingAll(conns, time.Duration(o.KeepAlive)*time.Second/2, stop)
	for _, c := range conns {
		answers, commands, alive := drained(c, report.Pings > 0)
		if report.Commands += commands; commands > 0 {
			report.Commanded++
		}
		if !alive {
			report.Lost++
		} else if report.Pings > 0 && answers == 0 {
			report.Deaf++
		}
		abort(c)
	}
	return out.Encode(report)
}

func connectAll(o *idleSettings) ([]net.Conn, error) {
	conns := make([]net.Conn, o.Clients)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	var config *tls.Config
	if o.TLS {
		// A listener of this test, with a certificate of an authority of this test.
		config = &tls.Config{InsecureSkipVerify: true}
	}
	for range connecting {
		all.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(conns) {
					return
				}
				login := mqttLogin{addr: o.Addr, source: i, tls: config, clientID: fmt.Sprint(transportName(o.TLS), "-", i),
					user: eventDevice(i) + "@" + o.Tenant, password: devicePass, keepAlive: o.KeepAlive}
				c, err := dialMQTT(login)
				for errors.Is(err, unavailable) {
					time.Sleep(time.Second)
					c, err = dialMQTT(login)
				}
				if err != nil {
					err = fmt.Errorf("client %d: %w", i, err)
					failed.Store(&err)
				}
				conns[i] = c
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return conns, nil
}

// pingAll has each connection ping every so often, not all at once, and returns how often
// each has.
func pingAll(conns []net.Conn, every time.Duration, stop chan struct{}) (rounds int) {
	const steps = 50
	tick := time.NewTicker(every / steps)
	defer tick.Stop()
	for step := 0; ; step++ {
		select {
		case <-stop:
			return step / steps
		case <-tick.C:
		}
		for i := step % steps; i < len(conns); i += steps {
			_, _ = conns[i].Write([]byte{mqttPingreq, 0})
		}
	}
}

// subscribeAll subscribes each for its device's commands.
func subscribeAll(conns []net.Conn) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range connecting {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(conns) && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				c := conns[i]
				_ = c.SetDeadline(time.Now().Add(patience))
				r := bufio.NewReaderSize(c, 16)
				if _, err := subscribed(c, r, 0); err != nil {
					err = fmt.Errorf("client %d: %w", i, err)
					failed.Store(&err)
				}
				_ = c.SetDeadline(time.Time{})
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// drained reads what came over a connection, and says whether it is open. Where something
// must have come it waits for that: a processor that has much to do lets a short time pass
// before anything is read.
func drained(c net.Conn, must bool) (pings, commands int, open bool) {
	r := bufio.NewReaderSize(c, 512)
	wait := time.Millisecond
	if must {
		wait = patience
	}
	for {
		_ = c.SetReadDeadline(time.Now().Add(wait))
		wait = time.Millisecond
		head, _, err := readMQTT(r)
		if err != nil {
			var timeout net.Error
			return pings, commands, errors.As(err, &timeout) && timeout.Timeout()
		}
		if head&0xf0 == mqttPublishHead {
			commands++
		} else {
			pings++
		}
	}
}

// idleClients is such a process.
type idleClients struct {
	cmd   *exec.Cmd
	lines *json.Decoder
	in    io.WriteCloser
}

// startIdleClients returns when all are connected.
func startIdleClients(t *testing.T, o idleSettings) (*idleClients, idleReport) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), idleClientsEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &idleClients{cmd: cmd, lines: json.NewDecoder(out), in: in}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return c, c.report(t)
}

func (c *idleClients) report(t *testing.T) (r idleReport) {
	t.Helper()
	if err := c.lines.Decode(&r); err != nil {
		t.Fatalf("the process with the clients said nothing: %v", err)
	}
	return r
}

// subscribe has the clients subscribe and returns when all have.
func (c *idleClients) subscribe(t *testing.T) idleReport {
	t.Helper()
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		t.Fatal(err)
	}
	return c.report(t)
}

// end has the clients look at what they got, and ends them.
func (c *idleClients) end(t *testing.T) idleReport {
	t.Helper()
	_ = c.in.Close()
	r := c.report(t)
	if err := c.cmd.Wait(); err != nil {
		t.Error(err)
	}
	return r
}
