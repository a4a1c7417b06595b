package kubernetes_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestKubernetes applies the overlays, and runs the plain one.
func TestKubernetes(t *testing.T) {
	n := start(t)
	t.Run("overlays", func(t *testing.T) { testOverlays(t, n) })
	t.Run("page", func(t *testing.T) { testPage(t, n) })
	t.Run("plain", func(t *testing.T) { testPlain(t, n) })
	t.Run("knative", func(t *testing.T) { testKnative(t, n) })
}

func testPlain(t *testing.T, n *node) {
	s := install(t, n, "sluice", [3]int{30671, 30443, 30883})
	// The DNS of this node keeps nothing, so an adapter knows a new router after ten
	// seconds, not after forty.
	s.apply(t, "-k", overlay(t, "plain", `
patches:
  - target: {kind: Deployment, name: sluice-router}
    patch: |
      - {op: replace, path: /spec/minReadySeconds, value: 15}
`))
	s.rolledOut(t, "sluice-functions", "sluice-router", "sluice-adapter-http", "sluice-adapter-mqtt")
	s.forwardManagement(t)
	s.manage(t, http.MethodPost, "/tenants/"+tenant, map[string]any{})
	for _, id := range append([]string{"meter", "pump"}, sensors...) {
		s.device(t, id)
	}
	a := consume(t, s)
	t.Run("telemetry", func(t *testing.T) {
		code := 0
		eventually(t, "an upload arrives", func() (err error) {
			if code, err = s.upload(t.Context(), s.client(), telemetry, "meter", "from afar"); err == nil && code != http.StatusAccepted {
				err = fmt.Errorf("answered with %d", code)
			}
			return err
		})
		if !a.has("from afar") {
			t.Error("acknowledged, but not arrived")
		}
	})
	t.Run("telemetry by MQTT", func(t *testing.T) { testPublish(t, s, a, "meter") })
	t.Run("events that nobody waits for", func(t *testing.T) { testKept(t, s) })
	e := consumeEvents(t, s)
	t.Run("events", func(t *testing.T) { testEvents(t, s, e) })
	t.Run("memory", s.memory)
	t.Run("a device is disabled", func(t *testing.T) { testDisabled(t, s) })
	t.Run("a router is killed", func(t *testing.T) { testKilled(t, s, a, e) })
	t.Run("rolling update of routers", func(t *testing.T) { testUpdate(t, s, a, e, "sluice-router") })
	t.Run("rolling update of adapters", func(t *testing.T) { testUpdate(t, s, a, e, "sluice-adapter-http", "sluice-adapter-mqtt") })
	t.Run("rolling update of functions", func(t *testing.T) { testUpdate(t, s, a, e, "sluice-functions") })
}

// testDisabled disables a device that the adapters know, and expects that each of
// them refuses it without waiting for what they keep to end, and closes what the
// device has open.
func testDisabled(t *testing.T, s *site) {
	for range 20 {
		if code, err := s.upload(t.Context(), fresh(s), telemetry, "pump", "before"); err != nil || code != http.StatusAccepted {
			t.Fatalf("before: %d, %v", code, err)
		}
	}
	connected := newMQTTSender(s, "pump")
	defer connected.close()
	if code, err := connected.send(t.Context(), telemetry, "before"); err != nil || code != http.StatusAccepted {
		t.Fatalf("before, by MQTT: %d, %v", code, err)
	}
	began := time.Now()
	s.manage(t, http.MethodPatch, "/devices/"+tenant+"/pump", map[string]any{"enabled": false})
	eventually(t, "every adapter refuses it", func() error {
		for range 20 { // on connections of their own, so at both adapters
			code, err := s.upload(t.Context(), fresh(s), telemetry, "pump", "after")
			if err != nil {
				return err
			}
			if code != http.StatusNotFound {
				return fmt.Errorf("answered with %d", code)
			}
		}
		return nil
	})
	took := time.Since(began)
	t.Logf("refused everywhere within %s", took.Round(time.Millisecond))
	if err := connected.awaitEnd(); err != nil {
		t.Errorf("the connection by MQTT: %v", err)
	}
	if code, err := connected.send(t.Context(), telemetry, "after"); err != nil || code != http.StatusForbidden {
		t.Errorf("after, by MQTT: %d, %v", code, err)
	}
	if took > 10*time.Second {
		t.Error("that was not by the notice")
	}
	if code, err := s.upload(t.Context(), fresh(s), telemetry, "meter", "another"); err != nil || code != http.StatusAccepted {
		t.Errorf("another device: %d, %v", code, err)
	}
}

// fresh makes a client whose connection is a new one.
func fresh(s *site) *http.Client {
	c := s.client()
	c.Transport.(*http.Transport).DisableKeepAlives = true
	return c
}

// testUpdate replaces every pod of deployments while devices upload.
func testUpdate(t *testing.T, s *site, a, e *application, deployments ...string) {
	pods := func() (all []string) {
		for _, d := range deployments {
			all = append(all, s.pods(t, d)...)
		}
		return all
	}
	before := pods()
	check := work(t, s, strings.Join(deployments, " and "), a, e)
	time.Sleep(2 * time.Second) // load before and after it
	for _, d := range deployments {
		s.kubectl(t, "rollout", "restart", "-n", s.namespace, "deployment/"+d)
	}
	s.rolledOut(t, deployments...)
	eventually(t, "the old pods end", func() error {
		for _, p := range pods() {
			if slices.Contains(before, p) {
				return errors.New(p + " is there")
			}
		}
		return nil
	})
	time.Sleep(2 * time.Second)
	check()
}

// work has devices send telemetry, by HTTP and by MQTT, and events until check is called.
func work(t *testing.T, s *site, name string, a, e *application) (check func()) {
	t.Helper()
	meters := slices.Repeat([]string{"meter"}, 8)
	uploads := begin(t, s, name+", HTTP", telemetry, newHTTPSender, meters, 20*time.Millisecond)
	publishes := begin(t, s, name+", MQTT", telemetry, func(s *site, device string) sender { return newMQTTSender(s, device) }, meters, 40*time.Millisecond)
	events := begin(t, s, name+", HTTP", event, newHTTPSender, sensors, 50*time.Millisecond)
	return func() {
		t.Helper()
		uploads.check(t, a)
		publishes.check(t, a)
		events.check(t, e)
	}
}

// testKilled has each router die while devices upload.
func testKilled(t *testing.T, s *site, a, e *application) {
	check := work(t, s, "killed", a, e)
	time.Sleep(2 * time.Second)
	for _, pod := range s.pods(t, "sluice-router") {
		// The router that the application is at is one of them; the other one is back before it goes.
		out, err := exec.Command("pgrep", "-f", "-x", "/sluice-edge router").Output()
		if err != nil {
			t.Fatal(err)
		}
		for pid := range strings.FieldsSeq(string(out)) {
			if text, _ := os.ReadFile("/proc/" + pid + "/environ"); strings.Contains(string(text), "HOSTNAME="+pod+"\x00") {
				if err := exec.Command("kill", "-KILL", pid).Run(); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.kubectl(t, "wait", "-n", s.namespace, "pod/"+pod, "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "--timeout=60s")
		s.kubectl(t, "wait", "-n", s.namespace, "pod/"+pod, "--for=condition=Ready", "--timeout=60s")
		time.Sleep(3 * time.Second)
	}
	check()
}
