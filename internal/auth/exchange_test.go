package auth_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/auth"
)

func TestMechanisms(t *testing.T) {
	scram := `{name: s, secret: "` + scramOf(t, "x") + `", authorities: []}`
	plain := `{name: p, secret: "{plain}x", authorities: []}`
	certificate := `{name: c, authorities: []}`
	issuers := "\nissuers: [{issuer: \"https://id.example\", audience: a, authorities-claim: c}]"
	all := []string{auth.Plain, auth.ScramSHA256, auth.External, auth.OAuthBearer, auth.XOAuth2, auth.Anonymous}
	for name, c := range map[string]struct {
		text        string
		configured  []string
		certificate bool
		want        string
	}{
		"plain":                        {"identities: [" + plain + "]", nil, false, "PLAIN"},
		"SCRAM for all":                {"identities: [" + scram + "," + certificate + "]", nil, false, "SCRAM-SHA-256 PLAIN"},
		"SCRAM for some":               {"identities: [" + scram + "," + plain + "]", nil, false, "PLAIN"},
		"SCRAM for some, configured":   {"identities: [" + scram + "," + plain + "]", []string{"SCRAM-SHA-256", "PLAIN"}, false, "SCRAM-SHA-256 PLAIN"},
		"with a certificate":           {"identities: [" + plain + "]", nil, true, "EXTERNAL PLAIN"},
		"issuers":                      {"identities: [" + plain + "]" + issuers, nil, false, "PLAIN OAUTHBEARER XOAUTH2"},
		"everything":                   {"identities: [" + scram + "]" + issuers, all, true, strings.Join(all, " ")},
		"everything, nothing there":    {"identities: []", all, false, "PLAIN ANONYMOUS"},
		"what is configured cannot be": {"identities: []", []string{"EXTERNAL"}, false, "EXTERNAL"},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, c.text, auth.Options{AllowPlain: true})
			if got := strings.Join(d.Mechanisms(c.configured, c.certificate), " "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestAnonymous(t *testing.T) {
	login := func(d *auth.Directory) *auth.Identity {
		challenge, id, err := d.Begin(auth.Anonymous, nil).Step(t.Context(), []byte("trace"))
		if challenge != nil || err != nil || id == nil {
			t.Fatalf("%q, %v, %v", challenge, id, err)
		}
		return id
	}
	d := open(t, "identities: []", auth.Options{})
	if id := login(d); id.Name != "anonymous" || len(id.Authorities()) > 0 || id.May("telemetry/A", auth.Read) || d.Refresh(id) != id {
		t.Errorf("got %+v", id)
	}
	d = open(t, `identities: [{name: anonymous, authorities: [{address: "telemetry/A", may: [read]}]}]`, auth.Options{})
	if id := login(d); !id.May("telemetry/A", auth.Read) || d.Refresh(id) != id {
		t.Errorf("got %+v", id)
	}
}

func TestSingleMessageMechanisms(t *testing.T) {
	d := open(t, sample(t), auth.Options{AllowPlain: true})
	if _, id, err := d.Begin(auth.Plain, nil).Step(t.Context(), []byte("\x00clear\x00s-plain")); err != nil || id.Name != "clear" {
		t.Errorf("%v, %v", id, err)
	}
	if _, _, err := d.Begin("CRAM-MD5", nil).Step(t.Context(), nil); err == nil {
		t.Error("want an error")
	}
}

func rewrite(t *testing.T, d *auth.Directory, text string) {
	t.Helper()
	if err := os.WriteFile(d.Path()+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.Path()+".new", d.Path()); err != nil {
		t.Fatal(err)
	}
	if changed, err := d.Reload(); err != nil || !changed {
		t.Fatalf("%v, %v", changed, err)
	}
}

func TestRefresh(t *testing.T) {
	i := newIssuer(t)
	entry := func(name, address string) string {
		return `{name: ` + name + `, authorities: [{address: "` + address + `", may: [read]}]}`
	}
	file := func(issuers string, entries ...string) string {
		return "identities: [" + strings.Join(entries, ", ") + "]\n" + issuers
	}
	d := open(t, file(issuerFile(i), entry("same", "a"), entry("changed", "a"), entry("gone", "a"), entry("anonymous", "a")), auth.Options{})
	id := map[string]*auth.Identity{}
	for _, name := range []string{"same", "changed", "gone", "anonymous"} {
		id[name] = d.Current(name)
	}
	var err error
	if id["token"], err = d.Token(t.Context(), i.Token(t, map[string]any{"sub": "x", "aud": "sluice"})); err != nil {
		t.Fatal(err)
	}
	if id["component"], err = auth.NewComponent(auth.Adapter, "http-0"); err != nil {
		t.Fatal(err)
	}
	told, version := 0, d.Version()
	stop := d.Subscribe(func() { told++ })
	rewrite(t, d, file(issuerFile(i), entry("same", "a"), entry("changed", "b")))
	if told != 1 || d.Version() != version+1 {
		t.Errorf("told %d times, version %d", told, d.Version())
	}
	for _, name := range []string{"same", "token", "component"} {
		if d.Refresh(id[name]) != id[name] {
			t.Errorf("%s: another", name)
		}
	}
	if now := d.Refresh(id["changed"]); now == nil || now == id["changed"] || !now.May("b", auth.Read) || now.May("a", auth.Read) {
		t.Errorf("changed: %+v", now)
	}
	if now := d.Refresh(id["gone"]); now != nil {
		t.Errorf("gone: %+v", now)
	}
	if now := d.Refresh(id["anonymous"]); now == nil || now.May("a", auth.Read) {
		t.Errorf("anonymous: %+v", now)
	}
	if d.Refresh(nil) != nil {
		t.Error("nobody became somebody")
	}
	stop()
	rewrite(t, d, file(strings.Replace(issuerFile(i), "sluice", "other", 1)))
	if told != 1 {
		t.Error("told after the end")
	}
	if d.Refresh(id["token"]) != nil {
		t.Error("the token outlived a change of its issuer")
	}
	if !slices.Equal(d.Mechanisms(nil, false), []string{auth.Plain, auth.OAuthBearer, auth.XOAuth2}) {
		t.Error(d.Mechanisms(nil, false))
	}
}
