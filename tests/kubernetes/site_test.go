package kubernetes_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

const (
	tenant = "ACME"
	secret = "a long secret"
)

// site is an installation on the node.
type site struct {
	*node
	namespace  string
	northbound string // URL of the routers, for applications
	uploads    string // URL of the HTTP adapters
	mqtt       string // address of the MQTT adapters

	dir      string // of certificates and secrets
	trust    *tls.Config
	operator string // secret
	shop     string // secret of the application
	api      string // URL of the management API
}

// install makes a namespace and the secrets as the script does for everybody, with
// a PostgreSQL on the node's host. ports are those of the node for applications,
// and for devices with HTTP and with MQTT.
func install(t *testing.T, n *node, namespace string, ports [3]int, options ...string) *site {
	t.Helper()
	s := &site{node: n, namespace: namespace, dir: t.TempDir(),
		northbound: fmt.Sprintf("amqps://%s:%d", address, ports[0]), uploads: fmt.Sprintf("https://%s:%d/", address, ports[1]), mqtt: fmt.Sprintf("%s:%d", address, ports[2])}
	n.namespace(t, namespace)
	options = append(options, "--namespace", namespace)
	s.secrets(t, database(t), options...)
	ca, err := os.ReadFile(filepath.Join(s.dir, "certs", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	s.trust = &tls.Config{RootCAs: x509.NewCertPool()}
	s.trust.RootCAs.AppendCertsFromPEM(ca)
	printed, err := os.ReadFile(filepath.Join(s.dir, "operator.txt"))
	if err != nil {
		t.Fatal(err)
	}
	s.operator = secretOf(t, string(printed))
	out, err := exec.Command("../../bin/sluice", "identity", "add", "shop", "--tenant", tenant, "--identities",
		filepath.Join(s.dir, "router", "identities.yaml")).Output()
	if err != nil {
		t.Fatal(err)
	}
	s.shop = secretOf(t, string(out))
	s.secrets(t, "", options...) // what is there already is used
	t.Cleanup(func() {
		if t.Failed() {
			s.describe(t)
		}
		s.kubectl(t, "delete", "namespace", namespace, "--wait=false")
	})
	return s
}

func (s *site) secrets(t *testing.T, url string, options ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(infra, "secrets"), append(options, "--host", address, s.dir)...)
	kubectl, err := filepath.Abs("node")
	if err != nil {
		t.Fatal(err)
	}
	wrapper := filepath.Join(t.TempDir(), "kubectl")
	write(t, wrapper, "#!/bin/sh\nexec "+kubectl+" kubectl \"$@\"\n")
	if err := os.Chmod(wrapper, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(s.env(), "KUBECTL="+wrapper, "SLUICE_REGISTRY_URL="+url)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "Warning") {
		t.Fatalf("secrets: %v\n%s", err, out)
	}
}

var secretLine = regexp.MustCompile(`(?m)^secret +(\S+)$`)

func secretOf(t *testing.T, printed string) string {
	t.Helper()
	m := secretLine.FindStringSubmatch(printed)
	if m == nil {
		t.Fatal("no secret was printed")
	}
	return m[1]
}

// database starts PostgreSQL, and has it answer at the node's address: pods do not
// reach the loopback of their host. It returns the URL that pods use.
func database(t *testing.T) string {
	t.Helper()
	db := pgtest.Start(t)
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	server := u.Host
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go forward(c, server)
		}
	}()
	u.Host = l.Addr().String()
	return u.String()
}

func forward(c net.Conn, to string) {
	defer c.Close()
	d, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer d.Close()
	go func() {
		io.Copy(d, c)
		d.Close()
	}()
	io.Copy(c, d)
}

// rolledOut waits until deployments are what they should be.
func (s *site) rolledOut(t *testing.T, deployments ...string) {
	t.Helper()
	for _, d := range deployments {
		if out, bad, err := s.try(t, "rollout", "status", "-n", s.namespace, "deployment/"+d, "--timeout=4m"); err != nil {
			t.Fatalf("%s: %v\n%s%s", d, err, out, bad)
		}
	}
}

// describe logs what one wants to know of pods that do not run.
func (s *site) describe(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "pods", "-n", s.namespace, "-o", "wide"},
		{"get", "events", "-n", s.namespace, "--sort-by=.lastTimestamp"},
		{"logs", "-n", s.namespace, "-l", "app.kubernetes.io/part-of=sluice", "--tail=15", "--prefix"},
	} {
		out, bad, _ := s.try(t, args...)
		t.Logf("kubectl %s\n%s%s", strings.Join(args, " "), out, bad)
	}
}

var forwarding = regexp.MustCompile(`127\.0\.0\.1:(\d+) ->`)

// forwardManagement opens the management API on a port of this machine, as an
// operator would.
func (s *site) forwardManagement(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := s.command(ctx, "port-forward", "-n", s.namespace, "service/sluice-functions", ":28443")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait() // killed
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := forwarding.FindStringSubmatch(lines.Text()); m != nil {
			s.api = "https://localhost:" + m[1] + "/v1"
			go io.Copy(io.Discard, out)
			return
		}
	}
	t.Fatal("port-forward ended")
}

// manage asks the management API for something that has to succeed.
func (s *site) manage(t *testing.T, method, path string, body any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, s.api+path, strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("admin", s.operator)
	r.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	res, err := s.client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		answer, _ := io.ReadAll(res.Body)
		t.Fatalf("%s %s: %s %s", method, path, res.Status, answer)
	}
}

// client makes HTTP requests of somebody outside of the cluster.
func (s *site) client() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: s.trust, MaxIdleConnsPerHost: 64}}
}

// device makes a device with a password.
func (s *site) device(t *testing.T, id string) {
	t.Helper()
	s.manage(t, http.MethodPost, "/devices/"+tenant+"/"+id, map[string]any{})
	s.manage(t, http.MethodPut, "/credentials/"+tenant+"/"+id, []any{map[string]any{
		"type": "hashed-password", "auth-id": id, "secrets": []any{map[string]any{"pwd-plain": secret}}}})
}

// upload sends one message of a device and returns the status. An error is one of
// the connection.
func (s *site) upload(ctx context.Context, c *http.Client, kind, device, text string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.uploads+kind, strings.NewReader(text))
	if err != nil {
		return 0, err
	}
	r.SetBasicAuth(device+"@"+tenant, secret)
	r.Header.Set("QoS-Level", "1")
	r.Header.Set("Content-Type", "text/plain")
	res, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	return res.StatusCode, nil
}

// patience turns a hang into a failure.
const patience = 90 * time.Second

// eventually waits for something that takes its time, and fails after patience.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, fmt.Errorf("not within %s: %w", patience, err))
}
