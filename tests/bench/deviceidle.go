package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"

	"golang.org/x/crypto/bcrypt"
)

// mostIdle is how many idle devices there are at most, where the limit of descriptors of a
// process allows them.
const (
	mostIdle = 250_000
	spare    = 500 // descriptors for all but connections
	slowOnes = 300 // devices whose passwords are hashed with bcrypt: some ten seconds' work
)

var connectedLine = regexp.MustCompile(`connected: (\d+) in ([0-9.]+) s, (\d+) conn/s, srv (\d+) us/conn`)

// idleDevices measures how fast MQTT clients connect and what they hold when they do nothing
// but ping, in an adapter of its own and in mosquitto.
func idleDevices(ctx context.Context, o options, peerbench string) error {
	devices := o.idleDevices
	if devices == 0 {
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
		devices = int(min(max(limit.Cur, spare+1)-spare, mostIdle))
	}
	slow, err := bcrypt.GenerateFromPassword([]byte(devicePassword), 10)
	if err != nil {
		return err
	}
	run := func(name string, p *server, n int, args ...string) error {
		args = append([]string{"mqtt-idle", "-label", "x", "-pid", strconv.Itoa(p.pid()), "-conns", strconv.Itoa(n), "-warm", "5s", "-d", "5s"}, args...)
		out, err := exec.CommandContext(ctx, peerbench, args...).CombinedOutput()
		connected, idle := connectedLine.FindSubmatch(out), idleLine.FindSubmatch(out)
		if err != nil || connected == nil || idle == nil {
			return fmt.Errorf("idle MQTT clients, %s: %v\n%s%s", name, err, out, p.log())
		}
		fmt.Printf("%s: %d MQTT clients, %s connected/s with %s us of its processor each; idle %s KiB resident each, %s %% of a processor\n",
			name, n, connected[3], connected[4], idle[4], idle[5])
		return nil
	}
	mosquitto, err := startMosquitto(ctx, o)
	if err != nil {
		return err
	}
	if mosquitto != nil {
		err := run("mosquitto, TCP", mosquitto, devices, "-url", "mqtt://"+mosquitto.addr)
		mosquitto.stop()
		if err != nil {
			return err
		}
	}
	for _, kind := range []struct {
		name, secret string
		devices      int
		tls          bool
		lives        []string // of the adapter
	}{
		{"sluice, TCP, SHA-256 secrets", quickSecret(), devices, false, []string{""}},
		{"sluice, TLS, SHA-256 secrets", quickSecret(), devices, true, []string{""}},
		{"sluice, TCP, bcrypt-10 secrets", fmt.Sprintf(`{"hash-function":"bcrypt","pwd-hash":%q}`, slow), min(slowOnes, devices), false,
			[]string{", the first time", ", after a restart of the adapter"}},
	} {
		s, err := newSite(o)
		if err != nil {
			return err
		}
		p, err := s.startParts(ctx)
		if err != nil {
			return err
		}
		if err = s.register(deviceTenant, kind.devices, kind.secret); err != nil {
			p.stop()
			return err
		}
		for i, life := range kind.lives {
			if i > 0 {
				if err = p.again(ctx, s); err != nil {
					break
				}
			}
			url := "mqtt://" + p.mqtt
			if kind.tls {
				url = "mqtts://" + p.mqttTLS
			}
			if err = run(kind.name+life, p, kind.devices, "-url", url, "-user", deviceUser, "-password", devicePassword); err != nil {
				break
			}
		}
		p.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// again starts the MQTT adapter of a site in parts anew.
func (s *server) again(ctx context.Context, of *site) error {
	with := s.with
	s.with = nil
	s.stop()
	p, err := of.part(ctx, of.mqttHealth, "adapter-mqtt-0", []string{"adapter", "mqtt"}, of.mqttConfig())
	if err != nil {
		for _, other := range with {
			other.stop()
		}
		return err
	}
	of.settle(p)
	p.with, p.names = with, s.names
	*s = *p
	return nil
}

func (s *site) mqttConfig() string {
	return fmt.Sprintf(`listeners:
  - {role: adapter/mqtt, address: %q}
  - {role: adapter/mqtt, address: %q, tls: {}}
  - {role: health, address: %q}
%s`, s.mqtt, s.mqttTLS, s.mqttHealth, s.toRouter())
}
