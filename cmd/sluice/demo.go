package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/observe"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/router/manage"
)

// The demo (contract: configuration 4).
const (
	demoTenant   = "DEMO"
	demoDevice   = "4711"
	demoAuthID   = "sensor1"
	demoApp      = "demo-app@DEMO"
	demoFile     = "demo.env"
	operatorFile = "operator.env"
	operatorName = "admin"
	// routerAdmin is the identity with which an operator manages the router: the
	// router knows identities, not operators.
	routerAdmin = "admin@local"
)

// env is a file of NAME=value lines.
type env map[string]string

func readEnv(path string) (env, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	e := env{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if k, v, ok := strings.Cut(lines.Text(), "="); ok && !strings.HasPrefix(k, "#") {
			e[strings.TrimSpace(k)] = strings.TrimSpace(v)
		}
	}
	return e, lines.Err()
}

// writeEnv writes lines to a file that only its owner can read: whole or not at all.
func writeEnv(path string, lines ...string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".env-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(strings.Join(lines, "\n") + "\n")
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// absolute makes a path one that commands in other folders find.
func absolute(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// createOperator makes the identities file with the first operator. The secret
// is kept before it is in force, so that a crash in between loses nothing.
func (i *installation) createOperator() error {
	secret, routerSecret := auth.GenerateSecret(), auth.GenerateSecret()
	path := i.process.Data.File(operatorFile)
	if err := writeEnv(path,
		"SLUICE_URL="+i.baseURL(config.RoleManagement), "SLUICE_USER="+operatorName, "SLUICE_PASSWORD="+secret,
		"SLUICE_ROUTER_URL="+i.baseURL(config.RoleNorthbound), "SLUICE_ROUTER_USER="+routerAdmin, "SLUICE_ROUTER_PASSWORD="+routerSecret,
		"SLUICE_CA="+absolute(i.process.Own.CA)); err != nil {
		return fmt.Errorf("keep the operator's secret: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(i.cfg.Identities), 0o700); err != nil {
		return err
	}
	err := auth.AddOperatorWith(i.cfg.Identities, operatorName, secret, map[string]auth.Activity{"*": auth.Read | auth.Write})
	if err != nil {
		return err
	}
	err = auth.AddIdentityWith(i.cfg.Identities, routerAdmin, routerSecret,
		auth.Authority{Address: manage.Address, May: auth.Read | auth.Write},
		auth.Authority{Operation: manage.Address + ":" + manage.Delete, May: auth.Execute})
	if err != nil {
		return err
	}
	i.log.Info("made the first operator", "name", operatorName, "router", routerAdmin, "secret", path)
	return nil
}

// baseURL is where the first listener of a role is reached, plain text first.
func (i *installation) baseURL(role string) string {
	for _, tls := range []bool{false, true} {
		for _, s := range i.process.Sockets(role) {
			if (s.Config.TLS != nil) != tls {
				continue
			}
			scheme := map[string]string{config.RoleNorthbound: "amqp"}[role]
			if scheme == "" {
				scheme = "http"
			}
			if tls {
				scheme += "s"
			}
			return scheme + "://" + reachable(s.Addr())
		}
	}
	return ""
}

// reachable turns an address that stands for all of a machine's into one that
// can be dialled.
func reachable(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok || !t.IP.IsUnspecified() {
		return a.String()
	}
	return fmt.Sprintf("127.0.0.1:%d", t.Port)
}

// Opened implements [edge.Functions].
func (i *installation) Opened(ctx context.Context) error {
	if !i.demo {
		return nil
	}
	return i.openDemo(ctx)
}

// openDemo makes whatever of the demo is not there yet. Its secrets are kept
// first, so that every later start finds the same.
func (i *installation) openDemo(ctx context.Context) error {
	path := i.process.Data.File(demoFile)
	demo, err := readEnv(path)
	if errors.Is(err, fs.ErrNotExist) {
		device, _ := registry.GeneratePassword()
		err = writeEnv(path,
			"# The demo's secrets, made at the first start with --demo.",
			"SLUICE_TENANT="+demoTenant, "SLUICE_DEVICE="+demoDevice,
			"SLUICE_DEVICE_AUTH_ID="+demoAuthID, "SLUICE_DEVICE_PASSWORD="+device,
			"SLUICE_APP_USER="+demoApp, "SLUICE_APP_PASSWORD="+auth.GenerateSecret(),
			"SLUICE_CA="+absolute(i.process.Own.CA))
		if err == nil {
			demo, err = readEnv(path)
		}
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if err := i.demoDevice(ctx, demo["SLUICE_DEVICE_PASSWORD"]); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if i.process.Directory.Current(demoApp) == nil {
		err := auth.AddIdentityWith(i.cfg.Identities, demoApp, demo["SLUICE_APP_PASSWORD"],
			auth.Authority{Address: "telemetry/" + demoTenant, May: auth.Read},
			auth.Authority{Address: "event/" + demoTenant, May: auth.Read},
			auth.Authority{Address: "command_response/" + demoTenant, May: auth.Read},
			auth.Authority{Address: "command/" + demoTenant, May: auth.Write})
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		if _, err := i.process.Directory.Reload(); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	return nil
}

func (i *installation) demoDevice(ctx context.Context, password string) error {
	r := i.identity.Registry
	if _, _, err := r.CreateTenant(ctx, demoTenant, iot.Tenant{}); err != nil && !errors.Is(err, iot.ErrExists) {
		return err
	}
	if _, _, err := r.CreateDevice(ctx, demoTenant, demoDevice, iot.Device{}); err != nil && !errors.Is(err, iot.ErrExists) {
		return err
	}
	have, err := r.Credentials(ctx, demoTenant, demoDevice)
	if err != nil || len(have.Set) > 0 {
		return err
	}
	_, err = r.PutCredentials(ctx, demoTenant, demoDevice, []iot.Credential{{
		Type: iot.HashedPassword, AuthID: demoAuthID, Secrets: []iot.Secret{registry.GeneratedSecret(password)},
	}}, "")
	return err
}

// Started implements [edge.Functions]: it tells a person how to go on. Nothing here
// is for machines.
func (i *installation) Started() {
	if !i.demo {
		return
	}
	demo, err := readEnv(i.process.Data.File(demoFile))
	if err != nil {
		i.log.Warn("demo", "err", err)
		return
	}
	login, device := demoAuthID+"@"+demoTenant+":"+demo["SLUICE_DEVICE_PASSWORD"], i.baseURL(config.RoleHTTPAdapter)
	fmt.Fprintf(i.out, `
Sluice %s is up. In a second terminal, wait for messages as an application:

%s

and in a third, send one as a device:

curl -i -u %s -H 'Content-Type: application/json' -d '{"temp":21}' %s/telemetry

To send a command, let the device wait for one, and meanwhile send it from another terminal:

curl -u %s -H 'Content-Type: application/json' -d '{"temp":21}' '%s/event?hono-ttd=60'
%s

The secrets are in %s, the operator's in %s. Ctrl-C stops.
`, observe.Version(), i.applicationLine("consume telemetry "+demoTenant), login, device,
		login, device, i.applicationLine("command "+demoTenant+" "+demoDevice+` setBrightness '{"brightness":80}' --one-way`),
		i.process.Data.File(demoFile), i.process.Data.File(operatorFile))
}

// applicationLine names besides only what the command would not find by itself.
func (i *installation) applicationLine(command string) string {
	line := "bin/sluice " + command
	if wd, err := os.Getwd(); err != nil || i.process.Data.Path != filepath.Join(wd, "data") {
		line += " --data " + quoted(i.process.Data.Path)
	}
	if url := i.baseURL(config.RoleNorthbound); url != defaultNorthbound {
		line += " --url " + url
	}
	return line
}

// quoted protects a path from the shell.
func quoted(s string) string {
	if strings.ContainsAny(s, " '\"\\$`&|;<>()*?[]#~") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}
