package campaign_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// watched is a connection of a device, of which is known when it ends.
type watched struct {
	name  string
	conn  net.Conn
	acks  chan struct{}
	ended chan struct{}
	when  time.Time // once ended
}

func watch(t *testing.T, l mqttLogin, name string) *watched {
	t.Helper()
	l.clientID = name
	c, err := dialMQTT(l)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	w := &watched{name: name, conn: c, acks: make(chan struct{}, 100), ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		for r := bufio.NewReader(c); ; {
			head, _, err := readMQTT(r)
			if err != nil {
				w.when = time.Now()
				return
			}
			if head == mqttPuback {
				w.acks <- struct{}{}
			}
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-w.ended
	})
	return w
}

// works has the device send a message, which must be acknowledged.
func (w *watched) works(t *testing.T) {
	t.Helper()
	_, err := w.conn.Write(mqttPublish(nil, "telemetry", 1, []byte("{}")))
	select {
	case <-w.acks:
	case <-w.ended:
		t.Errorf("the connection of %s was closed", w.name)
	case <-time.After(patience):
		t.Errorf("%s is not answered: %v", w.name, err)
	}
}

// TestDevicesRevoked takes away what devices are connected with. Only the connections are
// closed that came in with what is gone; a secret that is added closes none.
func TestDevicesRevoked(t *testing.T) {
	t.Parallel()
	const tenant = "REVOKE"
	s := newDeviceSite(t)
	s.startFunction(t)
	s.startRouter(t)
	s.startMQTT(t, s.functions)
	s.operator(t, http.MethodPost, "tenants/"+tenant, "application/json", strings.NewReader("{}"), http.StatusCreated)
	consume(t, s.parts, tenant)
	named := func(name string) string {
		return fmt.Sprintf(`{"comment":%q,%s`, name, strings.TrimPrefix(quickSecretOf("password "+name), "{"))
	}
	put := func(device, credentials string) {
		t.Helper()
		s.operator(t, http.MethodPut, "credentials/"+tenant+"/"+device, "application/json", strings.NewReader(credentials), http.StatusNoContent)
	}
	of := func(authID string, secrets ...string) string {
		return fmt.Sprintf(`{"type":"hashed-password","auth-id":%q,"secrets":[%s]}`, authID, strings.Join(secrets, ","))
	}
	for _, device := range []string{"one", "other"} {
		s.operator(t, http.MethodPost, "devices/"+tenant+"/"+device, "application/json", strings.NewReader("{}"), http.StatusCreated)
	}
	put("one", "["+of("one", named("first"), named("second"))+","+of("alias", named("third"))+"]")
	put("other", "["+of("other", named("fourth"))+"]")
	ids := s.secretIDs(t, tenant, "one")
	kept := func(name string) string { return fmt.Sprintf(`{"id":%q}`, ids[name]) }

	connect := func(authID, secret string) (both []*watched) {
		for n := range 2 {
			both = append(both, watch(t, mqttLogin{addr: s.mqtt, user: authID + "@" + tenant, password: "password " + secret}, fmt.Sprintf("%s by %s, %d", authID, secret, n)))
		}
		return both
	}
	first, second, third, fourth := connect("one", "first"), connect("one", "second"), connect("alias", "third"), connect("other", "fourth")
	all := [][]*watched{first, second, third, fourth}

	for _, step := range []struct {
		name  string
		do    func()
		close []*watched
	}{
		{"a secret is added", func() {
			put("one", "["+of("one", kept("first"), kept("second"), quickSecretOf("more"))+","+of("alias", kept("third"))+"]")
		}, nil},
		{"a secret is removed", func() { put("one", "["+of("one", kept("second"))+","+of("alias", kept("third"))+"]") }, first},
		{"a credential is removed", func() { put("one", "["+of("one", kept("second"))+"]") }, third},
		{"the device is disabled", func() {
			s.operator(t, http.MethodPut, "devices/"+tenant+"/one", "application/json", strings.NewReader(`{"enabled":false}`), http.StatusNoContent)
		}, second},
	} {
		step.do()
		began := time.Now()
		for _, w := range step.close {
			select {
			case <-w.ended:
				t.Logf("%s: the connection of %s was closed %s after the answer", step.name, w.name, w.when.Sub(began).Round(100*time.Microsecond))
			case <-time.After(patience):
				t.Fatalf("%s: the connection of %s is still open", step.name, w.name)
			}
		}
		var open [][]*watched
		for _, both := range all {
			if len(step.close) > 0 && both[0] == step.close[0] {
				continue
			}
			for _, w := range both {
				w.works(t)
			}
			open = append(open, both)
		}
		all = open
		if t.Failed() {
			t.Fatalf("after %s", step.name)
		}
	}
}

// secretIDs are the ids of a device's secrets by their comments.
func (s *deviceSite) secretIDs(t *testing.T, tenant, device string) map[string]string {
	t.Helper()
	var credentials []struct {
		Secrets []struct{ ID, Comment string }
	}
	text := s.operator(t, http.MethodGet, "credentials/"+tenant+"/"+device, "", nil, http.StatusOK)
	if err := json.Unmarshal(text, &credentials); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	ids := map[string]string{}
	for _, c := range credentials {
		for _, secret := range c.Secrets {
			ids[secret.Comment] = secret.ID
		}
	}
	return ids
}
