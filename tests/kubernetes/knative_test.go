package kubernetes_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// testKnative runs the overlay knative with a stand-in for Knative's controllers,
// which cannot be had here: the pods are those of the Knative Service's template,
// in a Deployment, and the test has the gateway that ends TLS and starts a pod
// when there is none. What is shown is that the parts prove themselves by the
// tokens of their service accounts, and that a device waits for a cold start.
func testKnative(t *testing.T, n *node) {
	n.script(t, "crds")
	// The public keys of the tokens are for everybody to read, as OpenID Connect has it.
	n.kubectl(t, "create", "clusterrolebinding", "issuer-discovery", "--clusterrole=system:service-account-issuer-discovery", "--group=system:unauthenticated")
	s := install(t, n, "sluice-knative", [3]int{31671, 31443, 31883}, "--knative")
	g := openGateway(t, s)
	s.apply(t, "-k", overlay(t, "knative", strings.ReplaceAll(onKnative, "NAME", g.name)))
	g.deploy(t)
	s.rolledOut(t, "sluice-router", "sluice-adapter-http", "sluice-adapter-mqtt")
	s.api = "https://" + g.address + "/v1"
	s.trust.RootCAs.AppendCertsFromPEM(g.ca)
	s.manage(t, http.MethodPost, "/tenants/"+tenant, map[string]any{})
	for _, id := range []string{"meter", "pump"} {
		s.device(t, id)
	}
	a := consume(t, s)
	for range 20 { // so that both adapters know it
		eventually(t, "an upload arrives", func() error { return s.accepted(t, telemetry, "meter", "by token") })
	}
	if !a.has("by token") {
		t.Error("acknowledged, but not arrived")
	}
	t.Run("by MQTT", func(t *testing.T) { testPublish(t, s, a, "meter") })
	t.Run("who may ask", func(t *testing.T) { testTokens(t, s, g) })
	t.Run("from zero", func(t *testing.T) {
		for try := 1; ; try++ {
			g.scale(t, 0)
			if err := s.accepted(t, telemetry, "meter", "known"); err != nil {
				t.Errorf("a device that the adapters know: %v", err)
			}
			if !g.running() {
				break
			}
			// What was changed a moment ago may have been on its way to the adapters, which
			// ask anew then: a router that was not reached hears of it after a second.
			if try == 3 {
				t.Error("it started functions")
				break
			}
		}
		began := time.Now()
		if err := s.accepted(t, telemetry, "pump", "unknown"); err != nil {
			t.Errorf("a device that they do not know: %v", err)
		}
		t.Logf("the upload of a device that no adapter knew took %s, the start of the pod %s", time.Since(began).Round(time.Millisecond), g.took.Round(time.Millisecond))
		if !a.has("known") || !a.has("unknown") {
			t.Error("acknowledged, but not arrived")
		}
	})
	t.Run("an event from zero", func(t *testing.T) { testEventFromZero(t, s, g) })
}

// testEventFromZero has a device send an event that nobody waits for while there are
// no functions. Where a pod starts more slowly than an adapter waits it comes again.
func testEventFromZero(t *testing.T, s *site, g *gateway) {
	g.scale(t, 0)
	tries, began := 0, time.Now()
	eventually(t, "an event is accepted", func() error {
		tries++
		return s.accepted(t, event, "meter", "kept")
	})
	t.Logf("the event was accepted %s after the first upload, at upload %d; the start of the pod took %s", time.Since(began).Round(time.Millisecond), tries, g.took.Round(time.Millisecond))
	e := consumeEvents(t, s)
	eventually(t, "the event comes", func() error {
		if !e.has("kept") {
			return errors.New("it did not")
		}
		return nil
	})
	if tries > 1 && g.took < 2*time.Second {
		t.Error("the upload did not wait for the start")
	}
	// What was answered with 503 may have been stored all the same.
	if n := e.times("kept"); n > tries {
		t.Errorf("it came %d times, and was sent %d times", n, tries)
	}
}

// onKnative gives the parts ports of the node, and the name of the gateway.
const onKnative = `
namespace: sluice-knative
patches:
  - target: {kind: Deployment}
    patch: |
      - {op: replace, path: /spec/minReadySeconds, value: 0}
      - {op: test, path: /spec/template/spec/containers/0/env/2/name, value: SLUICE_FUNCTIONS_IDENTITY}
      - {op: replace, path: /spec/template/spec/containers/0/env/2/value, value: "https://NAME"}
  - target: {kind: Deployment, name: sluice-router}
    patch: |
      - {op: test, path: /spec/template/spec/containers/0/env/5/name, value: SLUICE_FUNCTIONS_EVENTS}
      - {op: replace, path: /spec/template/spec/containers/0/env/5/value, value: "https://NAME"}
  - patch: |
      {apiVersion: v1, kind: Service, metadata: {name: sluice-router}, spec: {type: NodePort, ports: [{port: 5671, nodePort: 31671}]}}
  - patch: |
      {apiVersion: v1, kind: Service, metadata: {name: sluice-adapter-http}, spec: {type: NodePort, ports: [{port: 8443, nodePort: 31443}]}}
  - patch: |
      {apiVersion: v1, kind: Service, metadata: {name: sluice-adapter-mqtt}, spec: {type: NodePort, ports: [{port: 8883, nodePort: 31883}]}}
`

func (s *site) accepted(t *testing.T, kind, device, text string) error {
	t.Helper()
	code, err := s.upload(t.Context(), fresh(s), kind, device, text)
	if err == nil && code != http.StatusAccepted {
		err = fmt.Errorf("answered with %d", code)
	}
	return err
}

// testTokens asks the functions with tokens of several service accounts.
func testTokens(t *testing.T, s *site, g *gateway) {
	ask := func(typ string, token []string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+g.address, strings.NewReader(`{"tenant-id": "`+tenant+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range map[string]string{"ce-specversion": "1.0", "ce-type": typ, "ce-id": "1", "ce-source": "//sluice.local/test/1",
			"ce-tenantid": tenant, "Content-Type": "application/json"} {
			r.Header.Set(k, v)
		}
		if token != nil {
			r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(s.kubectl(t, append([]string{"create", "token", "-n", s.namespace}, token...)...)))
		}
		res, err := s.client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	const get, changes, stats = "io.sluice.tenant.get", "io.sluice.registry.changes", "io.sluice.eventstore.stats"
	for _, tt := range []struct {
		name, typ string
		token     []string
		want      int
	}{
		{"an adapter", get, []string{"sluice-adapter-http", "--audience=sluice-functions"}, 200},
		{"another adapter", get, []string{"sluice-adapter-mqtt", "--audience=sluice-functions"}, 200},
		{"a router", get, []string{"sluice-router", "--audience=sluice-functions"}, 200},
		{"an adapter that asks what is for routers", changes, []string{"sluice-adapter-http", "--audience=sluice-functions"}, 403},
		{"a router that asks about events", stats, []string{"sluice-router", "--audience=sluice-functions"}, 200},
		{"an adapter that asks about events", stats, []string{"sluice-adapter-http", "--audience=sluice-functions"}, 403},
		{"nobody", get, nil, 401},
		{"another account", get, []string{"default", "--audience=sluice-functions"}, 401},
		{"a token for something else", get, []string{"sluice-router"}, 401},
	} {
		if got := ask(tt.typ, tt.token); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// gateway stands for Knative: the name of the functions leads to it.
type gateway struct {
	s       *site
	name    string // host name in the cluster
	address string // from this machine
	ca      []byte // of the platform, not of the installation

	mu   sync.Mutex
	took time.Duration // the latest start
}

func openGateway(t *testing.T, s *site) *gateway {
	t.Helper()
	g := &gateway{s: s, name: "sluice-functions." + s.namespace + ".svc.cluster.local"}
	dir := t.TempDir()
	if out, err := exec.Command("../../bin/sluice", "certs", "--out", dir, "--host", g.name, "--host", address, "function/platform").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "function-platform.crt"), filepath.Join(dir, "function-platform.key"))
	if err != nil {
		t.Fatal(err)
	}
	if g.ca, err = os.ReadFile(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	g.address = l.Addr().String()
	srv := &http.Server{Handler: g, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}, ErrorLog: log.New(io.Discard, "", 0)}
	go srv.ServeTLS(l, "", "")
	t.Cleanup(func() { srv.Close() })
	s.kubectl(t, "create", "configmap", "-n", s.namespace, "sluice-functions-ca", "--from-file="+filepath.Join(dir, "ca.crt"))
	_, port, _ := net.SplitHostPort(g.address)
	file := filepath.Join(dir, "service.yaml")
	write(t, file, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: sluice-functions, namespace: %[1]s}
spec: {ports: [{name: https, port: 443, targetPort: %[2]s}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sluice-functions-1, namespace: %[1]s, labels: {kubernetes.io/service-name: sluice-functions}}
addressType: IPv4
ports: [{name: https, port: %[2]s}]
endpoints: [{addresses: ["%[3]s"]}]
`, s.namespace, port, address))
	s.apply(t, "-f", file)
	return g
}

// deploy makes a Deployment of the Knative Service's template as the API server
// has it, without instances.
func (g *gateway) deploy(t *testing.T) {
	t.Helper()
	type object = map[string]any
	var service struct {
		Spec struct {
			Template struct {
				Metadata object `json:"metadata"`
				Spec     object `json:"spec"`
			} `json:"template"`
		} `json:"spec"`
	}
	text := g.s.kubectl(t, "get", "services.serving.knative.dev", "-n", g.s.namespace, "sluice-functions", "-o=json")
	if err := json.Unmarshal([]byte(text), &service); err != nil {
		t.Fatal(err)
	}
	pod := service.Spec.Template.Spec
	delete(pod, "containerConcurrency")
	delete(pod, "timeoutSeconds")
	c := pod["containers"].([]any)[0].(object)
	c["env"] = append(c["env"].([]any), object{"name": "PORT", "value": "8080"})
	for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
		get := c[probe].(object)["httpGet"].(object)
		get["port"] = 8080
	}
	labels := object{"app.kubernetes.io/name": "sluice-functions"}
	deployment, err := json.Marshal(object{"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": object{"name": "sluice-functions", "namespace": g.s.namespace},
		"spec": object{"replicas": 0, "selector": object{"matchLabels": labels},
			"template": object{"metadata": object{"labels": service.Spec.Template.Metadata["labels"]}, "spec": pod}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "deployment.json")
	write(t, file, string(deployment))
	g.s.apply(t, "-f", file)
}

func (g *gateway) kubectl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := g.s.command(ctx, append(args, "-n", g.s.namespace)...).Output()
	return string(out), err
}

func (g *gateway) scale(t *testing.T, replicas int) {
	t.Helper()
	if _, err := g.kubectl("scale", "deployment/sluice-functions", fmt.Sprintf("--replicas=%d", replicas)); err != nil {
		t.Fatal(err)
	}
	if _, err := g.kubectl("wait", "pod", "-l", "app.kubernetes.io/name=sluice-functions", "--for=delete", "--timeout=50s"); err != nil {
		t.Fatal(err)
	}
}

// instance is the address of a pod that is ready, "" without one.
func (g *gateway) instance() string {
	out, _ := g.kubectl("get", "pods", "-l", "app.kubernetes.io/name=sluice-functions",
		`-o=jsonpath={range .items[?(@.status.containerStatuses[0].ready==true)]}{.status.podIP}{"\n"}{end}`)
	first, _, _ := strings.Cut(out, "\n")
	return first
}

func (g *gateway) running() bool { return g.instance() != "" }

// activate returns an instance, and starts one where there is none.
func (g *gateway) activate() (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ip := g.instance(); ip != "" {
		return ip, nil
	}
	began := time.Now()
	if _, err := g.kubectl("scale", "deployment/sluice-functions", "--replicas=1"); err != nil {
		return "", err
	}
	for range 300 {
		if ip := g.instance(); ip != "" {
			g.took = time.Since(began)
			return ip, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", fmt.Errorf("no instance within %s", time.Since(began))
}

// ServeHTTP holds a request until there is somebody to answer it.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	ip, err := g.activate()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: ip + ":8080"})
	p.ErrorLog = log.New(io.Discard, "", 0)
	p.ServeHTTP(w, r)
}
