package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// rabbitProgram is the script that Debian's rabbitmq-server wraps in a change of user: the
// one of this bench runs as whoever runs it.
const rabbitProgram = "/usr/lib/rabbitmq/bin/rabbitmq-server"

const (
	rabbitQueue = "bench"
	rabbitLogin = "bench:bench-secret@"
	// rabbitLimit is how long it may take to listen: it starts a whole Erlang system.
	rabbitLimit = 2 * time.Minute
)

// startRabbitMQ starts RabbitMQ with its AMQP 1.0 plugin and one durable queue, on
// ports and folders of its own. It returns nil when it is not installed.
func startRabbitMQ(ctx context.Context, o options) (*server, error) {
	if _, err := os.Stat(rabbitProgram); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var addrs [3]string
	for i := range addrs {
		var err error
		if addrs[i], err = freeAddr(); err != nil {
			return nil, err
		}
	}
	addr, dist, mapper := addrs[0], port(addrs[1]), port(addrs[2])
	dir, err := os.MkdirTemp(o.dir, "rabbitmq-")
	if err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"rabbitmq.conf": fmt.Sprintf("listeners.tcp.1 = %s\nload_definitions = %s\nlog.console = true\nlog.console.level = warning\nlog.file = false\n",
			addr, file("definitions.json")),
		"plugins":          "[rabbitmq_amqp1_0].\n",
		"definitions.json": rabbitDefinitions,
	} {
		if err := os.WriteFile(file(name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	// Its nodes find each other through a daemon, which would go on when they have ended.
	names, err := startWith(ctx, startLimit, nil, "127.0.0.1:"+mapper, "epmd", "-port", mapper, "-address", "127.0.0.1")
	if err != nil {
		return nil, fmt.Errorf("for RabbitMQ: %w", err)
	}
	env := append(os.Environ(), "HOME="+dir, "ERL_EPMD_PORT="+mapper, "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=bench-"+mapper+"@localhost", "RABBITMQ_DIST_PORT="+dist,
		"RABBITMQ_CONFIG_FILE="+file("rabbitmq.conf"), "RABBITMQ_ADVANCED_CONFIG_FILE="+file("none.config"), "RABBITMQ_CONF_ENV_FILE="+file("none"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+file("plugins"),
		"RABBITMQ_MNESIA_BASE="+file("mnesia"), "RABBITMQ_LOG_BASE="+file("log"), "RABBITMQ_PID_FILE="+file("pid"),
		"RABBITMQ_GENERATED_CONFIG_DIR="+file("config"), "RABBITMQ_SCHEMA_DIR="+file("schema"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}")
	s, err := startWith(ctx, rabbitLimit, env, addr, rabbitProgram)
	if err != nil {
		names.stop()
		return nil, err
	}
	s.beside, s.url = names, "amqp://"+rabbitLogin+addr
	if s.process, err = erlang(s.cmd.Process.Pid); err != nil {
		s.stop()
		return nil, err
	}
	s.version = "RabbitMQ"
	if m := regexp.MustCompile(`rabbit-([0-9.]+)`).FindStringSubmatch(firstMatch("/usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins/rabbit-[0-9]*")); m != nil {
		s.version += " " + m[1]
	}
	return s, nil
}

const rabbitDefinitions = `{
	"users": [{"name": "bench", "password": "bench-secret", "tags": ""}],
	"vhosts": [{"name": "/"}],
	"permissions": [{"user": "bench", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
	"queues": [{"name": "` + rabbitQueue + `", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}]
}
`

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

func firstMatch(pattern string) string {
	if all, _ := filepath.Glob(pattern); len(all) > 0 {
		return all[0]
	}
	return ""
}

// erlang returns the process that runs Erlang: the one that was started, a shell at
// first, or a child of it.
func erlang(pid int) (int, error) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	parents := map[int]int{}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		end := bytes.LastIndexByte(b, ')')
		fields := bytes.Fields(b[end+1:])
		if start := bytes.IndexByte(b, '('); start >= 0 && len(fields) > 1 && string(b[start+1:end]) == "beam.smp" {
			own, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			parent, _ := strconv.Atoi(string(fields[1]))
			parents[own] = parent
		}
	}
	for own, parent := range parents {
		if own == pid || parent == pid {
			return own, nil
		}
	}
	return 0, fmt.Errorf("no Erlang system (beam.smp) is process %d, or a child of it", pid)
}
