package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/config"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	l, err := config.Load(config.Options{Env: []string{"HOME=/home/x"}})
	if err != nil {
		t.Fatal(err)
	}
	if l.Data != "/home/x/.local/share/sluice" || l.Identities != l.Data+"/identities.yaml" {
		t.Errorf("data %s, identities %s", l.Data, l.Identities)
	}
	if len(l.Warnings) != 0 {
		t.Errorf("warnings: %q", l.Warnings)
	}
	for _, v := range l.Values() {
		if v.Source.String() != "default" {
			t.Errorf("%s: source %s", v.Path, v.Source)
		}
		if strings.Contains(v.Text(), "\n") {
			t.Errorf("%s: more than one line: %q", v.Path, v.Text())
		}
	}
	for _, list := range [][]config.Listener{config.RouterListeners(), config.AdapterListeners("http", "mqtt"), config.IdentityFunctionListeners()} {
		if _, err := config.Load(config.Options{Listeners: list, Env: []string{"HOME=/x"}}); err != nil {
			t.Error(err)
		}
	}
}

func TestPrecedence(t *testing.T) {
	file := write(t, "name: from.file\ncredit-wait: 1s\nsend-timeout: 5s\nadapters:\n  http: {max-payload-size: 4KiB}\n")
	l, err := config.Load(config.Options{
		File:  file,
		Env:   []string{"SLUICE_SEND_TIMEOUT=6s", "SLUICE_CREDIT_WAIT=2s", "SLUICE_DATA=/d", "SLUICE_ROUTERS=amqps://a:1,amqps://b:2", "SLUICE_PORT=tcp://10.0.0.1:80", "SLUICE_IDENTITES=x"},
		Flags: []config.Flag{{Path: "credit-wait", Value: "3s", Name: "--set credit-wait"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if l.Name != "from.file" || l.CreditWait != 3*time.Second || l.SendTimeout != 6*time.Second || l.Adapters.HTTP.MaxPayloadSize != 4096 || l.Data != "/d" {
		t.Errorf("got %+v", l.Config)
	}
	if diff := cmp.Diff([]string{"amqps://a:1", "amqps://b:2"}, l.Routers); diff != "" {
		t.Error(diff)
	}
	for path, want := range map[string]string{
		"name": "file " + file + ":1", "credit-wait": "flag --set credit-wait", "send-timeout": "environment SLUICE_SEND_TIMEOUT",
		"adapters.http.max-payload-size": "file " + file + ":5", "adapters.http.realm": "default", "routers[1]": "environment SLUICE_ROUTERS",
	} {
		if got := l.Source(path).String(); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	if len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "SLUICE_IDENTITES is not a setting; nearest known: SLUICE_IDENTITIES") {
		t.Errorf("warnings: %q", l.Warnings)
	}
}

func TestConfigFromEnvironment(t *testing.T) {
	l, err := config.Load(config.Options{Env: []string{"SLUICE_CONFIG=" + write(t, "name: n"), "HOME=/x"}})
	if err != nil || l.Name != "n" {
		t.Errorf("got %v, %v", l, err)
	}
}

func TestPathsAreRelativeToTheFile(t *testing.T) {
	file := write(t, `
data: store
identities: who.yaml
tls: {certificate: c.pem, key: k.pem, ca: /abs/ca.pem}
functions: {identity: "https://f.example", token-file: token}
listeners:
- {role: northbound, address: "127.0.0.1:0", tls: {certificate: l.pem, key: lk.pem}}
`)
	dir := filepath.Dir(file)
	l, err := config.Load(config.Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{l.Data, l.Identities, l.TLS.Certificate, l.TLS.CA, l.Functions.TokenFile, l.Listeners[0].TLS.Key, l.Listeners[0].TLS.ClientCA}
	want := []string{dir + "/store", dir + "/store/who.yaml", dir + "/c.pem", "/abs/ca.pem", dir + "/token", dir + "/lk.pem", ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFindData(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	env := []string{"XDG_DATA_HOME=/xdg"}
	load := func(find bool) string {
		l, err := config.Load(config.Options{Env: env, Find: find})
		if err != nil {
			t.Fatal(err)
		}
		return l.Data
	}
	if got := load(true); got != "/xdg/sluice" {
		t.Errorf("got %s", got)
	}
	if err := os.Mkdir("data", 0o700); err != nil {
		t.Fatal(err)
	}
	if got := load(true); filepath.Base(got) != "data" {
		t.Errorf("got %s", got)
	}
	if got := load(false); got != "/xdg/sluice" {
		t.Errorf("got %s", got)
	}
}

func TestErrors(t *testing.T) {
	listener := func(text string) string { return "listeners: [{" + text + "}]" }
	for name, c := range map[string]struct{ text, want string }{
		"typo":              {"credit-wiat: 1s", `:1: unknown key "credit-wiat" in the top level; nearest known key: "credit-wait"`},
		"role":              {listener(`role: nortbound, address: "127.0.0.1:1"`), `role "nortbound" is not served; nearest known role: "northbound"`},
		"address":           {listener(`role: northbound, address: "127.0.0.1"`), `expected host:port`},
		"port":              {listener(`role: northbound, address: "127.0.0.1:x"`), `port "x" is not a number`},
		"plain public":      {listener(`role: northbound, address: "0.0.0.0:5672"`), `plain text on 0.0.0.0:5672`},
		"plain all":         {listener(`role: northbound, address: ":5672"`), `not a loopback address`},
		"plain by name":     {listener(`role: health, address: "box.example:8088"`), `not a loopback address`},
		"components plain":  {listener(`role: internal, address: "127.0.0.1:5673"`), `needs tls`},
		"half a pair":       {listener(`role: northbound, address: "127.0.0.1:1", tls: {key: k}`), `certificate and key go together`},
		"tls version":       {listener(`role: northbound, address: "127.0.0.1:1", tls: {min-version: 1.1}`), `expected 1.2 or 1.3`},
		"mechanism":         {listener(`role: northbound, address: "127.0.0.1:1", mechanisms: [CRAM-MD5]`), `mechanism "CRAM-MD5" is not served`},
		"external plain":    {listener(`role: northbound, address: "127.0.0.1:1", mechanisms: [EXTERNAL]`), `needs tls`},
		"external no ca":    {listener(`role: northbound, address: "127.0.0.1:1", tls: {}, mechanisms: [EXTERNAL]`), `needs client-ca`},
		"sasl on http":      {listener(`role: health, address: "127.0.0.1:1", mechanisms: [PLAIN]`), `speaks no SASL`},
		"sasl internal":     {listener(`role: internal, address: "127.0.0.1:1", tls: {}, mechanisms: [SCRAM-SHA-256]`), `takes EXTERNAL only`},
		"same address":      {"listeners: [{role: health, address: \"127.0.0.1:1\"}, {role: northbound, address: \"127.0.0.1:1\"}]", `taken by listeners[0]`},
		"level":             {"log: {level: loud}", `log.level: "loud": expected one of debug, info, warn, error (file`},
		"store":             {"registry: mysql", `registry.store: "mysql": expected one of`},
		"postgres":          {"registry: postgres", `needs registry.url`},
		"router":            {"routers: [router:5673]", `expected a URL such as amqps://`},
		"plain router":      {"routers: [\"amqp://u:p@router:5673\"]", `amqp://u:xxxxx@router:5673 is plain text`},
		"function":          {"functions: {identity: \"http://f\"}", `use https`},
		"zero timeout":      {"send-timeout: 0s", `send-timeout: too small`},
		"size":              {"management: {max-payload-size: 1MB}", `"1MB" is not a size`},
		"pattern":           {"management: {tenant-id-pattern: \"[\"}", `management.tenant-id-pattern: error parsing regexp`},
		"anonymous":         {"adapters: {http: {authentication-required: false}}", `devices without credentials need --insecure`},
		"anonymous MQTT":    {"adapters: {mqtt: {authentication-required: false}}", `adapters.mqtt.authentication-required: devices without credentials need --insecure`},
		"no certificates":   {`listeners: [{role: management, address: "127.0.0.1:0", tls: {no-client-certificates: true}}]`, `no-client-certificates is for listeners of devices`},
		"will":              {"adapters: {mqtt: {will: maybe}}", `adapters.mqtt.will: "maybe": expected publish or ignore`},
		"in flight":         {"adapters: {mqtt: {max-in-flight: 70000}}", `70000 is more than 65535`},
		"index":             {"registry: {indexes: [serial]}", `registry.indexes[0]: "serial": expected a JSON pointer`},
		"algorithm":         {"assertions: {algorithm: RS256}", `expected one of EdDSA, ES256`},
		"plain ingress":     {"notices: {ingresses: [\"http://router:8445\"]}", `use https`},
		"broker":            {"notices: {broker: broker}", `expected a URL such as https://`},
		"token without":     {"functions: {token-file: t}", `a token goes with a URL`},
		"ca without":        {"functions: {ca: t}", `a CA goes with a URL`},
		"token for lambda":  {"functions: {identity: \"lambda:f\", token-file: t}", `a token goes with a URL`},
		"lambda":            {"functions: {identity: \"lambda:\"}", `without the name or ARN`},
		"open management":   {"management: {authentication-required: false}\nlisteners: [{role: management, address: \":8\", tls: {}}]", `loopback addresses only`},
		"queue":             {"notices: {broker: \"sqs:notices\"}", `expected a URL such as https://`},
		"ingress with SASL": {"listeners: [{role: ingress, address: \"localhost:1\", mechanisms: [PLAIN]}]", `speaks no SASL`},
		"cost":              {"management: {max-bcrypt-cost-factor: 31}", `more than 20`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Load(config.Options{File: write(t, c.text), Env: []string{"HOME=/x"}})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestFlagAndEnvironmentErrors(t *testing.T) {
	_, err := config.Load(config.Options{Flags: []config.Flag{{Path: "adapters.htp.realm", Name: "--set"}}, Env: []string{"HOME=/x"}})
	if err == nil || err.Error() != `--set: unknown setting "adapters.htp.realm"; nearest known: "adapters.http.realm"` {
		t.Errorf("got %v", err)
	}
	_, err = config.Load(config.Options{Env: []string{"HOME=/x", "SLUICE_CREDIT_WAIT=soon"}})
	if err == nil || !strings.HasPrefix(err.Error(), "environment variable SLUICE_CREDIT_WAIT: ") {
		t.Errorf("got %v", err)
	}
	_, err = config.Load(config.Options{File: filepath.Join(t.TempDir(), "absent.yaml")})
	if err == nil || !strings.Contains(err.Error(), "absent.yaml: no such file") {
		t.Errorf("got %v", err)
	}
	if _, err = config.Load(config.Options{}); err == nil {
		t.Error("no home: want an error")
	}
}

func TestInsecureIsAllowedAndSaid(t *testing.T) {
	for name, text := range map[string]string{
		"whole":    "insecure: true\nlisteners: [{role: health, address: \":0\"}]",
		"listener": "listeners: [{role: health, address: \":0\", insecure: true}]",
	} {
		t.Run(name, func(t *testing.T) {
			l, err := config.Load(config.Options{File: write(t, text), Env: []string{"HOME=/x"}})
			if err != nil {
				t.Fatal(err)
			}
			if len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "plain text") {
				t.Errorf("warnings %q", l.Warnings)
			}
		})
	}
}

func TestValuesHidePasswords(t *testing.T) {
	l, err := config.Load(config.Options{File: write(t, "registry: {store: postgres, url: \"postgres://u:geheim@h/d?sslpassword=geheim\"}"), Env: []string{"HOME=/x"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range l.Values() {
		if strings.Contains(v.Text(), "geheim") {
			t.Errorf("%s shows the password: %s", v.Path, v.Text())
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]config.Size{"0": 0, "2048": 2048, "64KiB": 65536, "1 MiB": 1 << 20, "2GiB": 2 << 30} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: got %d, %v", text, s, err)
		}
		var again config.Size
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%s: written as %s", text, s)
		}
	}
	for _, text := range []string{"", "-1", "1MB", "KiB", "9223372036854775807GiB", "1.5MiB"} {
		if err := new(config.Size).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: want an error", text)
		}
	}
}

func TestOpenData(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "data")
	d, err := config.OpenData(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	_, err = config.OpenData(path)
	if err == nil || !strings.Contains(err.Error(), "is in use by process ") {
		t.Errorf("got %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := config.OpenData(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenDataNotAFolder(t *testing.T) {
	path := write(t, "")
	if _, err := config.OpenData(path); err == nil || !strings.Contains(err.Error(), "cannot be created") {
		t.Errorf("got %v", err)
	}
}

func TestOpenDataNotWritable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(path, "lock"), 0o700); err != nil { // a folder where the file belongs fails for root too
		t.Fatal(err)
	}
	if _, err := config.OpenData(path); err == nil || !strings.Contains(err.Error(), "is not writable") {
		t.Errorf("got %v", err)
	}
}

func TestOpenDataClosesItToOthers(t *testing.T) {
	path := t.TempDir()
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := config.OpenData(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
}
