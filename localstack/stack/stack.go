package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/sluice-iot/sluice/localstack/lambdahost"
	"github.com/sluice-iot/sluice/localstack/process"
	"github.com/sluice-iot/sluice/localstack/template"
)

// Name is that of the stack.
const Name = "sluice-local"

// Options says where things are. Repository and Data are required.
type Options struct {
	Repository string
	Sluice     string // the program; "" = bin/sluice of the repository
	Archive    string // of the functions; "" = build/aws/sluice-function-amd64.zip of the repository
	Data       string // a folder for what is made; what it held is removed
	// Parameters of the template, besides those that this package sets.
	Parameters map[string]string
	// Idle is after how long an instance of a function ends that has nothing to do; 0 = 5 min.
	Idle time.Duration
	// NoticeRetry is after how many seconds what a router did not take is told again, where
	// the template's shortest is too long to wait for; 0 = the template's.
	NoticeRetry int
	// Addresses; "" = a port of loopback that is free.
	Device, Northbound, Management, Invoke string
	Log                                    *slog.Logger
}

// Stack is the deployment, running.
type Stack struct {
	// Host runs the identity functions, EventStore the event store, Manager the management API.
	Host, EventStore, Manager *lambdahost.Host
	// Device is the HTTP adapter's address, Northbound the router's for
	// applications (AMQP), Management the function URL, Invoke the Invoke API.
	Device, Northbound, Management, Invoke string
	Function, EventsFunction               string // the keys functions.identity and functions.events
	SQS                                    *sqs.Client
	Notices, DeadLetters                   string // URLs of the queues
	Events                                 string // URL of LocalStack

	o         Options
	log       *slog.Logger
	template  *template.Stack
	addresses addresses
	router    *process.Process
	closers   []func()
	group     sync.WaitGroup
	stop      context.CancelFunc
}

// addresses are those that only the parts themselves use.
type addresses struct{ dynamo, local, internal, ingress, routerHealth, adapterHealth string }

// Start starts everything and returns when a device can send. Where it fails, it
// has stopped what it started.
func Start(ctx context.Context, o Options) (_ *Stack, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Sluice == "" {
		o.Sluice = filepath.Join(o.Repository, "bin", "sluice")
	}
	if o.Archive == "" {
		o.Archive = filepath.Join(o.Repository, "build", "aws", "sluice-function-amd64.zip")
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Stack{o: o, log: o.Log, stop: stop}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.prepare(); err != nil {
		return nil, err
	}
	if err := s.startServers(ctx); err != nil {
		return nil, err
	}
	if err := s.makeResources(ctx); err != nil {
		return nil, err
	}
	if err := s.startFunctions(work); err != nil {
		return nil, err
	}
	if err := s.StartRouter(ctx); err != nil {
		return nil, err
	}
	if err := s.startAdapter(ctx); err != nil {
		return nil, err
	}
	return s, s.seed(ctx)
}

// prepare makes the folder and chooses the addresses.
func (s *Stack) prepare() error {
	if err := clearFolder(s.o.Data); err != nil {
		return err
	}
	for _, dir := range []string{"logs", "tmp", "task", "router", "adapter"} {
		if err := os.MkdirAll(s.data(dir), 0o700); err != nil {
			return err
		}
	}
	s.Device, s.Northbound, s.Management, s.Invoke = s.o.Device, s.o.Northbound, s.o.Management, s.o.Invoke
	a := &s.addresses
	for _, at := range []*string{&s.Device, &s.Northbound, &s.Management, &s.Invoke, &a.dynamo, &a.local, &a.internal, &a.ingress, &a.routerHealth, &a.adapterHealth} {
		if *at == "" {
			port, err := freePort()
			if err != nil {
				return err
			}
			*at = fmt.Sprintf("127.0.0.1:%d", port)
		}
	}
	s.Events = "http://" + a.local
	return s.issue()
}

// marker is a file of folders that this package made.
const marker = ".local-aws"

// clearFolder removes what an earlier run left, and nothing else.
func clearFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
			return fmt.Errorf("%s is not empty, and not from an earlier run: name another folder", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, marker), nil, 0o600)
}

func (s *Stack) data(path ...string) string {
	return filepath.Join(append([]string{s.o.Data}, path...)...)
}

func (s *Stack) repository(path ...string) string {
	return filepath.Join(append([]string{s.o.Repository}, path...)...)
}

// Log is what a part wrote: router, adapter, identity, events, management, dynamodb or localstack.
func (s *Stack) Log(part string) string {
	text, err := os.ReadFile(s.data("logs", part+".log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Close stops everything, the last first.
func (s *Stack) Close() {
	s.stop()
	for _, f := range slices.Backward(s.closers) {
		f()
	}
	s.group.Wait()
	if err := os.RemoveAll(s.data("tmp")); err != nil { // keys are in it
		s.log.Error("remove temporary files", "err", err)
	}
}

// run starts a program that is stopped by Close, and waits until ready answers.
func (s *Stack) run(ctx context.Context, grace time.Duration, name, path string, env []string, ready string, args ...string) (*process.Process, error) {
	out, err := os.OpenFile(s.data("logs", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the process has its own
	p, err := process.Start(process.Options{Name: name, Path: path, Args: args, Env: append(environment(s.data("tmp")), env...), Dir: s.o.Data, Output: out})
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() { p.Stop(grace) })
	began := time.Now()
	if err := await(ctx, p, ready); err != nil {
		return nil, fmt.Errorf("%w; it wrote:\n%s", err, tail(s.Log(name)))
	}
	s.log.Info("started", "part", name, "pid", p.PID(), "took", time.Since(began).Round(time.Millisecond))
	return p, nil
}

// environment is what every part gets, and nothing of the caller's credentials.
func environment(tmp string) []string {
	env := []string{"TMPDIR=" + tmp, "AWS_REGION=" + lambdahost.Region, "AWS_DEFAULT_REGION=" + lambdahost.Region,
		"AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_EC2_METADATA_DISABLED=true"}
	for _, name := range []string{"PATH", "HOME", "JAVA_HOME", "LANG"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// await waits until a URL answers without an error of the server.
func await(ctx context.Context, p *process.Process, url string) error {
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode < 500 {
				return nil
			}
		}
		select {
		case <-p.Done():
			return errors.New(p.Exit())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", url, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tail is the end of a text.
func tail(text string) string { return text[max(0, len(text)-2000):] }
