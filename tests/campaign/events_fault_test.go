package campaign_test

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

const faultPause = 100 * time.Millisecond // between two uploads of a device

// faultLoad is how many devices there are, how many bytes their events have, and how much more
// a process may have resident at its peak while the store is in trouble. In full, devices send
// more than the router lets wait to be stored, which is 64 MiB.
func faultLoad() (devices, padding, memory int) {
	if runs() == full {
		return 600, 60_000, 256 << 20
	}
	return 40, 8000, 64 << 20
}

// TestEventsDiskFull fills the disk below the events.
func TestEventsDiskFull(t *testing.T) {
	t.Parallel()
	s := newEventSite(t, 1, "")
	data := s.data("function-identity-0")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	needed(t, "the right to mount a file system", privileged("mount", "-t", "tmpfs", "-o",
		fmt.Sprintf("size=256m,mode=0700,uid=%d,gid=%d", os.Getuid(), os.Getgid()), "tmpfs", data))
	t.Cleanup(func() {
		if err := privileged("umount", "-l", data); err != nil {
			t.Error(err)
		}
	})
	s.startUp(t)
	ballast := filepath.Join(data, "ballast")
	trouble(t, s, func() { fill(t, ballast) }, func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	})
}

// fill writes to a file until nothing more fits.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; size /= 2 {
		for block := make([]byte, size); err == nil; {
			_, err = f.Write(block)
		}
		err = nil
	}
}

// TestEventsReadOnly makes the files of the event store ones that nobody may write to.
func TestEventsReadOnly(t *testing.T) {
	t.Parallel()
	s := newEventSite(t, 1, "")
	s.startUp(t)
	folder := s.data("function-identity-0")
	probe := filepath.Join(folder, "probe")
	writeFile(t, probe, "")
	needed(t, "a file system and the right to make files immutable", privileged("chattr", "+i", probe))
	if err := privileged("chattr", "-i", probe); err != nil {
		t.Fatal(err)
	}
	change := func(how string) error {
		files, err := filepath.Glob(filepath.Join(folder, "events.db*"))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("there is no events.db: %v", err)
		}
		return privileged("chattr", append([]string{how}, files...)...)
	}
	t.Cleanup(func() { _ = change("-i") })
	trouble(t, s, func() {
		if err := change("+i"); err != nil {
			t.Fatal(err)
		}
	}, func() {
		if err := change("-i"); err != nil {
			t.Fatal(err)
		}
	})
}

// TestEventsPostgresReadOnly makes the database one that takes no writes, as one is
// that became a replica.
func TestEventsPostgresReadOnly(t *testing.T) {
	t.Parallel()
	db := pgtest.Start(t)
	s := newEventSite(t, 1, fmt.Sprintf("events: {store: postgres, url: %q}\n", db.URL))
	s.startParts(t)
	turn := func(how string) {
		db.Exec(t, "ALTER SYSTEM SET default_transaction_read_only = "+how)
		db.Exec(t, "SELECT pg_reload_conf()")
	}
	trouble(t, s, func() { turn("on") }, func() { turn("off") })
}

// TestEventsStoreSlow has every write to the event store take a second more.
func TestEventsStoreSlow(t *testing.T) {
	t.Parallel()
	s := newEventSite(t, 1, "")
	var slow atomic.Bool
	s.events = freeAddr(t)
	s.startEvents(t)
	proxy := startEventProxy(t, s, func(typ string) time.Duration {
		if slow.Load() && (strings.HasSuffix(typ, ".append") || strings.HasSuffix(typ, ".settle")) {
			return time.Second
		}
		return 0
	})
	s.startFunction(t)
	s.routers[0].start(t, proxy)
	s.startAdapters(t)
	trouble(t, s, func() { slow.Store(true) }, func() { slow.Store(false) })
}

// startEventProxy passes calls on to the functions of the event store, each after a while.
func startEventProxy(t *testing.T, s *eventSite, wait func(typ string) time.Duration) (addr string) {
	t.Helper()
	target, err := url.Parse("https://" + s.events)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: s.mutual(t, "router-router-0"), MaxIdleConnsPerHost: 100}
	pass := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:    transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	addr = freeAddr(t)
	server := &http.Server{Addr: addr, TLSConfig: s.mutual(t, "function-proxy-0"), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(wait(r.Header.Get("Ce-Type"))) // whether or not the caller is patient
		pass.ServeHTTP(w, r)
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.ListenAndServeTLS("", "") })
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
		serving.Wait()
	})
	return addr
}

// privileged runs a command as root.
func privileged(name string, args ...string) error {
	args = append([]string{name}, args...)
	if os.Geteuid() != 0 {
		args = append([]string{"sudo", "-n"}, args...)
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return err
}

// trouble has devices send events while the store breaks, and until it is mended: they are
// told to come again, telemetry goes on, memory stays bounded, nothing that was
// acknowledged is lost, and no process is started again.
func trouble(t *testing.T, s *eventSite, breaks, mend func()) {
	t.Helper()
	devices, padding, memory := faultLoad()
	s.register(t, devices)
	f := startLoad(t, s, devices, faultPause, padding)
	s.northbound = s.routers[0].northbound
	consume(t, s.parts, eventTenant)
	telemetry := startTelemetry(t, f)
	processes := []*part{s.routers[0].part}
	for _, p := range []*part{s.adapter, s.eventsPart, s.function} {
		if p != nil {
			processes = append(processes, p)
		}
	}
	f.await(t, "accepted", f.accepted.Load, 2*devices)
	f.until(t, "delivered", func() bool { return f.delivered.Load() > int64(devices) })
	before := make([]int, len(processes))
	for i, p := range processes {
		before[i] = p.used(t).resident
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0) // the peak begins here
	}
	breaks()
	refused, sent := f.refused.Load(), telemetry.Load()
	f.until(t, "refused", func() bool { return f.refused.Load() >= refused+5*int64(devices) })
	f.until(t, "refused while telemetry goes on", func() bool { return telemetry.Load() >= sent+100 })
	for i, p := range processes {
		peak := p.peak(t)
		t.Logf("sluice %s: %d MB resident before, %d at its peak", p.name, before[i]>>20, peak>>20)
		if peak > before[i]+memory {
			t.Errorf("sluice %s had %d MB resident while the store was in trouble; before, %d", p.name, peak>>20, before[i]>>20)
		}
	}
	accepted, told := f.accepted.Load(), f.refused.Load()-refused
	mend()
	began := time.Now()
	f.until(t, "accepted after the store was mended", func() bool { return f.accepted.Load() >= accepted+2*int64(devices) })
	t.Logf("%d refused while the store was in trouble, %d telemetry messages accepted meanwhile; %d events were accepted %s after it was mended",
		told, telemetry.Load()-sent, 2*devices, time.Since(began).Round(time.Millisecond))
	f.stop()
	f.drain(t)
	s.settled(t)
	f.finish()
	f.check(t, func(first, again *gotEvent) bool { return false })
	for _, p := range processes {
		select {
		case <-p.done:
			t.Errorf("sluice %s ended", p.name)
		default:
		}
	}
}

// startTelemetry sends telemetry until the test ends, and counts what was accepted.
func startTelemetry(t *testing.T, f *fleetRun) *atomic.Int64 {
	t.Helper()
	accepted := &atomic.Int64{}
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(devicePause):
			}
			if status, _, _ := sendEvent(f.client, f.site.device, "telemetry", eventDevice(0), 0, []byte("reading")); status == http.StatusAccepted {
				accepted.Add(1)
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		sending.Wait()
	})
	return accepted
}

// peak is what the process had resident at most, 0 where that is not told.
func (p *part) peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if text, is := strings.CutPrefix(line, "VmHWM:"); is {
			var kib int
			_, _ = fmt.Sscan(text, &kib)
			return kib << 10
		}
	}
	return 0
}
