package containers_test

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// answer is what a device or an operator got.
type answer struct {
	status     int
	retryAfter string
	body       string
	took       time.Duration
}

func (a answer) String() string {
	return fmt.Sprintf("%d %s (Retry-After %q, after %s)", a.status, a.body, a.retryAfter, ms(a.took))
}

// device uploads to one adapter over connections that it keeps.
type device struct {
	id       string
	url      string
	endpoint string
	client   *http.Client
}

const (
	telemetry = "telemetry"
	event     = "event"
)

// sends returns the same device for another kind of message.
func (d *device) sends(endpoint string) *device {
	other := *d
	other.endpoint = endpoint
	return &other
}

func (d *device) authID() string { return d.id + "@" + tenant }
func secretOf(id string) string  { return "secret of " + id }

// newDevice is one that need not be registered.
func (n *site) newDevice(t *testing.T, id string) *device {
	t.Helper()
	address, err := n.adapters[0].published(t.Context(), "8443")
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: n.clientTLS(), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &device{id: id, url: "https://" + address, endpoint: telemetry, client: &http.Client{Transport: transport, Timeout: patience}}
}

// upload sends a message at least once, and no second time.
func (d *device) upload(t *testing.T, body string) (answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+"/"+d.endpoint, bytes.NewBufferString(body))
	if err != nil {
		return answer{}, err
	}
	req.SetBasicAuth(d.authID(), secretOf(d.id))
	req.Header.Set("QoS-Level", "1")
	req.Header.Set("Content-Type", "text/plain")
	return send(d.client, req)
}

func send(c *http.Client, req *http.Request) (answer, error) {
	began := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := readAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("Retry-After"), text, time.Since(began)}, err
}

// must uploads and wants a status.
func (d *device) must(t *testing.T, body string, want int) answer {
	t.Helper()
	got, err := d.upload(t, body)
	if err != nil || got.status != want {
		t.Fatalf("upload of %s: %s, %v; want %d", d.id, got, err, want)
	}
	return got
}

// until uploads until the status is the wanted one, and tells how many uploads were
// answered otherwise.
func (d *device) until(t *testing.T, body string, want int) (others int) {
	t.Helper()
	eventually(t, fmt.Sprintf("an upload of %s is answered %d", d.id, want), func() error {
		got, err := d.upload(t, body)
		if err == nil && got.status != want {
			others++
			err = fmt.Errorf("%s", got)
		}
		return err
	})
	return others
}

// learn uploads until the adapter knows the device for good. What routers tell
// adapters of a change comes a moment after it is in force, and what an adapter
// learned in between it asks for once more.
func (d *device) learn(t *testing.T) {
	t.Helper()
	for range 20 {
		d.until(t, "known", http.StatusAccepted)
		time.Sleep(50 * time.Millisecond)
	}
}

// manage makes one request of the operator to functions and wants a status.
func (n *site) manage(t *testing.T, b *box, method, path, contentType, body string, want int) answer {
	t.Helper()
	address, err := b.published(t.Context(), "28443")
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+address+"/v1/"+path, bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(operator, operatorSecret)
	req.Header.Set("Content-Type", contentType)
	transport := &http.Transport{TLSClientConfig: n.clientTLS(), DisableKeepAlives: true}
	got, err := send(&http.Client{Transport: transport, Timeout: patience}, req)
	if err != nil || got.status != want {
		t.Fatalf("%s %s: %s, %v; want %d", method, path, got, err, want)
	}
	return got
}

// register makes the tenant and devices with passwords.
func (n *site) register(t *testing.T, b *box, devices ...string) {
	t.Helper()
	n.manage(t, b, http.MethodPost, "tenants/"+tenant, "application/json", "{}", http.StatusCreated)
	for _, id := range devices {
		n.manage(t, b, http.MethodPost, "devices/"+tenant+"/"+id, "application/json", "{}", http.StatusCreated)
		n.manage(t, b, http.MethodPut, "credentials/"+tenant+"/"+id, "application/json", fmt.Sprintf(
			`[{"type": "hashed-password", "auth-id": %q, "secrets": [{"pwd-plain": %q}]}]`, id, secretOf(id)), http.StatusNoContent)
	}
}

// enable switches a device on or off.
func (n *site) enable(t *testing.T, b *box, id string, on bool) {
	t.Helper()
	n.manage(t, b, http.MethodPatch, "devices/"+tenant+"/"+id, "application/merge-patch+json", fmt.Sprintf(`{"enabled": %t}`, on), http.StatusNoContent)
}
